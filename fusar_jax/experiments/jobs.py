"""Runs an experiment: a list of jobs, resumable, with progress and ETA.

Demo, study and benchmarks are lists of jobs. A job is skipped if its outputs
exist and all jobs that it needs are finished; so the same call continues after
an interruption. The caller first checks, with `check_resume_config`, that the
folder belongs to the same settings. In the folder of an experiment:

  jobs.jsonl   name, kind, units and seconds of each finished job
"""

import contextlib
import dataclasses
import datetime
import json
import shlex
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fusar_jax.command_line import INTERRUPTED
from fusar_jax.experiments.background import BackgroundCommand, main_of
from fusar_jax.experiments.eta import EtaEstimator
from fusar_jax.io import strict_json
from fusar_jax.io.folder_lock import locked_folder
from fusar_jax.training.compile_cache import compile_cache

_RECORD = "jobs.jsonl"


@dataclasses.dataclass(frozen=True, eq=False)
class Job:
  """One step of an experiment.

  Attributes:
    name: unique in the experiment.
    run: does the work; a returned text is printed. Default: runs `command`.
    command: (command, *arguments) that does the work, or does the same.
    outputs: files that exist once the job is finished; empty: it always runs.
    finished: whether the job is finished, if `outputs` do not show it.
    needs: names of earlier jobs whose results the job uses.
    kind, units: jobs of a kind take a time proportional to their units.
    log: output file of `command`, which then runs in a background process,
      while later jobs that do not need it run.
  """

  name: str
  run: Callable[[], str | None] | None = None
  command: tuple[Any, ...] = ()
  outputs: tuple[Path, ...] = ()
  finished: Callable[[], bool] | None = None
  needs: tuple[str, ...] = ()
  kind: str = ""
  units: int = 1
  log: Path | None = None

  def is_finished(self) -> bool:
    if self.finished:
      return self.finished()
    return bool(self.outputs) and all(path.exists() for path in self.outputs)

  def arguments(self) -> list[str]:
    return [str(word) for word in self.command[1:]]

  def execute(self) -> str | None:
    """Runs the job in this process.

    Raises:
      RuntimeError: the command failed; it has printed the reason.
      KeyboardInterrupt: the command was interrupted.
    """
    if self.run:
      return self.run()
    if not self.command:
      raise ValueError(f"job {self.name!r} has neither `run` nor `command`.")
    if code := main_of(self.command[0])(self.arguments()):
      if code == INTERRUPTED:
        raise KeyboardInterrupt
      raise RuntimeError(f"{self.command[0]} failed (job {self.name!r}).")
    return None


def run_jobs(
  jobs: Sequence[Job],
  folder: Path | None = None,
  write: Callable[[str], None] = print,
  clock: Callable[[], float] = time.monotonic,
) -> None:
  """Runs the unfinished jobs in order.

  Args:
    jobs: of the experiment; a job stands behind those that it needs.
    folder: of the experiment; None: nothing is recorded or cached, and no job
      runs in the background.
    write: prints a line of progress.
    clock: returns seconds.

  Raises:
    BlockingIOError: another process runs jobs in the folder.
    Exceptions of the jobs; background commands are then terminated.
  """
  record = folder and folder / _RECORD
  background: dict[str, BackgroundCommand] = {}
  with contextlib.ExitStack() as stack:
    if folder:
      stack.enter_context(locked_folder(folder, "runs its jobs in"))
      stack.enter_context(compile_cache())
    waiting = _unfinished(jobs)
    eta, began = _recorded_times(record), clock()
    try:
      for k, job in enumerate(waiting):
        for name in job.needs:
          if name in background:
            background.pop(name).wait()
        left, complete = eta.left((j.kind, j.units) for j in waiting[k:])
        times = f"{_duration(clock() - began)} elapsed"
        if left:
          bound = "about" if complete else "at least"
          times += f", {bound} {_duration(left)} left"
        number = len(jobs) - len(waiting) + k + 1
        write(f"[{number}/{len(jobs)}, {times}] {job.name}")
        _print_command(job)
        if job.log and folder:
          background[job.name] = BackgroundCommand(
            job.command[0], job.arguments(), job.log
          )
          continue
        start = clock()
        if text := job.execute():
          write(text)
        seconds = clock() - start
        eta.add(job.kind, job.units, seconds)
        if record:
          _append(record, job, seconds)
      for command in background.values():
        command.wait()
    except BaseException:
      for command in background.values():
        command.terminate()
      raise


def _unfinished(jobs: Sequence[Job]) -> list[Job]:
  """Returns jobs that are unfinished, or that need an unfinished job."""
  names, waiting = set(), {}
  for job in jobs:
    assert names.issuperset(job.needs), f"{job.name} needs {job.needs}"
    assert job.name not in names, job.name
    names.add(job.name)
    if waiting.keys() & set(job.needs) or not job.is_finished():
      waiting[job.name] = job
  return list(waiting.values())


def _print_command(job: Job) -> None:
  if not job.command:
    return
  words = shlex.join(job.arguments())
  print(f"$ python -m fusar_jax.{job.command[0]} {words}", flush=True)
  if job.log:
    print(f"(in the background; output in {job.log})", flush=True)


def _recorded_times(record: Path | None) -> EtaEstimator:
  eta = EtaEstimator()
  if record and record.is_file():
    for line in record.read_bytes().splitlines():
      # The last line may be incomplete. An estimate needs no complete record.
      with contextlib.suppress(
        ValueError, TypeError, KeyError, ArithmeticError
      ):
        job = strict_json.parse(line.decode())
        eta.add(job["kind"], job["units"], job["seconds"])
  return eta


def _append(record: Path, job: Job, seconds: float) -> None:
  line = {
    "job": job.name,
    "kind": job.kind,
    "units": job.units,
    "seconds": round(seconds, 3),
  }
  with record.open("a", encoding="utf-8") as file:
    file.write(json.dumps(line) + "\n")


def _duration(seconds: float) -> str:
  return str(datetime.timedelta(seconds=round(seconds)))
