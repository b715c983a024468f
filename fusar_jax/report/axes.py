"""SVG plots: scales, grid, ticks, and the surrounding HTML figure.

Plots are plain SVG without scripts or a plotting library, and they follow the
page's light or dark scheme. Marks differ by shape as well as by colour, and
every figure can include its numbers as a table.
"""

import dataclasses
from collections.abc import Mapping, Sequence

from fusar_jax.report.sample_card import escape

# Size of the SVG, and the plotted area in it; the margins are for labels.
WIDTH, HEIGHT = 340, 258
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 328, 12, 206

STYLE = """
.figures { display: grid; gap: 2rem 2.2rem; align-items: start;
  grid-template-columns: repeat(auto-fill, minmax(min(19rem, 100%), 1fr)); }
.figures figure { width: auto; min-width: 0; }
.plot h3 { margin-bottom: 0.3rem; }
.plot text { fill: var(--text); font-size: 11px; }
.plot .tick, .plot .axis-name { fill: var(--quiet); }
.plot .grid { stroke: var(--line); fill: none; }
.plot .bar { stroke: var(--accent); stroke-width: 1.6; fill: none; }
.plot .solid { stroke: var(--accent); stroke-width: 1.6;
  fill: var(--accent); }
.plot .hollow { stroke: var(--accent); stroke-width: 1.6;
  fill: var(--back); }
.plot details { border: 0; font-size: 0.87rem; }
.plot table { min-width: 0; width: 100%; }
.plot :is(th, td) { padding-left: 0.8rem; }
"""


@dataclasses.dataclass(frozen=True)
class Axes:
  """Two linear scales with their ticks and labels.

  Attributes:
    x, y: (low, high) of the data; y grows upwards.
    x_ticks, y_ticks: label -> data value.
    x_name, y_name: labels of the axes.
  """

  x: tuple[float, float]
  y: tuple[float, float]
  x_ticks: Mapping[str, float]
  y_ticks: Mapping[str, float]
  x_name: str
  y_name: str

  def at(self, x: float, y: float) -> tuple[float, float]:
    """Returns the SVG coordinates of a data point.

    Example:
      >>> Axes((0, 1), (0, 1), {}, {}, "", "").at(0.5, 0)
      (187.0, 206.0)
    """
    return (
      _LEFT + (_RIGHT - _LEFT) * (x - self.x[0]) / (self.x[1] - self.x[0]),
      _BOTTOM - (_BOTTOM - _TOP) * (y - self.y[0]) / (self.y[1] - self.y[0]),
    )

  def path(self, points: Sequence[tuple[float, float]]) -> str:
    """Returns the `d` attribute of a line through data points."""
    places = [self.at(*point) for point in points]
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)

  def frame(self) -> str:
    """Returns the SVG of the grid, the ticks and the axis labels."""
    lines, words = [f"M{_LEFT} {_TOP}V{_BOTTOM}H{_RIGHT}"], []
    for text, value in self.y_ticks.items():
      _, y = self.at(self.x[0], value)
      lines.append(f"M{_LEFT} {y:.1f}H{_RIGHT}")
      words.append(
        f'<text class="tick" x="{_LEFT - 5}" y="{y + 4:.1f}"'
        f' text-anchor="end">{escape(text)}</text>'
      )
    for text, value in self.x_ticks.items():
      x, _ = self.at(value, self.y[0])
      # A tick label may have a second line, such as the sample count.
      rows = "".join(
        f'<tspan x="{x:.1f}" dy="{13 * (k > 0)}">{escape(row)}</tspan>'
        for k, row in enumerate(text.split("\n"))
      )
      words.append(
        f'<text class="tick" y="{_BOTTOM + 17}" text-anchor="middle">{rows}'
        "</text>"
      )
    middle = (_TOP + _BOTTOM) / 2
    return (
      f'<path class="grid" d="{"".join(lines)}"/>{"".join(words)}'
      f'<text class="axis-name" x="{(_LEFT + _RIGHT) / 2}" y="{HEIGHT - 3}"'
      f' text-anchor="middle">{escape(self.x_name)}</text>'
      f'<text class="axis-name" transform="translate(10 {middle}) rotate(-90)"'
      f' text-anchor="middle">{escape(self.y_name)}</text>'
    )


def percent_ticks() -> dict[str, float]:
  """Returns ticks of shares in [0, 1], labelled in percent."""
  return {str(value): value / 100 for value in range(0, 101, 20)}


def figure(
  title: str,
  drawn: str,
  words: str,
  head: Sequence[str] = (),
  numbers: Sequence[Sequence[str]] = (),
) -> str:
  """Returns the figure's HTML.

  Args:
    title: its heading, plain text.
    drawn: SVG, its texts escaped already.
    words: caption, plain text; also the label for screen readers.
    head, numbers: header and rows of a table of the drawn values; without
      numbers there is no table.
  """
  table = ""
  if numbers:
    cells = "".join(f"<th>{escape(name)}</th>" for name in head)
    rows = "".join(
      f"<tr><th>{escape(first)}</th>"
      + "".join(f"<td>{escape(value)}</td>" for value in rest)
      + "</tr>"
      for first, *rest in numbers
    )
    table = (
      f'<details><summary>numbers</summary><div class="scroll" tabindex="0"'
      f' role="region" aria-label="{escape(title)}, numbers"><table><thead>'
      f"<tr>{cells}</tr></thead><tbody>{rows}</tbody></table></div></details>"
    )
  return (
    f'<figure class="plot"><h3>{escape(title)}</h3>'
    f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img"'
    f' aria-label="{escape(f"{title}. {words}")}">{drawn}</svg>'
    f"<figcaption>{escape(words)}</figcaption>{table}</figure>"
  )
