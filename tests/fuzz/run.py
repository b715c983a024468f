"""Fuzzing: every reader gets mutated inputs, and must name what is wrong.

A failure is: an exception that is neither ValueError nor OSError, an error
about a file without its name, more than 2 seconds of processor time, more than
1 GB, or a file left behind. The input of a failure is written to a folder, and
repeated with --repeat. Inputs that failed once are in `kept` and come first.

    python tests/fuzz/run.py --minutes 10
    python tests/fuzz/run.py --inputs 500 --only raster,torch
    python tests/fuzz/run.py --inputs 2000 --record fuzz.jsonl
    python tests/fuzz/run.py --repeat fuzz_failures/raster-1234.tif

With --record, an interrupted run continues. One process reads all targets in
turn; if it ends or hangs, another begins with the target after.
"""

import argparse
import dataclasses
import hashlib
import json
import logging
import os
import random
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from mutations import mutate  # noqa: E402
from targets import TARGETS  # noqa: E402
from workplace import Workplace, limit_address_space, scratch  # noqa: E402

KEPT = Path(__file__).with_name("kept")
# A hang in C code cannot be interrupted from within.
_SILENT_SECONDS = 90
# Inputs of a target before the next one's turn.
_ROUND = 250
_MOST_FAILURES = 10


@dataclasses.dataclass
class Tally:
  """What one target did: inputs read, rejected, its failures and its time."""

  read: int = 0
  rejected: int = 0
  seconds: float = 0.0
  failures: list[str] = dataclasses.field(default_factory=list)

  @property
  def inputs(self) -> int:
    return self.read + self.rejected

  def add(self, other: "Tally") -> None:
    self.read += other.read
    self.rejected += other.rejected
    self.seconds += other.seconds
    self.failures += other.failures


def main() -> int:
  options = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  options.add_argument("--minutes", type=float, default=0.0)
  options.add_argument("--inputs", type=int, default=0, help="of each target")
  options.add_argument("--only", default="", help="names, with commas")
  options.add_argument("--seed", type=int, default=0)
  options.add_argument("--out", type=Path, default=Path("fuzz_failures"))
  options.add_argument("--record", type=Path, help="of a run, to continue it")
  options.add_argument("--repeat", type=Path, help="an input that failed")
  options.add_argument("--worker", type=json.loads, help=argparse.SUPPRESS)
  args = options.parse_args()
  if args.repeat:
    return _repeat(args.repeat)
  if args.worker:
    return _work(args)
  names = [n for n in args.only.split(",") if n] or list(TARGETS)
  if unknown := {*names} - {*TARGETS}:
    options.error(f"no target {sorted(unknown)}; there are {list(TARGETS)}")
  if not args.minutes and not args.inputs:
    options.error("give --minutes or --inputs")
  args.out = args.out.absolute()
  return _run_all(names, args)


def _run_all(names: list[str], args) -> int:
  tallies, rounds = _recorded(names, args.record)
  seconds = 60 * args.minutes / len(names)
  while True:
    todo = {
      name: min(args.inputs - tally.inputs, _ROUND) if args.inputs else 0
      for name, tally in tallies.items()
      if len(tally.failures) < _MOST_FAILURES
      and (not args.inputs or tally.inputs < args.inputs)
      and (not seconds or tally.seconds < seconds)
    }
    if not todo:
      break
    done = _one_worker(todo, args.seed + rounds, seconds, args)
    rounds += 1
    if not any(tally.inputs or tally.failures for tally in done.values()):
      done[next(iter(todo))].failures.append("its worker did nothing")
    for name, tally in done.items():
      tallies[name].add(tally)
      for failure in tally.failures:
        print(f"{name}: {failure}", flush=True)
    _append(args.record, done)
  return _print(tallies)


def _print(tallies: dict[str, Tally]) -> int:
  total = Tally()
  for name, tally in tallies.items():
    pace = tally.inputs / max(tally.seconds, 1e-9)
    print(
      f"{name:24s} {tally.read:7,} read {tally.rejected:7,} rejected"
      f" {len(tally.failures):3} failures {pace:7.0f} a second"
    )
    total.add(tally)
  print(
    f"{total.inputs:,} inputs of {len(tallies)} readers,"
    f" {len(total.failures)} failures"
  )
  return 1 if total.failures else 0


def _recorded(names, record: Path | None) -> tuple[dict[str, Tally], int]:
  tallies, rounds = {name: Tally() for name in names}, 0
  if record and record.is_file():
    for line in record.read_text("utf-8").splitlines():
      rounds += 1
      for name, tally in json.loads(line).items():
        if name in tallies:
          tallies[name].add(Tally(**tally))
  return tallies, rounds


def _append(record: Path | None, done: dict[str, Tally]) -> None:
  if record:
    line = {k: dataclasses.asdict(v) for k, v in done.items() if v.inputs}
    with record.open("a", encoding="utf-8") as file:
      file.write(json.dumps(line) + "\n")


