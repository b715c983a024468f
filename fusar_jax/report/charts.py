"""Charts as inline SVG, drawn by matplotlib.

Colours are drawn as placeholders and replaced by the CSS variables of the page,
so a chart follows its light or dark scheme. Texts stay texts in the page's
font. The output contains no ids, and the same chart gives the same bytes.

matplotlib is imported when the first chart is drawn: it takes 0.4 s.
"""

import contextlib
import dataclasses
import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from xml.etree import ElementTree

from markupsafe import Markup

from fusar_jax.report.render import printable

# Placeholder colours and the CSS variables that replace them.
TEXT, QUIET, LINE = "#000001", "#000002", "#000003"
ACCENT, BACK, WARNING = "#000004", "#000005", "#000006"
_VARIABLES = {
  TEXT: "var(--text)",
  QUIET: "var(--quiet)",
  LINE: "var(--line)",
  ACCENT: "var(--accent)",
  BACK: "var(--back)",
  WARNING: "var(--warning)",
}
_STYLE: dict[Any, Any] = {
  "svg.fonttype": "none",
  # Class names are shown literally, also those with a dollar sign.
  "text.parse_math": False,
  "text.color": TEXT,
  "font.size": 11,
  "lines.linewidth": 1.6,
  "lines.markersize": 8,
  "lines.markeredgewidth": 1.6,
  "figure.dpi": 72,
  "figure.facecolor": "none",
  "axes.facecolor": "none",
  "axes.edgecolor": LINE,
  "axes.linewidth": 1,
  "axes.labelcolor": QUIET,
  "axes.labelpad": 2,
  "axes.axisbelow": True,
  "axes.spines.top": False,
  "axes.spines.right": False,
  "grid.color": LINE,
  "grid.linewidth": 1,
  "xtick.labelcolor": QUIET,
  "ytick.labelcolor": QUIET,
  "xtick.major.size": 0,
  "ytick.major.size": 0,
  "xtick.minor.size": 0,
  "ytick.minor.size": 0,
  "xtick.major.pad": 6,
  "ytick.major.pad": 5,
}
# Dots of the first and of the second series.
FILLED = {"color": ACCENT, "marker": "o"}
HOLLOW = {**FILLED, "markerfacecolor": BACK}
SERIES = (FILLED, HOLLOW)
PERCENT_TICKS = {str(value): value / 100 for value in range(0, 101, 20)}

_SVG = "{http://www.w3.org/2000/svg}"
_LINK = "{http://www.w3.org/1999/xlink}href"
_FONT = re.compile(r"font(-family|-style|-weight|-stretch)?:[^;]*;?\s*")
ElementTree.register_namespace("", _SVG[1:-1])


@dataclasses.dataclass(frozen=True)
class Chart:
  """A chart of a page, as the macro `chart` of the templates shows it.

  Attributes:
    title: heading; "" for none.
    caption: sentences below the chart.
    svg: the drawing; "" leaves only the caption.
    columns, rows: table of the drawn values; without rows there is no table.
  """

  title: str
  caption: str
  svg: Markup = Markup("")
  columns: Sequence[str] = ()
  rows: Sequence[Sequence[str]] = ()


class Plot:
  """One matplotlib axes with tooltips; created by `plot`."""

  def __init__(self, axes: Any):
    self.axes = axes
    self._tooltips: dict[str, str] = {}

  def ticks(self, x: Mapping[str, float], y: Mapping[str, float]) -> None:
    """Sets label -> value of the ticks and draws a grid line per y tick.

    The second line of an x label, the number of samples, is optional; an "n"
    before the first one names it.
    """
    self.axes.set_xticks([*x.values()], [label.split("\n")[0] for label in x])
    if any("\n" in label for label in x):
      self.axes.annotate(
        "n",
        (0, 0),
        xycoords="axes fraction",
        xytext=(-6, -30),
        textcoords="offset points",
        ha="right",
        color=QUIET,
      )
    for label, value in x.items():
      # A separate text: matplotlib centres lines by the widths of its own font.
      self.axes.annotate(
        label.partition("\n")[2],
        (value, 0),
        xycoords=self.axes.get_xaxis_transform(),
        xytext=(0, -30),
        textcoords="offset points",
        ha="center",
        color=QUIET,
      )
    self.axes.set_yticks([*y.values()], [*y])
    self.axes.grid(axis="y")

  def dot(self, x: float, y: float, text: str, series: int, **errors) -> None:
    """Draws a point with its intervals and a tooltip.

    Args:
      x, y: of the point.
      text: of the tooltip.
      series: 0 for a filled dot, 1 for a ring.
      **errors: xerr, yerr: (low, high) of the interval, not the distances.
    """
    spans = {
      name: [[max(at - low, 0)], [max(high - at, 0)]]
      for name, at in (("xerr", x), ("yerr", y))
      if (span := errors.get(name))
      for low, high in [span]
    }
    drawn = self.axes.errorbar(x, y, **spans, **SERIES[series])
    for artist in drawn.get_children():
      self.tooltip(artist, text)

  def tooltip(self, artist: Any, text: str) -> None:
    """Shows a text when the pointer is over the artist."""
    name = f"tooltip{len(self._tooltips)}"
    artist.set_gid(name)
    self._tooltips[name] = printable(text)

  def svg(self, label: str) -> Markup:
    """Returns the drawing; the label is read by screen readers."""
    # A mark on the border is drawn completely.
    for artist in self.axes.findobj():
      artist.set_clip_on(False)
    file = io.StringIO()
    with warnings.catch_warnings():
      # The page's font, not matplotlib's, has to contain the characters.
      warnings.filterwarnings("ignore", message="Glyph .* missing")
      self.axes.figure.savefig(file, format="svg")
    return _inline(file.getvalue(), label, self._tooltips)


