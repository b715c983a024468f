"""The tools' own parsers accept every command that the launchers print.

`make launch` runs them: gcloud, kubectl and sbatch without an account or a
server, which they miss only after parsing their arguments; XPK's parser in the
environment of the target. The commands are those of the dry runs (the .txt
files here) and of launch/README.md.

parsed.txt lists the accepted commands, so unchecked flags also fail on machines
without the tools. After a change, on a machine with all tools:
FUSAR_WRITE_GOLDEN=1 make launch JOBS=0.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PARSED = HERE / "parsed.txt"
CONTROLLER = r"Unable to contact slurm controller"
# Messages that appear after the arguments are parsed.
READ = {
  "gcloud": r"do not currently have an active account|"
  r"Did not find existing container at: weights|Docker configuration file "
  r"updated|Go to the following link in your browser",
  "kubectl": r"connection to the server .* was refused|connection refused",
  "sbatch": CONTROLLER,
  "srun": CONTROLLER,
  "squeue": CONTROLLER,
  "scancel": CONTROLLER,
}
CREATE = ["xpk", "workload", "create"]
XPK = """
import argparse, json, sys
from xpk.parser.core import set_parser
parser = argparse.ArgumentParser(prog="xpk")
set_parser(parser)
for words in json.load(sys.stdin):
  arguments = parser.parse_args(words)
  assert callable(arguments.func), words
