"""True against predicted counts: one square per pair, with its frequency.

Framed squares on the diagonal are correct. Answers that cannot be parsed have a
separate row below 0. Counts above the largest tick are clipped to it.
"""

import collections
from collections.abc import Sequence

from fusar_jax.report import axes as axes_lib
from fusar_jax.report.answers import Answer
from fusar_jax.report.axes import Axes

STYLE = """
.plot .pair rect { fill: var(--accent); stroke: var(--text);
  stroke-width: 0; }
.plot .pair.same rect { stroke-width: 1.3; }
.plot .pair text { text-anchor: middle; font-size: 10px; }
"""
# Largest count with its own tick.
_MOST = 12
_UNREAD = -1


def figure(answers: Sequence[Answer]) -> str:
  """Returns the figure of the counting answers; "" if there are none."""
  pairs = collections.Counter(
    (answer.scored["true"], answer.scored["predicted"])
    for answer in answers
    if answer.task == "counting"
  )
  if not pairs:
    return ""
  largest = max(max(true, told or 0) for true, told in pairs)
  top = max(1, min(largest, _MOST))
  squares = collections.Counter()
  for (true, told), n in pairs.items():
    y = _UNREAD if told is None else min(told, top)
    squares[min(true, top), y] += n
  # With many counts only every second one is labelled, and the largest.
  each = 1 + (top > 9)
  ticks = {str(k): k for k in range(0, top, each) if top - k >= each}
  ticks[f"{top}+" if largest > top else str(top)] = top
  unread = any(y == _UNREAD for _, y in squares)
  axes = Axes(
    x=(-0.6, top + 0.6),
    y=(-1.6 if unread else -0.6, top + 0.6),
    x_ticks=ticks,
    y_ticks=ticks | ({"unread": _UNREAD} if unread else {}),
    x_name="true count",
    y_name="predicted count",
  )
  most = max(squares.values())
  drawn = axes.frame() + "".join(
    _square(axes, true, told, n, n / most)
    for (true, told), n in sorted(squares.items())
  )
  n, right = (
    sum(pairs.values()),
    sum(n for (a, b), n in pairs.items() if a == b),
  )
  more = sum(n for (a, b), n in pairs.items() if b is not None and b > a)
  less = sum(n for (a, b), n in pairs.items() if b is not None and b < a)
  return axes_lib.figure(
    "Predicted against true counts",
    drawn,
    f"Of {n} answers {right} right (framed), {more} too many, {less} too"
    f" few, {n - right - more - less} not read. Shade: number of answers.",
    ("true", "predicted", "answers"),
    [
      (str(true), "not read" if told is None else str(told), str(n))
      for (true, told), n in sorted(
        pairs.items(), key=lambda item: (item[0][0], item[0][1] or _UNREAD)
      )
    ],
  )


def _square(axes: Axes, true: int, told: int, n: int, part: float) -> str:
  x, y = axes.at(true, told)
  right, above = axes.at(true + 0.46, told + 0.46)
  w, h = right - x, y - above
  said = "not read" if told == _UNREAD else f"predicted {told}"
  # The square root keeps rare pairs visible next to a dominant one. The range
  # keeps the number on the square legible and the square visible.
  shade = 0.08 + 0.42 * part**0.5
  return (
    f'<g class="pair{" same" * (true == told)}">'
    f"<title>true {true}, {said}: {n}</title>"
    f'<rect x="{x - w:.1f}" y="{y - h:.1f}" width="{2 * w:.1f}"'
    f' height="{2 * h:.1f}" rx="2" fill-opacity="{shade:.2f}"/>'
    f'<text x="{x:.1f}" y="{y + 3.5:.1f}">{n}</text></g>'
  )
