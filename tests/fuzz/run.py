"""Fuzzing: every reader gets mutated inputs, and must name what is wrong.

A failure is: an exception that is neither ValueError nor OSError, an error
about a file without its name, more than 2 seconds, or more than 1 GB. The
input of a failure is written to a folder, and repeated with --repeat.

    python tests/fuzz/run.py --minutes 10
    python tests/fuzz/run.py --inputs 500 --only raster,torch
    python tests/fuzz/run.py --repeat fuzz_failures/raster-1234.tif
"""

import argparse
import dataclasses
import hashlib
import json
import logging
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from mutations import mutate  # noqa: E402
from targets import TARGETS, Target  # noqa: E402

from fusar_jax.experiments.benchmark.worker import peak_bytes  # noqa: E402

SECONDS = 2.0
BYTES = 1 << 30
# A hang in C code cannot be interrupted from within.
_SILENT_SECONDS = 60


class _HangError(BaseException):
  pass


def _alarm(*_):
  raise _HangError


@dataclasses.dataclass
class Tally:
  """What one target did: inputs read, rejected, and its failures."""

  read: int = 0
  rejected: int = 0
  failures: list[str] = dataclasses.field(default_factory=list)


def main() -> int:
  options = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  options.add_argument("--minutes", type=float, default=0.0)
  options.add_argument("--inputs", type=int, default=0, help="of each target")
  options.add_argument("--only", default="", help="names, with commas")
  options.add_argument("--seed", type=int, default=0)
  options.add_argument("--out", type=Path, default=Path("fuzz_failures"))
  options.add_argument("--repeat", type=Path, help="an input that failed")
  options.add_argument("--worker", help=argparse.SUPPRESS)
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
  return _run_all(names, args)


def _run_all(names: list[str], args) -> int:
  seconds = 60 * args.minutes / len(names)
  total = Tally()
  for name in names:
    tally = _run(name, seconds, args)
    print(
      f"{name:20s} {tally.read:7,} read {tally.rejected:7,} rejected"
      f" {len(tally.failures):3} failures",
      flush=True,
    )
    for failure in tally.failures:
      print(f"  {failure}", flush=True)
    total.read += tally.read
    total.rejected += tally.rejected
    total.failures += tally.failures
  print(
    f"{total.read + total.rejected:,} inputs of {len(names)} readers,"
    f" {len(total.failures)} failures"
  )
  return 1 if total.failures else 0


def _run(name: str, seconds: float, args) -> Tally:
  """Runs a worker; after a crash or a hang, another with the next seed."""
  tally, seed = Tally(), args.seed
  end = time.monotonic() + seconds
  while True:
    left = args.inputs - tally.read - tally.rejected
    if (args.inputs and left <= 0) or (seconds and time.monotonic() > end):
      return tally
    before = tally.read + tally.rejected + len(tally.failures)
    _one_worker(name, seed, max(end - time.monotonic(), 0), left, args, tally)
    seed += 1
    if tally.read + tally.rejected + len(tally.failures) == before:
      tally.failures.append("its worker did nothing")
    if len(tally.failures) >= 10:
      return tally


def _one_worker(name, seed, seconds, inputs, args, tally: Tally) -> None:
  command = [sys.executable, __file__, "--worker", name, "--seed", str(seed)]
  command += ["--minutes", str(seconds / 60), "--inputs", str(max(inputs, 0))]
  command += ["--out", str(args.out)]
  with tempfile.TemporaryDirectory() as folder:
    state = Path(folder) / "state.json"
    process = subprocess.Popen(
      [*command],
      env=os.environ | {"FUZZ_STATE": str(state), "JAX_PLATFORMS": "cpu"},
      cwd=folder,
      stdout=subprocess.DEVNULL,
      stderr=subprocess.PIPE,
      text=True,
    )
    seen, since = b"", time.monotonic()
    while process.poll() is None:
      time.sleep(0.05)
      now = state.read_bytes() if state.is_file() else b""
      if now != seen:
        seen, since = now, time.monotonic()
      elif time.monotonic() - since > _SILENT_SECONDS:
        process.kill()
    errors = process.stderr.read() if process.stderr else ""
    done = json.loads(state.read_text() or "{}") if state.is_file() else {}
  tally.read += done.get("read", 0)
  tally.rejected += done.get("rejected", 0)
  tally.failures += done.get("failures", [])
  if process.returncode:
    last = errors.strip().splitlines()[-1:] or [""]
    tally.failures.append(
      f"worker ended with {process.returncode} at input"
      f" {done.get('current', '?')}: {last[0]}"
    )


