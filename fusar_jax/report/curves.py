"""Training curves: the loss of a run by step, as a chart.

The loss axis is logarithmic: the loss falls fast at first, and later progress
would be invisible on a linear axis.
"""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fusar_jax.io.strict_json import read_rows
from fusar_jax.report import charts
from fusar_jax.report.charts import Chart

# Smallest span of the loss axis, in powers of ten.
_LEAST = 0.7
# Share of the span that is free above and below the curve.
_MARGIN = 0.04
# Smallest drawn loss: a loss of 0 has no logarithm.
_SMALLEST = 1e-8
_MOST_TICKS = 9
METRICS = "metrics.jsonl"


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
  for number, values in enumerate(read_rows(path), 1):
    for name, points in (("loss", train), ("eval_loss", held_out)):
      if name not in values:
        continue
      point = values.get("step"), values[name]
      if not all(isinstance(v, int | float) for v in point):
        raise ValueError(
          f"{path}, row {number}: expected numbers as step and {name}, got"
          f" {point!r:.60}."
        )
      points.append(point)
  return Curve(workdir.absolute().name, tuple(train), tuple(held_out))


def read_curves(runs: Sequence[Path]) -> list[Curve]:
  """Returns the curves of the runs that have a metrics.jsonl."""
  return [read_curve(run) for run in runs if (run / METRICS).is_file()]


def chart(curve: Curve) -> Chart | None:
  """Returns the curve on a logarithmic axis; None for an empty curve."""
  points = curve.train + curve.held_out
  if not points:
    return None
  caption = f"{curve.name}: loss {_ends(curve.train)}"
  if curve.held_out:
    caption += f"; rings, held out: {_ends(curve.held_out)}"
  last = max(step for step, _ in points)
  finite = [loss for _, loss in points if np.isfinite(loss)]
  if not finite:
    return None
  if len(finite) < len(points):
    caption += f"; {len(points) - len(finite)} losses are no numbers"
  if min(finite) < _SMALLEST:
    caption += f"; losses below {_SMALLEST:g} are drawn there"
  logs = np.log10(np.maximum(finite, _SMALLEST))
  # A smallest span keeps the noise of a flat curve from filling the chart.
  spare = max(0.0, _LEAST - np.ptp(logs)) / 2
  spare += _MARGIN * max(_LEAST, np.ptp(logs))
  low, high = logs.min() - spare, logs.max() + spare
  with charts.plot(size=(320, 170), margins=(44, 8, 8, 20)) as plot:
    plot.axes.set(xlim=(0, last), yscale="log", ylim=(10**low, 10**high))
    plot.ticks({}, {f"{value:g}": value for value in _ticks(low, high)})
    plot.axes.minorticks_off()
    for x, text, side in ((0, "0", "left"), (1, f"step {last}", "right")):
      plot.axes.annotate(
        text,
        (x, 0),
        xycoords="axes fraction",
        xytext=(0, -16),
        textcoords="offset points",
        ha=side,
        color=charts.QUIET,
      )
    if curve.train:
      steps, losses = zip(*curve.train)
      plot.axes.plot(steps, np.maximum(losses, _SMALLEST), color=charts.ACCENT)
    if curve.held_out:
      steps, losses = zip(*curve.held_out)
      plot.axes.plot(
        steps,
        np.maximum(losses, _SMALLEST),
        "o",
        color=charts.WARNING,
        markerfacecolor="none",
        markersize=6,
      )
    svg = plot.svg(caption)
  return Chart("", caption, svg)


def _ends(points: Sequence[tuple[int, float]]) -> str:
  """Returns the first and last loss, e.g. "4.21 to 0.35"."""
  if not points:
    return "not written"
  return f"{points[0][1]:.3g} to {points[-1][1]:.3g}"


def _ticks(low: float, high: float) -> list[float]:
  """Returns ticks at 1, 2 and 5 times powers of ten in a range of log10.

  Over many powers, at some of them alone: at most nine labels fit.

  Example:
    >>> _ticks(-0.5, 1.0)
    [0.5, 1.0, 2.0, 5.0, 10.0]
  """
  powers = range(int(np.floor(low)), int(np.ceil(high)) + 1)
  values = [float(f"{m}e{p}") for p in powers for m in (1, 2, 5)]
  values = [v for v in values if low <= np.log10(v) <= high]
  if len(values) > _MOST_TICKS:
    values = [v for v in values if f"{v:e}".startswith("1.0")]
  return values[:: -(-len(values) // _MOST_TICKS)] if values else []