"""
VARIABLES = {
  "PROJECT": "my-project",
  "ZONE": "us-west4-a",
  "BUCKET": "my-bucket",
  "WORKDIR": "gs://my-bucket/runs/stage1",
}


def shape(words: list[str]) -> str:
  """Tool, verbs and names of flags, e.g. "xpk cluster delete --zone"."""
  verbs = []
  for word in words:
    if not re.fullmatch(r"[a-z][a-z-]*", word) or len(verbs) == 6:
      break
    verbs.append(word)
  flags = sorted({w.partition("=")[0] for w in words if w.startswith("--")})
  return " ".join((*verbs, *flags))


def commands() -> dict[str, list[str]]:
  """Returns one command of each shape."""
  lines = []
  for name in ("tpu_vm", "gke", "slurm", "project"):
    text = (HERE / f"{name}.txt").read_text()
    lines += [x for x in text.splitlines() if x and x[0] not in "$#"]
  # Commands of the job script, with a command to run.
  job = (ROOT / "launch" / "slurm.sh").read_text().replace("\\\n", " ")
  found = re.search(r'FUSAR_HOSTS="\$hosts" (srun .*?) "\$\{@:2\}"', job)
  lines.append(f"{found[1]} true")
  readme = (ROOT / "launch" / "README.md").read_text()
  for block in re.findall(r"```bash\n(.*?)```", readme, re.S):
    lines += block.replace("\\\n", " ").splitlines()
  found = {}
  for line in lines:
    for name, value in VARIABLES.items():
      line = line.replace(f"${name}", value)
    words = shlex.split(line, comments=True)
    if words and words[0] in (*READ, "xpk"):
      found.setdefault(shape(words), words)
  return found


COMMANDS = commands()


def test_every_command_was_read_by_its_tool_once():
  """Runs on every machine; the tests below verify the contents of the file."""
  if os.environ.get("FUSAR_WRITE_GOLDEN"):
    PARSED.write_text("\n".join(sorted(COMMANDS)) + "\n")
  assert set(COMMANDS) == set(PARSED.read_text().splitlines())


@pytest.mark.parametrize("name", [x for x in COMMANDS if x[:4] != "xpk "])
def test_the_tool_reads(name, tmp_path):
  words = COMMANDS[name]
  tool = _tool(words[0])
  text = _answer([tool, *words[1:]], tmp_path)
  assert re.search(READ[words[0]], text), text


@pytest.mark.parametrize("tool", READ)
def test_the_tool_rejects_a_flag_that_it_does_not_know(tool, tmp_path):
  """Verifies that the checks above can fail."""
  words = next(
    words
    for words in COMMANDS.values()
    if words[0] == tool and words[1] != "auth"
  )
  flag = "--no-such-flag=1"
  # Words after the command of srun belong to that command.
  words = [*words[1:], flag] if tool == "gcloud" else [flag, *words[1:]]
  assert not re.search(READ[tool], _answer([_tool(tool), *words], tmp_path))


def test_xpk_reads():
  python = _tool("xpk").parent / "python"
  found = [words[1:] for words in COMMANDS.values() if words[0] == "xpk"]
  assert len(found) > 5

  def read(values):
    return subprocess.run(
      [python, "-c", XPK],
      input=json.dumps(values),
      capture_output=True,
      text=True,
    )

  out = read(found)
  assert out.returncode == 0, out.stderr
  removed = [*found[-1], "--restart-on-user-code-failure"]
  assert read([removed]).returncode == 2


def test_xpk_makes_a_jobset_that_saves_and_restarts(tmp_path):
  """The exit codes that allow a restart, and the time that saving has."""
  xpk = _tool("xpk")
  words = next(w for w in COMMANDS.values() if w[:3] == CREATE)
  (tmp_path / "environment").write_text("HF_TOKEN=it\n")
  made = tmp_path / "manifest.yaml"
  out = subprocess.run(
    [
      *(xpk, *words[1:], "--dry-run", "--skip-validation"),
      *(f"--env-file={tmp_path / 'environment'}",),
      f"--output-manifest-file={made}",
    ],
    env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
    stdin=subprocess.DEVNULL,
    capture_output=True,
    text=True,
  )
  assert out.returncode == 0, out.stdout + out.stderr
  spec = yaml.safe_load(made.read_text())["spec"]
  assert spec["failurePolicy"]["maxRestarts"] == 10
  job = spec["replicatedJobs"][0]["template"]["spec"]
  rule = job["podFailurePolicy"]["rules"][0]
  assert (rule["action"], rule["onExitCodes"]["operator"]) == (
    "FailJob",
    "NotIn",
  )
  assert {75, 76} <= set(rule["onExitCodes"]["values"])
  # Failures, and the exit code of `timeout`.
  assert not {1, 2, 124, 125} & set(rule["onExitCodes"]["values"])
  pod = job["template"]["spec"]
  assert pod["terminationGracePeriodSeconds"] == 120
  container = pod["containers"][0]
  # The container whose logs `gke.sh logs` follows.
  assert container["name"] == "jax-tpu"
  assert {"name": "HF_TOKEN", "value": "it"} in container["env"]


def _answer(command: list, home: Path) -> str:
  """Returns the output of a tool without account, cluster and settings."""
  slurm = home / "slurm.conf"
  found = _tool_folder().parent.glob("slurm/usr/lib/*/slurm-wlm")
  plugins = str(next(found, home))
  slurm.write_text(
    "ClusterName=none\nSlurmctldHost=localhost\nAuthType=auth/none\n"
    "GresTypes=gpu\nNodeName=localhost\nPartitionName=p Nodes=ALL\n"
    f"MessageTimeout=3\nPluginDir={plugins}\n"
  )
  environment = {
    "PATH": os.environ["PATH"],
    "HOME": str(home),
    "CLOUDSDK_CONFIG": str(home / "gcloud"),
    "CLOUDSDK_CORE_DISABLE_PROMPTS": "1",
    "CLOUDSDK_CORE_CHECK_GCE_METADATA": "false",
    "SLURM_CONF": str(slurm),
    "LD_LIBRARY_PATH": plugins,
  }
  out = subprocess.run(
    command,
    env=environment,
    cwd=home,
    stdin=subprocess.DEVNULL,
    capture_output=True,
    text=True,
    timeout=120,
  )
  return out.stdout + out.stderr


def _tool_folder() -> Path:
  folder = os.environ.get("FUSAR_LAUNCH_TOOLS")
  if not folder:
    pytest.skip("needs the tools of clouds and clusters: make launch")
  return Path(folder)


def _tool(name: str) -> Path:
  places = os.pathsep.join((str(_tool_folder()), os.environ["PATH"]))
  found = shutil.which(name, path=places)
  if found is None:
    pytest.skip(f"{name} is not here; parsed.txt keeps what it has read")
  return Path(found)