def text_width(text: str) -> float:
  """Returns the width of a label in SVG units, in the widest common fonts."""
  return 7.4 * len(text)


def shortened(text: str, most: int = 18) -> str:
  """Returns a label with its end cut off; the tables have the whole name."""
  return text if len(text) <= most else f"{text[: most - 1]}…"


@contextlib.contextmanager
def plot(
  x_label: str = "",
  y_label: str = "",
  *,
  size: tuple[int, int] = (340, 258),
  margins: tuple[int, int, int, int] = (46, 12, 12, 52),
) -> Iterator[Plot]:
  """Yields an empty plot; drawing and `Plot.svg` belong inside the block.

  Args:
    x_label, y_label: of the axes.
    size: (width, height) in SVG units.
    margins: (left, right, top, bottom) of the axes, for their labels.
  """
  import matplotlib
  from matplotlib.figure import Figure

  width, height = size
  left, right, top, bottom = margins
  with matplotlib.rc_context():
    # A user's matplotlibrc must not change reports.
    matplotlib.rcdefaults()
    matplotlib.rcParams.update(_STYLE)
    figure = Figure(figsize=(width / 72, height / 72))
    axes = figure.add_axes(
      (
        left / width,
        bottom / height,
        (width - left - right) / width,
        (height - top - bottom) / height,
      )
    )
    for spine in axes.spines.values():
      # Below the dots, also those at 0.
      spine.set_zorder(0)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    # Aligns the names of the axes of all plots, however wide the tick labels.
    axes.xaxis.set_label_coords(0.5, 3 / height, figure.transFigure)
    axes.xaxis.label.set_verticalalignment("bottom")
    axes.yaxis.set_label_coords(12 / width, 0.55, figure.transFigure)
    yield Plot(axes)


def _inline(svg: str, label: str, tooltips: Mapping[str, str]) -> Markup:
  """Returns matplotlib's file as an element: no ids, the page's colours."""
  root = ElementTree.fromstring(svg)
  symbols = {e.get("id"): e for e in root.iter(f"{_SVG}path") if e.get("id")}
  for parent in [*root.iter()]:
    for child in [*parent]:
      if child.tag in (f"{_SVG}defs", f"{_SVG}metadata"):
        parent.remove(child)
      elif child.tag == f"{_SVG}use":
        # A reference would need an id that is unique in the page.
        symbol = symbols[child.attrib.pop(_LINK)[1:]]
        child.tag = f"{_SVG}path"
        child.set("d", symbol.attrib["d"])
        style = (child.get("style"), symbol.get("style"))
        child.set("style", "; ".join(filter(None, style)))
        x, y = child.attrib.pop("x", "0"), child.attrib.pop("y", "0")
        child.set("transform", f"translate({x} {y})")
  for element in root.iter():
    name = element.attrib.pop("id", None)
    if name is not None and name in tooltips:
      title = ElementTree.Element(f"{_SVG}title")
      title.text = tooltips[name]
      element.insert(0, title)
    if element.tag == f"{_SVG}text":
      element.set("style", _FONT.sub("", element.get("style", "")))
  viewbox = root.attrib["viewBox"]
  root.attrib.clear()
  root.attrib |= {
    "viewBox": viewbox,
    "role": "img",
    "aria-label": printable(label),
  }
  text = ElementTree.tostring(root, encoding="unicode")
  for colour, variable in _VARIABLES.items():
    text = text.replace(colour, variable)
  return Markup(text)
