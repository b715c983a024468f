"""Measures both sides alternately (A B A B ...), after a check of agreement.

The speed of a shared machine drifts from minute to minute. So each pair of
consecutive measurements is compared, and the median over pairs is reported.
Results contain raw times, from which speeds are computed.
"""

import contextlib
import functools
import json
import operator
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from fusar_jax.experiments.benchmark.measurements import Work
from fusar_jax.experiments.benchmark.results import Results
from fusar_jax.experiments.jobs import Job

SIDES = ("ours", "reference")
TOKENS = "equal greedy tokens"
MARGIN = "logit of our next token minus that of theirs"
# Minimum share of decoding in the time of a request, to separate it from the
# prompt; and the maximum factor on the number of tokens to reach that share.
_CLEAR, _MORE = 0.1, 4


class Side:
  """A worker process; see `fusar_jax.experiments.benchmark.worker`."""

  def __init__(self, name: str, folder: Path):
    self.name = name
    # Both sides share an accelerator: JAX would take most of its memory.
    shared = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    command = [sys.executable, "-m", "fusar_jax.experiments.benchmark.worker"]
    self._process = subprocess.Popen(
      [*command, "--side", name, "--folder", str(folder)],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      # Without the terminal's Ctrl-C: the parent stops its workers.
      start_new_session=True,
      env=os.environ | shared,
      text=True,
    )

  def ask(self, **request) -> dict:
    """Returns {"value", "seconds", "peak_bytes"}.

    Raises:
      RuntimeError: the worker died; it has printed its error.
    """
    requests, replies = self._process.stdin, self._process.stdout
    assert requests is not None
    assert replies is not None
    requests.write(json.dumps(request) + "\n")
    requests.flush()
    line = replies.readline()
    if not line:
      raise RuntimeError(
        f"the benchmark's {self.name!r} process ended (exit code"
        f" {self._process.wait()}); its error is printed above."
      )
    return json.loads(line)

  def close(self) -> None:
    self._process.kill()
    self._process.wait()


@contextlib.contextmanager
def sides(folder: Path) -> Iterator[tuple[Side, Side]]:
  """Context manager that starts both workers and stops them on exit."""
  pair = []
  try:
    for name in ("ours", "torch"):
      pair.append(Side(name, folder))
    yield tuple(pair)
  finally:
    for side in pair:
      side.close()


def agree(
  ours: Side,
  theirs: Side,
  chosen: Sequence[Work],
  tokens: int,
  results: Results,
  tolerance: float = 1e-3,
) -> None:
  """Compares the results of both sides and records the agreement once.

  For the chosen works: losses of a step, and the number of equal greedy tokens
  before the first difference, with the difference of the two logits there.

  Raises:
    ValueError: losses differ by more than the tolerance: timings would be
      meaningless.
  """
  # The reference trains in place, so answers are compared first.
  if any(work.ours["do"] == "decode" for work in chosen) and not results.of(
    "agreement", what=TOKENS
  ):
    pair = [
      s.ask(do="decode", count=1, tokens=tokens)["value"][0]
      for s in (ours, theirs)
    ]
    same = [a == b for a, b in zip(*pair, strict=True)]
    equal = same.index(False) if False in same else tokens
    if equal < tokens:
      # Of two tokens with equal logits, rounding decides.
      request = {
        "answer": pair[0][:equal],
        "tokens": [answer[equal] for answer in pair],
      }
      margins = [s.ask(do="margin", **request)["value"] for s in (ours, theirs)]
      results.add("agreement", what=MARGIN, value=margins)
    results.add("agreement", what=TOKENS, value=equal)
  for work in chosen:
    if "stage" not in work.ours or results.of("agreement", what=work.name):
      continue
    pair = [ours.ask(**work.ours), theirs.ask(**work.theirs)]
    losses = [answer["value"] for answer in pair]
    if abs(losses[0] - losses[1]) > tolerance * abs(losses[1]):
      raise ValueError(
        f"{work.name}: our loss is {losses[0]}, the reference's {losses[1]};"
        f" they differ by more than {tolerance:g}, so nothing is timed."
      )
    results.add("agreement", what=work.name, value=losses)


