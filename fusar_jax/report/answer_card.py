"""Cards of answers: image with boxes, question, truth and prediction.

True boxes are drawn as corners, predicted boxes as frames, false positives as
dashed frames, and boxes that a cut-off answer still contains but that are not
scored as dotted frames. Cells of grounding are areas: true ones are tinted,
predicted ones framed. Shape and colour carry the same information. The macro
`card` of `templates/gallery.html.j2` draws them.
"""

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence

from fusar_jax.report.answers import Answer
from fusar_jax.report.choice import Chosen
from fusar_jax.report.cut_off import unscored
from fusar_jax.report.picture_store import Picture
from fusar_jax.tasks import captioning, grounding
from fusar_jax.tasks.boxes import Parsed

NO_TARGET, NOTHING, CUT_OFF = "no target", "nothing", "cut off"


@dataclasses.dataclass(frozen=True)
class Mark:
  """A box: its CSS classes, its tooltip, and `d` of its SVG path."""

  kind: str
  tooltip: str
  d: str


@dataclasses.dataclass(frozen=True)
class Line:
  """A line of text: a caption field has the truth only if it is wrong."""

  name: str
  text: str
  right: bool | None = None
  truth: str = ""


@dataclasses.dataclass(frozen=True, eq=False)
class Card:
  """What a card shows.

  Attributes:
    answer: the scored answer.
    kind: as what it was chosen, such as "best".
    picture: its image, or None.
  """

  answer: Answer
  kind: str
  picture: Picture | None

  @classmethod
  def of(cls, item: Chosen, picture: Picture | None) -> "Card":
    """Returns the card of a chosen answer."""
    return cls(item.answer, item.kind, picture)

  @property
  def classes(self) -> tuple[str, ...]:
    """The values of the class filter that match the card."""
    # The bar separates the values of the data attribute.
    names = (name.replace("|", "/") for name in self.answer.classes if name)
    return tuple(names) or (NO_TARGET,)

  @property
  def errors(self) -> tuple[str, ...]:
    """The values of the error filter that match the card."""
    return (self.answer.errors or (NOTHING,)) + (CUT_OFF,) * self.answer.cut_off

  @property
  def has_cells(self) -> bool:
    """Whether the 3 x 3 grid is drawn."""
    return self.answer.task == "grounding" and self.shape is not None

  @functools.cached_property
  def not_scored(self) -> Parsed:
    """Boxes of a cut-off detection answer that can be read but do not count."""
    answer = self.answer
    if answer.task != "detection" or not (answer.cut_off or answer.error):
      return Parsed(answer.predicted.boxes[:0])
    return unscored(answer.prediction, answer.size)

  @property
  def shape(self) -> tuple[int, int] | None:
    """(height, width) in which boxes are drawn; None: there is no drawing.

    Without a picture boxes are drawn on black, if their size is known.
    """
    boxes = (
      len(self.answer.true)
      or len(self.answer.predicted)
      or len(self.not_scored)
    )
    if self.picture is None and not boxes:
      return None
    return self.answer.size or (self.picture and self.picture.shape)

  @property
  def marks(self) -> Iterator[Mark]:
    """The boxes, true ones first."""
    if self.shape is None:
      return
    true, given = self.answer.true, self.answer.predicted
    unit = max(self.shape) / 336
    if self.has_cells:
      yield from _cells(self.shape, self.answer.sample, 6 * unit)
    for box, label in zip(true.boxes.tolist(), true.labels):
      yield Mark("true", f"true: {label}", _corners(box, 3 * unit))
    for box, label, hit in zip(
      given.boxes.tolist(), given.labels, self.answer.hit
    ):
      kind = "predicted" if hit else "predicted alarm"
      name = "predicted" if hit else "false positive"
      yield Mark(kind, f"{name}: {label}", _frame(box))
    cut = self.not_scored
    for box, label in zip(cut.boxes.tolist(), cut.labels):
      yield Mark("predicted cut", f"cut off, not scored: {label}", _frame(box))

  @property
  def lines(self) -> list[Line]:
    """Truth, prediction, earlier answers; captions field by field."""
    answer = self.answer
    earlier = [Line(name, text or "–") for name, text in answer.earlier]
    if answer.task != "captioning" or answer.error is not None:
      return [
        Line("true", answer.truth),
        Line("predicted", answer.prediction or "–"),
        *earlier,
      ]
    given = captioning.parse(answer.prediction).fields
    return [
      Line(name, text, text.lower() == truth.lower(), truth)
      for name, truth in captioning.parse(answer.truth).fields.items()
      for text in [given.get(name, "–")]
    ] + earlier


def _cells(
  shape: tuple[int, int], sample: Mapping, inset: float
) -> Iterator[Mark]:
  """Yields the lines of the 3 x 3 grid, its true and its predicted cells."""
  height, width = shape
  lines = [
    f"M{k * width / 3:.1f} 0V{height}M0 {k * height / 3:.1f}H{width}"
    for k in (1, 2)
  ]
  yield Mark("grid", "3 x 3 grid", "".join(lines))
  true = sample["true"]
  for kind, name, cells, side in (
    ("true cell", "true cell", true, 0.0),
    ("predicted cell", "predicted cell", sample["predicted"], inset),
  ):
    for cell in cells:
      row, column = divmod(grounding.CELLS.index(cell), 3)
      x, y = column * width / 3, row * height / 3
      box = (x + side, y + side, x + width / 3 - side, y + height / 3 - side)
      wrong = kind == "predicted cell" and cell not in true
      yield Mark(
        kind + " alarm" * wrong,
        f"{'wrong ' * wrong}{name}: {cell}",
        _frame(box),
      )


def _frame(box: Sequence[float]) -> str:
  x1, y1, x2, y2 = box
  return f"M{x1:.1f} {y1:.1f}H{x2:.1f}V{y2:.1f}H{x1:.1f}Z"


def _corners(box: Sequence[float], out: float) -> str:
  """Returns four corners just outside the box, clear of predicted frames."""
  x1, y1, x2, y2 = box[0] - out, box[1] - out, box[2] + out, box[3] + out
  a, b = (x2 - x1) / 4, (y2 - y1) / 4
  return "".join(
    f"M{x + i * a:.1f} {y:.1f}H{x:.1f}V{y + j * b:.1f}"
    for x, i in ((x1, 1), (x2, -1))
    for y, j in ((y1, 1), (y2, -1))
  )
