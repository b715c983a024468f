"""Questions about a window of a scene: texts, tiles, and what answers mean.

Texts are those of `tasks`, and tiles are cut as `interpret` cuts them, so an
answer on the page is that of the commands. A window that is much larger than
the model's image is cut into tiles where boxes, counts or cells are asked for:
at less than its own sampling a ship has no pixels left.
"""

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
import pydantic
from pydantic import Field

from fusar_jax.geo.tiles import Tile, plan_tiles
from fusar_jax.interpretation.findings import (
  Finding,
  TileBox,
  Window,
  merge,
)
from fusar_jax.io import strict_json
from fusar_jax.serving.limits import RequestError
from fusar_jax.serving.scenes import SceneAnswer
from fusar_jax.tasks import (
  captioning,
  class_names,
  classification,
  counting,
  detection,
  grounding,
)
from fusar_jax.tasks.boxes import parse_boxes
from fusar_jax.tasks.predictions import guess_task

# Share of a tile that the next one shows again, for detection; as `interpret`.
_OVERLAP = 0.25
# Beyond this many pixels a window is averaged before the model sees it.
_NATIVE = 2**22
_TILED = ("detection", "counting")
_ONE_CLASS = ("detection", "counting", "grounding")
Name = Annotated[str, Field(min_length=1, max_length=60)]


class Ask(pydantic.BaseModel):
  """Body of POST /scenes/ID/ask.

  Attributes:
    task: None: `question` is asked.
    classes: one for detection, counting and grounding; those to choose from
      for classification.
    question: in words.
    window: xyxy, pixels of the scene; for classification the object's box.
    tiles: whether a large window is cut into tiles of the model's size.
    anchors: condition, see `scene_anchors`.
    year: of the anchors.
    others: ids of scenes that "shuffled" may take anchors of.
  """

  model_config = pydantic.ConfigDict(extra="forbid", strict=True)

  task: (
    Literal[
      "detection", "counting", "grounding", "classification", "captioning"
    ]
    | None
  ) = None
  classes: Annotated[list[Name], Field(max_length=32)] = []
  question: Annotated[str, Field(max_length=4000)] = ""
  window: Annotated[list[int], Field(min_length=4, max_length=4)]
  tiles: bool = True
  anchors: Literal["aligned", "none", "shuffled", "wrong_place"] = "none"
  year: int | None = None
  others: Annotated[list[str], Field(max_length=16)] = []


def read_json(body: bytes) -> Any:
  """Returns the value of a body; raises RequestError, 400."""
  try:
    return strict_json.parse(body.decode("utf-8"))
  except ValueError as error:
    raise RequestError(400, f"the body is not JSON: {error}.") from None


def read_ask(body: bytes) -> Ask:
  """Returns the question of a body; raises RequestError, 400 or 422."""
  return check_ask(read_json(body))


def check_ask(value: Any) -> Ask:
  """Returns the question of a value; raises RequestError, 422."""
  try:
    return Ask.model_validate(value)
  except pydantic.ValidationError as error:
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(map(str, first["loc"])) or "body"
    raise RequestError(422, f"{place}: {first['msg']}.", place) from None


@dataclasses.dataclass(frozen=True)
class Part:
  """One tile of a question.

  Attributes:
    window: xyxy, pixels of the scene.
    shape: (h, w) of the picture that is read for it.
    question: text.
  """

  window: tuple[int, int, int, int]
  shape: tuple[int, int]
  question: str

  @property
  def size(self) -> tuple[int, int]:
    """(height, width), to which boxes of the texts refer."""
    x1, y1, x2, y2 = self.window
    return y2 - y1, x2 - x1


@dataclasses.dataclass(frozen=True)
class Plan:
  """A question about a window, and its tiles.

  Attributes:
    task: of the answers, or None.
    label: the class asked for, or "".
    parts: at least one.
    box: xyxy, pixels of the scene, of a classification question.
  """

  task: str | None
  label: str
  parts: tuple[Part, ...]
  box: tuple[float, float, float, float] | None = None


