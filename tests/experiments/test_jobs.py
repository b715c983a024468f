"""The runner of experiments: order, resumption, ETA, background commands."""

import doctest
import time

import pytest

from fusar_jax import convert
from fusar_jax.command_line import INTERRUPTED
from fusar_jax.experiments import eta
from fusar_jax.experiments.background import BackgroundCommand
from fusar_jax.experiments.jobs import Job, run_jobs


@pytest.fixture
def make(tmp_path):
  """make(name, **fields) -> Job that writes the file NAME; logs its runs."""

  def make(name, **fields):
    def run():
      make.ran.append(name)
      if name == make.fails:
        raise KeyboardInterrupt
      (tmp_path / name).touch()
      return f"{name} is done"

    return Job(name, run=run, outputs=(tmp_path / name,), **fields)

  make.ran, make.fails = [], None
  return make


def test_finished_jobs_are_skipped_unless_they_need_an_unfinished_one(
  make, tmp_path
):
  jobs = [make("a"), make("b", needs=("a",)), make("c", needs=("b",))]
  make.fails = "b"
  with pytest.raises(KeyboardInterrupt):
    run_jobs(jobs, tmp_path)
  make.fails = None
  run_jobs(jobs, tmp_path)
  run_jobs(jobs, tmp_path)
  assert make.ran == ["a", "b", "b", "c"]
  (tmp_path / "a").unlink()
  run_jobs(jobs, tmp_path)
  assert make.ran[4:] == ["a", "b", "c"]


def test_progress_has_elapsed_and_remaining_time(make, tmp_path):
  """The estimate starts with the times of an interrupted call."""
  jobs = [make(name, kind="steps", units=2) for name in "abc"]
  # Start of the call, then per job: its line, its start, its end.
  times = iter([0, 0, 0, 10, 10, 10])
  make.fails = "b"
  with pytest.raises(KeyboardInterrupt):
    run_jobs(jobs, tmp_path, [].append, clock=lambda: next(times))
  with (tmp_path / "jobs.jsonl").open("a") as file:
    file.write('{"job": "b", "ki')
  make.fails, lines = None, []
  times = iter([0, 0, 0, 20, 20, 20, 24])
  run_jobs(jobs, tmp_path, lines.append, clock=lambda: next(times))
  assert lines == [
    "[2/3, 0:00:00 elapsed, about 0:00:20 left] b",
    "b is done",
    "[3/3, 0:00:20 elapsed, about 0:00:15 left] c",
    "c is done",
  ]


def test_a_kind_without_a_finished_job_makes_the_estimate_a_lower_bound(make):
  found = eta.EtaEstimator()
  assert found.left([]) == (0, True)
  found.add("rows", 4, 8)
  assert found.left([("rows", 3), ("rows", 2)]) == (10, True)
  assert found.left([("rows", 3), ("steps", 2)]) == (6, False)
  # Start of the call, then per job: its line, its start, its end.
  times, lines = iter([0, 0, 0, 5, 5, 5, 9, 9, 9, 9]), []
  jobs = [make("a", kind="x"), make("b", kind="x"), make("c", kind="y")]
  run_jobs(jobs, write=lines.append, clock=lambda: next(times))
  assert lines[2] == "[2/3, 0:00:05 elapsed, at least 0:00:05 left] b"
  assert not doctest.testmod(eta).failed


@pytest.mark.parametrize(
  ("code", "error"), [(1, RuntimeError), (INTERRUPTED, KeyboardInterrupt)]
)
def test_a_failed_command_raises(monkeypatch, code, error):
  monkeypatch.setattr(convert, "main", lambda _: code)
  job = Job("convert", command=("convert", "--to", 3))
  with pytest.raises(error):
    run_jobs([job])


def test_one_process_at_a_time_runs_the_jobs_of_a_folder(make, tmp_path):
  again = Job("again", run=lambda: run_jobs([make("a")], tmp_path))
  with pytest.raises(BlockingIOError, match="another process runs its jobs"):
    run_jobs([again], tmp_path)
  assert make.ran == []
  run_jobs([make("a")], tmp_path)
  assert make.ran == ["a"]


def test_a_background_command_runs_until_its_result_is_needed(
  make, tmp_path, capsys
):
  log = tmp_path / "logs" / "help.log"
  background = Job("help", command=("predict", "--help"), log=log)
  run_jobs([background, make("b"), make("c", needs=("help",))], tmp_path)
  assert make.ran == ["b", "c"]
  assert "--max-new-tokens" in log.read_text("utf-8")
  assert f"output in {log})" in capsys.readouterr().out


def test_a_failed_background_command_raises_with_its_last_output(tmp_path):
  log, absent = tmp_path / "bad.log", tmp_path / "none.jsonl"
  arguments = ["--predictions", str(absent), "--out", str(tmp_path / "scores")]
  command = BackgroundCommand("evaluate", arguments, log)
  with pytest.raises(RuntimeError, match="evaluate failed") as error:
    command.wait()
  assert "none.jsonl" in str(error.value)
  assert str(log) in str(error.value)


def test_an_interruption_terminates_background_commands(tmp_path):
  out = tmp_path / "scenes"

  def pictures() -> int:
    return len(list(tmp_path.rglob("*.png")))

  def interrupted() -> None:
    limit = time.monotonic() + 60
    while not pictures() and time.monotonic() < limit:
      time.sleep(0.1)
    raise KeyboardInterrupt

  simulation = Job(
    "simulate",
    command=(
      *("simulate", "--out", out, "--scenes", 60000),
      *("--size", 84, "--workers", 1),
    ),
    log=tmp_path / "s.log",
  )
  with pytest.raises(KeyboardInterrupt):
    run_jobs([simulation, Job("wait", run=interrupted)], tmp_path)
  assert not (out / "dataset.json").exists()
  written = pictures()
  assert written
  time.sleep(1)
  assert pictures() == written