def _work(args) -> int:
  """Runs one target until its time or its inputs are spent."""
  logging.disable(logging.CRITICAL)
  warnings.simplefilter("ignore")
  target, state = TARGETS[args.worker], Path(os.environ["FUZZ_STATE"])
  rng = random.Random(args.seed)
  with tempfile.TemporaryDirectory() as folder:
    seeds = target.seeds(Path(folder))
  for seed in seeds:
    problem, rejected = _try(target, seed)
    if problem or rejected:
      raise SystemExit(f"{args.worker}: a valid input: {problem or rejected}")
  # More than what the imports hold.
  base = peak_bytes()
  tally, end = Tally(), time.monotonic() + 60 * args.minutes
  saved = 0.0
  while len(tally.failures) < 10:
    count = tally.read + tally.rejected
    if args.inputs and count >= args.inputs:
      break
    if args.minutes and time.monotonic() > end:
      break
    data = mutate(rng.choice(seeds), seeds, rng)
    digest = hashlib.sha256(data).hexdigest()[:12]
    if time.monotonic() - saved > 0.5:
      _save(state, tally, digest)
      saved = time.monotonic()
    problem, rejected = _try(target, data)
    if not problem and peak_bytes() - base > BYTES:
      problem = f"{(peak_bytes() - base) / 2**30:.1f} GB"
      base = peak_bytes()
    if problem:
      args.out.mkdir(parents=True, exist_ok=True)
      name = f"{args.worker.replace(' ', '_')}-{digest}{target.suffix}"
      (args.out / name).write_bytes(data)
      tally.failures.append(f"{args.out / name}: {problem}")
    tally.rejected += bool(rejected)
    tally.read += not rejected
  _save(state, tally, "")
  return 0


def _save(state: Path, tally: Tally, current: str) -> None:
  draft = state.with_suffix(".draft")
  draft.write_text(json.dumps(dataclasses.asdict(tally) | {"current": current}))
  draft.replace(state)


def _try(target: Target, data: bytes) -> tuple[str, str]:
  """Returns (problem, or ""; why the input was rejected, or "")."""
  with tempfile.TemporaryDirectory() as folder:
    given: Path | str = data.decode("utf-8", "replace")
    if target.suffix:
      given = Path(folder, "input_2024").with_suffix(target.suffix)
      given.write_bytes(data)
    signal.signal(signal.SIGALRM, _alarm)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    start = time.monotonic()
    try:
      target.read(given)
      return _slow(start), ""
    except _HangError:
      return f"more than {SECONDS} s", ""
    except (ValueError, OSError) as error:
      text = str(error)
      # Some readers take a folder, and rename the input to what they expect.
      names = [path.name for path in Path(folder).iterdir()]
      named = isinstance(given, str) or any(name in text for name in names)
      return _slow(start) or ("" if named else f"unnamed: {error!r}"), text
    except BaseException as error:
      where = traceback.extract_tb(error.__traceback__)[-1]
      return f"{error!r:.200} at {where.filename}:{where.lineno}", ""
    finally:
      signal.setitimer(signal.ITIMER_REAL, 0)


def _slow(start: float) -> str:
  seconds = time.monotonic() - start
  return f"{seconds:.1f} s" if seconds > SECONDS else ""


def _repeat(path: Path) -> int:
  name = path.name.rpartition("-")[0].replace("_", " ")
  given: Path | str = path
  target = TARGETS[name]
  if not target.suffix:
    given = path.read_bytes().decode("utf-8", "replace")
  target.read(given)
  return 0


if __name__ == "__main__":
  sys.exit(main())
