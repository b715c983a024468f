"""True against predicted counts: one square per pair, with its frequency.

Framed squares on the diagonal are correct. Answers that cannot be parsed have a
separate row below 0. Counts above the largest tick are clipped to it.
"""

import collections
from collections.abc import Sequence

from fusar_jax.report import charts
from fusar_jax.report.answers import Answer
from fusar_jax.report.charts import Chart

# Largest count with its own tick.
_MOST = 12
_UNREAD = -1
_SIDE = 0.92


def chart(answers: Sequence[Answer]) -> Chart | None:
  """Returns the chart of the counting answers; None if there are none."""
  pairs = collections.Counter(
    (answer.sample["true"], answer.sample["predicted"])
    for answer in answers
    if answer.task == "counting"
  )
  if not pairs:
    return None
  n = sum(pairs.values())
  read = {pair: k for pair, k in pairs.items() if pair[1] is not None}
  right = sum(k for (true, predicted), k in read.items() if predicted == true)
  more = sum(k for (true, predicted), k in read.items() if predicted > true)
  less = sum(read.values()) - right - more
  title = "Predicted against true counts"
  caption = (
    f"Of {n} answers {right} right (framed), {more} too many, {less} too"
    f" few, {n - right - more - less} not read. Shade: number of answers."
  )
  return Chart(
    title,
    caption,
    _draw(pairs, f"{title}. {caption}"),
    ("true", "predicted", "answers"),
    [
      (str(true), "not read" if predicted is None else str(predicted), str(k))
      for (true, predicted), k in sorted(
        pairs.items(), key=lambda item: (item[0][0], item[0][1] or _UNREAD)
      )
    ],
  )


def _draw(pairs: collections.Counter, label: str):
  from matplotlib.patches import FancyBboxPatch

  largest = max(max(true, predicted or 0) for true, predicted in pairs)
  top = max(1, min(largest, _MOST))
  squares = collections.Counter()
  for (true, predicted), n in pairs.items():
    y = _UNREAD if predicted is None else min(predicted, top)
    squares[min(true, top), y] += n
  # With many counts only every second one is labelled, and the largest.
  each = 1 + (top > 9)
  ticks = {str(k): k for k in range(0, top, each) if top - k >= each}
  ticks[f"{top}+" if largest > top else str(top)] = top
  unread = {"unread": _UNREAD} if any(y < 0 for _, y in squares) else {}
  most = max(squares.values())
  with charts.plot("true count", "predicted count") as plot:
    plot.axes.set(
      xlim=(-0.6, top + 0.6), ylim=(-1.6 if unread else -0.6, top + 0.6)
    )
    plot.ticks(ticks, ticks | unread)
    # Width of a square, which its number does not exceed.
    room = _SIDE * plot.axes.bbox.width / (top + 1.2)
    for (true, y), n in sorted(squares.items()):
      # The square root keeps rare pairs visible next to a dominant one. The
      # range keeps the number legible and the square visible.
      square = FancyBboxPatch(
        (true - _SIDE / 2, y - _SIDE / 2),
        _SIDE,
        _SIDE,
        boxstyle="round,pad=0,rounding_size=0.1",
        facecolor=(charts.ACCENT, 0.08 + 0.42 * (n / most) ** 0.5),
        edgecolor=charts.TEXT if true == y else "none",
        linewidth=1.3,
      )
      plot.axes.add_patch(square)
      number = plot.axes.text(
        true,
        y,
        str(n),
        ha="center",
        va="center_baseline",
        fontsize=min(10.0, room / (0.7 * len(str(n)))),
      )
      predicted = "not read" if y == _UNREAD else f"predicted {y}"
      for artist in (square, number):
        plot.tooltip(artist, f"true {true}, {predicted}: {n}")
    return plot.svg(label)