def _one_worker(todo, seed: int, seconds: float, args) -> dict[str, Tally]:
  command = [sys.executable, __file__, "--worker", json.dumps(todo)]
  command += ["--seed", str(seed), "--minutes", str(seconds / 60)]
  command += ["--out", str(args.out)]
  with scratch() as folder, tempfile.TemporaryFile() as errors:
    state = Path(folder) / "state.json"
    process = subprocess.Popen(
      command,
      env=os.environ | {"FUZZ_FOLDER": folder, "JAX_PLATFORMS": "cpu"},
      cwd=folder,
      stdout=subprocess.DEVNULL,
      stderr=errors,
    )
    seen, since = b"", time.monotonic()
    while process.poll() is None:
      time.sleep(0.05)
      now = state.read_bytes() if state.is_file() else b""
      if now != seen:
        seen, since = now, time.monotonic()
      elif time.monotonic() - since > _SILENT_SECONDS:
        process.kill()
    written = json.loads(state.read_bytes()) if state.is_file() else {}
    done = {name: Tally() for name in todo}
    for name, tally in written.get("tallies", {}).items():
      done[name] = Tally(**tally)
    if process.returncode:
      errors.seek(0)
      last = errors.read().decode(errors="replace").strip().splitlines()[-1:]
      name = written.get("current") or next(iter(todo))
      # What it read since it last wrote its state counts as this one input.
      done[name].read += 1
      done[name].failures.append(
        f"{_rescue(Path(folder), name, args.out)}: worker ended with"
        f" {process.returncode}: {(last or [''])[0]:.300}"
      )
  return done


def _rescue(folder: Path, name: str, out: Path) -> Path | str:
  """Keeps the input that a worker did not survive."""
  file = TARGETS[name].name if TARGETS[name].file else "text"
  found = list(folder.glob(f"fuzz_*/{file}"))
  if not found:
    return "?"
  return _keep(out, name, found[0].read_bytes())


def _keep(out: Path, name: str, data: bytes) -> Path:
  out.mkdir(parents=True, exist_ok=True)
  digest = hashlib.sha256(data).hexdigest()[:12]
  suffix = Path(TARGETS[name].file and TARGETS[name].name).suffix or ".txt"
  path = out / f"{name.replace(' ', '_')}-{digest}{suffix}"
  path.write_bytes(data)
  return path


def _work(args) -> int:
  """Runs targets in turn until their time or their inputs are spent."""
  logging.disable(logging.CRITICAL)
  warnings.simplefilter("ignore")
  limit_address_space()
  # Folders of inputs are there, so that an input survives this process.
  tempfile.tempdir = os.environ["FUZZ_FOLDER"]
  tallies: dict[str, Tally] = {}
  for name, inputs in args.worker.items():
    tallies[name] = Tally()
    with scratch() as folder:
      _fuzz(name, inputs, args, Path(folder), tallies)
  _save(tallies, "")
  return 0


def _fuzz(name: str, inputs: int, args, folder: Path, tallies) -> None:
  target, tally = TARGETS[name], tallies[name]
  _save(tallies, name)
  rng = random.Random(f"{name} {args.seed}")
  with tempfile.TemporaryDirectory() as made:
    seeds = target.seeds(Path(made))
  place = Workplace(target, folder)
  for seed in seeds:
    # The first ones import what the reader needs.
    problem, rejected = place.run(seed, seconds=60.0)
    if problem or rejected:
      raise SystemExit(f"{name}: a valid input: {problem or rejected}")
  place.measure_memory()
  start = saved = time.monotonic()
  kept = [file.read_bytes() for file in _kept(name)]
  queue = list(kept)
  while len(tally.failures) < _MOST_FAILURES:
    tally.seconds = time.monotonic() - start
    if not queue and (
      (inputs and tally.inputs >= inputs)
      or (args.minutes and tally.seconds > 60 * args.minutes)
    ):
      break
    if time.monotonic() - saved > 0.5:
      _save(tallies, name)
      saved = time.monotonic()
    data = mutate(rng.choice(seeds), seeds + kept, rng)
    if queue:
      data = queue.pop()
    problem, rejected = place.run(data)
    if problem:
      tally.failures.append(f"{_keep(args.out, name, data)}: {problem}")
    tally.rejected += bool(rejected)
    tally.read += not rejected
  _save(tallies, name)


def _kept(name: str) -> list[Path]:
  return sorted(KEPT.glob(f"{name.replace(' ', '_')}-*"))


def _save(tallies: dict[str, Tally], current: str) -> None:
  state = Path(os.environ["FUZZ_FOLDER"]) / "state.json"
  draft = state.with_suffix(".draft")
  values = {name: dataclasses.asdict(tally) for name, tally in tallies.items()}
  draft.write_text(json.dumps({"tallies": values, "current": current}))
  draft.replace(state)


def _repeat(path: Path) -> int:
  """Reads one input without limits, for its traceback."""
  target = TARGETS[path.name.rpartition("-")[0].replace("_", " ")]
  with scratch() as folder:
    if not target.file:
      target.read(path.read_bytes().decode("utf-8", "replace"))
      return 0
    file = Path(folder) / target.name
    file.parent.mkdir(parents=True, exist_ok=True)
    target.around(Path(folder))
    file.write_bytes(path.read_bytes())
    target.read(file)
  return 0


if __name__ == "__main__":
  sys.exit(main())