def plan(ask: Ask, scene: tuple[int, int], side: int, most: int) -> Plan:
  """Returns what to ask.

  Args:
    ask: the request.
    scene: (height, width), pixels.
    side: of the model's image, pixels.
    most: tiles.

  Raises:
    RequestError: 400, the message says what is wrong.
  """
  window = _window(ask.window, scene)
  names = [" ".join(name.split()) for name in ask.classes]
  if ask.task in _ONE_CLASS and len(names) != 1:
    raise RequestError(
      400, f"classes: {ask.task} asks for one class at a time.", "classes"
    )
  if ask.task == "classification":
    return _classification(window, names, scene, side)
  text = _text(ask, names)
  task = ask.task or guess_task(text)
  windows = [window]
  if ask.tiles and ask.task in _TILED:
    windows = _tiles(window, side, ask.task == "detection")
  if len(windows) > most:
    raise RequestError(
      400,
      f"the window has {len(windows)} tiles of {side} x {side} pixels, at most"
      f" {most} are asked at a time. Choose a smaller one, or ask `fusar"
      " interpret`.",
      "window",
    )
  label = names[0] if ask.task in _ONE_CLASS else ""
  parts = [Part(each, _shape(each), text) for each in windows]
  return Plan(task, label, tuple(parts))


def read_part(
  plan: Plan, number: int, text: str
) -> tuple[list[Finding], int | None, str | None]:
  """Returns (boxes or cells, count, why the answer cannot be read).

  Args:
    plan: the question.
    number: of the tile.
    text: its answer, boxes in pixels of the tile's window.
  """
  part = plan.parts[number]
  x1, y1, x2, y2 = part.window
  if plan.task == "detection":
    found = parse_boxes(text, part.size)
    boxes = [
      Finding(label or plan.label, box, (_name(part),), text)
      for label, box in zip(found.labels, _clipped(found.boxes, part))
      if box is not None
    ]
    return boxes, None, found.error
  if plan.task == "counting":
    count = counting.parse(text)
    return [], count.value, count.error
  if plan.task == "grounding":
    cells = grounding.parse(text)
    third = np.array([x2 - x1, y2 - y1]) / 3
    named = []
    for cell in cells.cells:
      corner = np.array([x1, y1]) + third * (cell % 3, cell // 3)
      box = (*corner.tolist(), *(corner + third).tolist())
      label = f"{plan.label} {grounding.CELLS[cell]}".strip()
      named.append(Finding(label, box, (_name(part),), text))
    return named, None, cells.error
  if plan.task == "classification":
    name = classification.parse(text, classification.choices(part.question))
    if name.error or plan.box is None:
      return [], None, name.error
    return [Finding(name.name, plan.box, (_name(part),), text)], None, None
  return [], None, None


def merged(
  plan: Plan, found: Sequence[Sequence[Finding]], scene: tuple[int, int]
) -> list[Finding]:
  """Returns the findings of all tiles; boxes that several show are one.

  Args:
    plan: the question.
    found: of each tile, by `read_part`.
    scene: (height, width), pixels.
  """
  if plan.task != "detection" or len(plan.parts) == 1:
    return [finding for part in found for finding in part]
  boxes = []
  for number, (part, findings) in enumerate(zip(plan.parts, found)):
    window = Window(_name(part), part.window, 1.0, scene)
    boxes += [
      TileBox(window, number, f.label, f.box, f.answer) for f in findings
    ]
  return merge(boxes)


def conclude(
  plan: Plan,
  ask: Ask,
  texts: Sequence[str],
  scene: tuple[int, int],
) -> SceneAnswer:
  """Returns the answer to a question from those of its tiles."""
  read = [read_part(plan, i, text) for i, text in enumerate(texts)]
  counts = [count for _, count, _ in read if count is not None]
  errors = [
    error if len(read) == 1 else f"{_name(part)}: {error}"
    for part, (_, _, error) in zip(plan.parts, read)
    if error
  ]
  return SceneAnswer(
    id=0,
    task=plan.task,
    label=plan.label,
    question=plan.parts[0].question,
    window=_window(ask.window, scene),
    anchors=ask.anchors,
    tiles=len(texts),
    text="\n".join(texts),
    findings=tuple(merged(plan, [found for found, _, _ in read], scene)),
    count=sum(counts) if counts else None,
    errors=tuple(errors),
  )


def _text(ask: Ask, names: Sequence[str]) -> str:
  if ask.task is None:
    if not ask.question.strip():
      raise RequestError(400, "question: what is asked?", "question")
    return ask.question.strip()
  if ask.task == "captioning":
    return captioning.question()
  one = {
    "detection": detection.question,
    "counting": counting.question,
    "grounding": grounding.question,
  }
  return one[ask.task](names[0])


def _classification(window, names, scene, side) -> Plan:
  """Shows a box in an image of the model's size around it."""
  if len(set(map(class_names.normal, names))) < 2:
    raise RequestError(
      400, "classes: name at least two to choose from.", "classes"
    )
  sides = [
    min(max(side, hi - lo), most) for lo, hi, most in _axes(window, scene)
  ]
  starts = [
    min(max((lo + hi - one) // 2, 0), most - one)
    for one, (lo, hi, most) in zip(sides, _axes(window, scene))
  ]
  left, top = starts
  shown = (left, top, left + sides[0], top + sides[1])
  box = np.subtract(window, [left, top, left, top])
  text = classification.question(box, names)
  return Plan("classification", "", (Part(shown, _shape(shown), text),), window)


def _axes(window, scene):
  x1, y1, x2, y2 = window
  return (x1, x2, scene[1]), (y1, y2, scene[0])


def _window(window, scene) -> tuple[int, int, int, int]:
  x1, y1, x2, y2 = window
  height, width = scene
  if not (0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height):
    raise RequestError(
      400,
      f"window {window}: expected [left, top, right, bottom] in the scene of"
      f" {width} x {height} pixels, with left < right and top < bottom.",
      "window",
    )
  return x1, y1, x2, y2


def _tiles(window, side: int, overlaps: bool):
  x1, y1, x2, y2 = window
  # A little more than a tile is one: two would be nearly copies.
  if max(x2 - x1, y2 - y1) <= 1.25 * side:
    return [window]
  if not overlaps:
    # Disjoint, and about equal: a target counts once.
    xs, ys = (
      np.linspace(lo, hi, 1 + math.ceil((hi - lo) / side)).round().astype(int)
      for lo, hi in ((x1, x2), (y1, y2))
    )
    return [
      (int(left), int(top), int(right), int(bottom))
      for top, bottom in itertools.pairwise(ys)
      for left, right in itertools.pairwise(xs)
    ]
  return [
    (
      x1 + int(t.col),
      y1 + int(t.row),
      x1 + int(t.col + t.width),
      y1 + int(t.row + t.height),
    )
    for t in plan_tiles(y2 - y1, x2 - x1, side, round(side * _OVERLAP))
  ]


def _shape(window) -> tuple[int, int]:
  """(h, w) of a window's picture: its own, or averaged if it is large."""
  x1, y1, x2, y2 = window
  height, width = y2 - y1, x2 - x1
  factor = max(1, math.ceil(math.sqrt(height * width / _NATIVE)))
  return max(1, round(height / factor)), max(1, round(width / factor))


def _name(part: Part) -> str:
  x1, y1, x2, y2 = part.window
  return Tile(float(y1), float(x1), float(y2 - y1), float(x2 - x1), (1, 1)).name


def _clipped(boxes: np.ndarray, part: Part):
  """Yields boxes in pixels of the scene; None: nothing is in the window."""
  x1, y1, x2, y2 = part.window
  corner = np.array([x1, y1, x1, y1])
  for box in boxes.astype(np.float64):
    box = np.clip(box + corner, corner, [x2, y2, x2, y2])
    kept = (box[2:] > box[:2]).all()
    yield tuple(box.tolist()) if kept else None
