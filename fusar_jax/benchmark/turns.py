"""Both sides in turn (A B A B ...), after they have agreed on the numbers.

On a shared machine speed drifts from minute to minute; what is compared is each
pair of neighbours, and the median of the pairs is quoted.
"""

import contextlib
import dataclasses
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from fusar_jax.benchmark import workload


class Side:
  """A worker process; see `fusar_jax.benchmark.worker`."""

  def __init__(self, name: str, folder: Path):
    self.name = name
    command = [sys.executable, "-m", "fusar_jax.benchmark.worker"]
    self._process = subprocess.Popen(
      [*command, "--side", name, "--folder", str(folder)],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      text=True,
    )

  def ask(self, **request) -> dict:
    """Returns {"value", "seconds", "peak_bytes"}.

    Raises:
      RuntimeError: the worker died; its own error stands above.
    """
    self._process.stdin.write(json.dumps(request) + "\n")
    self._process.stdin.flush()
    line = self._process.stdout.readline()
    if not line:
      raise RuntimeError(
        f"the benchmark's {self.name!r} process ended (exit code"
        f" {self._process.wait()}); its error is printed above."
      )
    return json.loads(line)

  def close(self) -> None:
    self._process.kill()
    self._process.wait()


@dataclasses.dataclass(frozen=True)
class Work:
  """A piece of measured work.

  Attributes:
    name: in the table.
    ours, theirs: requests; both do `units` of work.
    units: samples or tokens, of each side.
    unit: their name.
    less: what to change in both requests to do everything but the measured
      work; its time is taken off.
  """

  name: str
  ours: dict
  theirs: dict
  units: tuple[int, int]
  unit: str
  less: dict = dataclasses.field(default_factory=dict)


def works(tokens: int) -> list[Work]:
  """What is measured: both stages, decoding of one sample and of 16."""
  train = [
    Work(
      f"train, stage {stage}",
      {"do": "train", "stage": stage},
      {"do": "train", "stage": stage},
      (workload.BATCH, workload.BATCH),
      "samples/s",
    )
    for stage in (1, 2)
  ]
  one = {"do": "decode", "count": 1, "tokens": 1}
  alone = one | {"tokens": tokens}
  many = alone | {"count": 16}
  # The first token comes from the prompt: that is the prefill's work.
  more = tokens - 1
  return [
    *train,
    Work("prompt of one", one, one, (1, 1), "samples/s"),
    Work("decode one", alone, alone, (more, more), "tokens/s", {"tokens": 1}),
    Work(
      "decode 16 at once",
      many,
      alone,
      (16 * more, more),
      "tokens/s",
      {"tokens": 1},
    ),
  ]


@contextlib.contextmanager
def sides(folder: Path) -> Iterator[tuple[Side, Side]]:
  """Starts both workers and ends them."""
  pair = []
  try:
    for name in ("ours", "torch"):
      pair.append(Side(name, folder))
    yield tuple(pair)
  finally:
    for side in pair:
      side.close()


def agree(ours: Side, theirs: Side, tokens: int) -> dict:
  """Compares what both compute, and warms them up.

  Returns:
    losses of both stages' first step on both sides, and greedy tokens that
    agree before the first difference.

  Raises:
    ValueError: losses differ by more than 1e-3: timings would mean nothing.
  """
  found = {}
  for stage in (1, 2):
    pair = [s.ask(do="train", stage=stage)["value"] for s in (ours, theirs)]
    found[f"stage {stage}"] = pair
    if abs(pair[0] - pair[1]) > 1e-3 * abs(pair[1]):
      raise ValueError(
        f"stage {stage}: our loss is {pair[0]}, the reference's {pair[1]}; they"
        " differ by more than 1e-3, so nothing is timed."
      )
  pair = [
    s.ask(do="decode", count=1, tokens=tokens)["value"][0]
    for s in (ours, theirs)
  ]
  same = [a == b for a, b in zip(*pair, strict=True)]
  found["equal greedy tokens"] = same.index(False) if False in same else tokens
  return found


def measure(ours: Side, theirs: Side, work: Work, rounds: int) -> dict:
  """Times one piece of work in turn; the first round warms up."""
  rows = []
  for turn in range(rounds + 1):
    pair = [
      _ask(side, request, work.less)
      for side, request in ((ours, work.ours), (theirs, work.theirs))
    ]
    if turn:
      rows.append(pair)
  speeds = [[work.units[i] / row[i]["seconds"] for row in rows] for i in (0, 1)]
  ratios = [a / b for a, b in zip(*speeds, strict=True)]
  return {
    "work": work.name,
    "unit": work.unit,
    "ours": _spread(speeds[0]),
    "reference": _spread(speeds[1]),
    "ratio": _spread(ratios),
    "peak_bytes": [rows[-1][i]["peak_bytes"] for i in (0, 1)],
  }


def _ask(side: Side, request: dict, less: dict) -> dict:
  answer = side.ask(**request)
  if less:
    begin = side.ask(**request | less)
    answer["seconds"] -= begin["seconds"]
    if answer["seconds"] <= 0:
      raise RuntimeError(
        f"{side.name}: {request} took no longer than its beginning; more"
        " --tokens tell them apart."
      )
  return answer


def _spread(values: list[float]) -> dict:
  return {
    "median": statistics.median(values),
    "min": min(values),
    "max": max(values),
  }
