"""Training curves: the loss of a run by step, as an SVG.

The loss axis is logarithmic: the loss falls fast at first, and later progress
would be invisible on a linear axis.
"""

import dataclasses
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path

from fusar_jax.report.sample_card import escape

STYLE = """
.curve { color: var(--accent); }
.curve path { fill: none; stroke-width: 1.6; }
.curve .grid { stroke: var(--line); stroke-width: 1; }
.curve .held { stroke: var(--warning); fill: none; stroke-width: 1.6; }
"""
# Smallest span of the loss axis, in powers of ten.
_LEAST = 0.7
METRICS = "metrics.jsonl"
_LEFT, _RIGHT, _TOP, _BOTTOM = 34, 316, 8, 150


@dataclasses.dataclass(frozen=True)
class Curve:
  """Losses of one run.

  Attributes:
    name: of the run.
    train: (step, training loss); the loss is a mean since the previous line.
    held_out: (step, loss) of the evaluation set; may be empty.
  """

  name: str
  train: tuple[tuple[int, float], ...]
  held_out: tuple[tuple[int, float], ...] = ()


def read_curve(workdir: str | os.PathLike) -> Curve:
  """Returns the curve of a run from its metrics.jsonl.

  Raises:
    FileNotFoundError: the run has no metrics.jsonl.
    ValueError: a line that is not JSON; the message gives its number.
  """
  workdir = Path(workdir)
  path = workdir / METRICS
  train, held_out = [], []
  for number, line in enumerate(path.read_text("utf-8").split("\n"), 1):
    if not line:
      continue
    try:
      values = json.loads(line)
    except ValueError:
      raise ValueError(
        f"{path}, line {number}: not JSON: {line[:60]}"
      ) from None
    for name, points in (("loss", train), ("eval_loss", held_out)):
      if name in values:
        points.append((values["step"], values[name]))
  return Curve(workdir.absolute().name, tuple(train), tuple(held_out))


def read_curves(runs: Sequence[Path]) -> list[Curve]:
  """Returns the curves of the runs that have a metrics.jsonl."""
  return [read_curve(run) for run in runs if (run / METRICS).is_file()]


def figure(curve: Curve) -> str:
  """Returns an HTML figure with SVG and caption; "" for an empty curve."""
  points = curve.train + curve.held_out
  if not points:
    return ""
  last = max(step for step, _ in points)
  # Losses are clipped at 0.0001: a loss of 0 has no logarithm.
  logs = [math.log10(max(loss, 1e-4)) for _, loss in points]
  low, high = min(logs), max(logs)
  # A smallest span keeps the noise of a flat curve from filling the figure.
  spare = max(0.0, _LEAST - (high - low)) / 2
  low, high = low - spare, high + spare

  def place(point):
    step, loss = point
    level = (math.log10(max(loss, 1e-4)) - low) / (high - low)
    return (
      _LEFT + (_RIGHT - _LEFT) * step / last,
      _BOTTOM - (_BOTTOM - _TOP) * level,
    )

  grid, labels = [], []
  for value in _ticks(low, high):
    y = place((0, value))[1]
    grid.append(f"M{_LEFT} {y:.1f}H{_RIGHT}")
    labels.append(
      f'<text x="{_LEFT - 4}" y="{y + 4:.1f}" text-anchor="end">{value:g}'
      "</text>"
    )
  held = "".join(
    f'<circle class="held" r="3" cx="{x:.1f}" cy="{y:.1f}"/>'
    for x, y in map(place, curve.held_out)
  )
  words = f"{curve.name}: loss {_ends(curve.train)}"
  if curve.held_out:
    words += f"; rings, held out: {_ends(curve.held_out)}"
  return (
    '<figure><svg class="curve" viewBox="0 0 320 170" role="img">'
    f"<title>{escape(words)}</title>"
    f'<path class="grid" d="{"".join(grid)}M{_LEFT} {_BOTTOM}H{_RIGHT}"/>'
    f'<path stroke="currentColor" d="{_line(curve.train, place)}"/>{held}'
    f'<g class="axis" fill="currentColor">{"".join(labels)}'
    f'<text x="{_LEFT}" y="166">0</text><text x="{_RIGHT}" y="166"'
    f' text-anchor="end">step {last}</text></g></svg>'
    f"<figcaption>{escape(words)}</figcaption></figure>"
  )


def _line(points: Sequence[tuple[int, float]], place) -> str:
  corners = (f"{x:.1f} {y:.1f}" for x, y in map(place, points))
  return "".join(f"{'L' if k else 'M'}{c}" for k, c in enumerate(corners))


def _ends(points: Sequence[tuple[int, float]]) -> str:
  """Returns the first and last loss, e.g. "4.21 to 0.35"."""
  if not points:
    return "not written"
  return f"{points[0][1]:.3g} to {points[-1][1]:.3g}"


def _ticks(low: float, high: float) -> list[float]:
  """Returns ticks at 1, 2 and 5 times powers of ten in a range of log10.

  Example:
    >>> _ticks(-0.5, 1.0)
    [0.5, 1.0, 2.0, 5.0, 10.0]
  """
  powers = range(math.floor(low), math.ceil(high) + 1)
  values = [round(m * 10.0**p, 6) for p in powers for m in (1, 2, 5)]
  return [v for v in values if v > 0 and low <= math.log10(v) <= high]