def jobs(
  ours: Side,
  theirs: Side,
  chosen: Sequence[Work],
  rounds: int,
  results: Results,
) -> list[Job]:
  """Returns the turns that `results` lacks: per work a warm-up, then pairs."""
  found = []
  for work in chosen:
    done = len(results.of("pair", work=work.key))
    if done >= rounds:
      continue
    names = ["warm-up", *(f"pair {k + 1}" for k in range(done, rounds))]
    found += [
      Job(
        f"{work.key}: {name}",
        run=functools.partial(
          measure, ours, theirs, work, name.split()[0], results
        ),
        kind=work.key,
      )
      for name in names
    ]
  return found


def measure(
  ours: Side, theirs: Side, work: Work, record: str, results: Results
) -> str:
  """Times one work on both sides, one after the other; records the pair.

  Args:
    ours, theirs: the sides.
    work: the operation.
    record: "pair", or "warm-up", which the summary ignores.
    results: where the times go.

  Returns:
    the times as text.
  """
  requests = dict(zip(SIDES, (work.ours, work.theirs), strict=True))
  before = results.of("warm-up", work=work.key)
  before += results.of("pair", work=work.key)
  pair = {}
  for side, (name, request) in zip(
    (ours, theirs), requests.items(), strict=True
  ):
    most = _MORE * request["tokens"] if work.decodes else 0
    if most and before:  # As many as in the last turn.
      request = request | {"tokens": before[-1][name][-1]["tokens"]}
    pair[name] = clock(side, request, most)
  results.add(record, work=work.key, **pair)
  return ", ".join(f"{name} {_raw(times)}" for name, times in pair.items())


def clock(side: Side, request: dict, most: int) -> list[dict]:
  """Returns the raw times of all tries of a request; the last one counts.

  If a request takes hardly longer than its prompt, noise dominates the time of
  decoding. It is then repeated with twice the tokens, up to `most`. `most` is 0
  for a request without decoding.
  """
  if not most:
    answer = side.ask(**request)
    return [{k: answer[k] for k in ("seconds", "peak_bytes")}]
  tries = []
  while True:
    full, prompt = side.ask(**request), side.ask(**request | {"tokens": 1})
    tries.append(
      {
        "tokens": request["tokens"],
        "seconds": full["seconds"],
        "prompt_seconds": prompt["seconds"],
        "peak_bytes": full["peak_bytes"],
      }
    )
    more = 2 * request["tokens"]
    if _decoding(tries[-1]) or more > most:
      return tries
    request = request | {"tokens": more}
    side.ask(**request)  # Compiles.


def summary(work: Work, pairs: Sequence[dict]) -> dict:
  """Returns the speeds of both sides from the raw times of recorded pairs.

  Pairs whose decoding is not separable from the prompt are left out. If that
  applies to all pairs, the row gives tokens per second of the requests, which
  is less than the speed of decoding, and its name ends in "prompt included".
  """
  pairs = [{side: pair[side][-1] for side in SIDES} for pair in pairs]
  name, used = work.name, pairs
  seconds = operator.itemgetter("seconds")
  if work.decodes:
    clear = [p for p in pairs if all(_decoding(p[side]) for side in SIDES)]
    if clear:
      used, seconds = clear, _decoding
    else:
      name += ", prompt included"
  speeds = [
    [
      units
      * (pair[side]["tokens"] - 1 if work.decodes else 1)
      / seconds(pair[side])
      for pair in used
    ]
    for side, units in zip(SIDES, work.units, strict=True)
  ]
  ratios = [a / b for a, b in zip(*speeds, strict=True)]
  return {
    "work": name,
    "unit": work.unit,
    "pairs": len(used),
    "pairs_left_out": len(pairs) - len(used),
    "ours": _spread(speeds[0]),
    "reference": _spread(speeds[1]),
    "ratio": _spread(ratios),
    "peak_bytes": [
      max(pair[side]["peak_bytes"] for pair in pairs) for side in SIDES
    ],
  }


def _decoding(times: dict) -> float:
  """Returns the seconds without the prompt; 0 if noise may dominate."""
  seconds = times["seconds"] - times["prompt_seconds"]
  return seconds if seconds >= _CLEAR * times["seconds"] else 0.0


def _raw(tries: list[dict]) -> str:
  """Returns the seconds of the last try, for a progress line."""
  times = tries[-1]
  text = f"{times['seconds']:.2f} s"
  if "tokens" in times:
    text += (
      f" ({times['tokens']} tokens, {times['prompt_seconds']:.2f} s of it for"
      " the prompt)"
    )
  return text


def _spread(values: list[float]) -> dict:
  return {
    "median": statistics.median(values),
    "min": min(values),
    "max": max(values),
  }
