"""Pictures of predictions: what the model saw, what is true, what it said.

One contact sheet, drawn with Pillow. Each image stands as the model sees it,
enlarged without smoothing; true boxes are green, predicted ones orange. Colour
is not the only mark: true boxes are drawn outside of the predicted ones, with
corners only.
"""

import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fusar_jax.tasks import boxes as boxes_lib
from fusar_jax.tasks.predictions import as_text, guess_task

TRUE_COLOUR = (70, 220, 110)
PREDICTED_COLOUR = (255, 150, 40)
_BACK = (24, 26, 30)
_TEXT = (225, 228, 232)
_TILE = 336
_GAP = 12
_LINE = 18
_LINES = 2


def prediction_sheet(
  rows: Sequence[Mapping],
  images: Sequence[np.ndarray],
  path,
  columns: int = 4,
) -> None:
  """Writes a contact sheet of predictions as a PNG.

  Args:
    rows: predictions rows (`fusar_jax.tasks.predictions`), one per picture.
    images: uint8[h, w, 3] or uint8[h, w], each as the model sees it; boxes are
      scaled from the row's coordinate_size.
    path: of the PNG; its folder is made.
    columns: pictures side by side.

  Raises:
    ValueError: no rows, or another number of images than of rows.
  """
  if not rows or len(rows) != len(images):
    raise ValueError(
      f"expected one image per row and at least one, got {len(rows)} rows and"
      f" {len(images)} images."
    )
  columns = min(columns, len(rows))
  lines = -(-len(rows) // columns)
  tile_h = _TILE + _LINES * _LINE + _GAP
  top = 2 * _LINE
  sheet = Image.new(
    "RGB",
    (columns * (_TILE + _GAP) + _GAP, top + lines * tile_h + _GAP),
    _BACK,
  )
  draw = ImageDraw.Draw(sheet)
  font = ImageFont.load_default(13)
  x = _GAP
  for colour, text in (
    (TRUE_COLOUR, "true (corners)"),
    (PREDICTED_COLOUR, "predicted"),
  ):
    draw.rectangle((x, 12, x + 12, 24), fill=colour)
    draw.text((x + 18, 10), text, _TEXT, font)
    x += 18 + int(draw.textlength(text, font)) + 24
  for i, (row, image) in enumerate(zip(rows, images)):
    left = _GAP + i % columns * (_TILE + _GAP)
    upper = top + i // columns * tile_h
    picture = _picture(row, np.asarray(image))
    sheet.paste(picture, (left, upper))
    for k, text in enumerate(captions(row)):
      spot = (left, upper + _TILE + 2 + k * _LINE)
      draw.text(spot, _fit(draw, text, font), _TEXT, font)
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  sheet.save(path, "PNG")


def captions(row: Mapping) -> list[str]:
  """Returns the two lines under a picture: who it is, what was said.

  Example: ["scene-000007-detection", "true 3, predicted 2"].
  """
  true, given = as_text(row["gt"]), row["prediction_text"]
  if _is_boxes(row):
    wanted, found = boxes_lib.parse_boxes(true), boxes_lib.parse_boxes(given)
    said = "unread answer" if found.error else f"predicted {len(found)}"
    return [str(row["id"]), f"true {len(wanted)}, {said}"]
  return [str(row["id"]), f"true {true}; predicted {given}"]


def _is_boxes(row) -> bool:
  return (row.get("task") or guess_task(row["question"])) == "detection"


def _fit(draw, text, font) -> str:
  text = " ".join(text.split())[:200]
  if draw.textlength(text, font) <= _TILE:
    return text
  while text and draw.textlength(text + "...", font) > _TILE:
    text = text[:-1]
  return text + "..."


def _picture(row, image: np.ndarray) -> Image.Image:
  """The image and its boxes, on a square tile; its sides keep their ratio."""
  h, w = image.shape[:2]
  tall, wide = round(_TILE * h / max(h, w)), round(_TILE * w / max(h, w))
  tile = Image.new("RGB", (_TILE, _TILE), _BACK)
  picture = Image.fromarray(image).convert("RGB")
  tile.paste(picture.resize((wide, tall), Image.NEAREST))
  if not _is_boxes(row):
    return tile
  draw = ImageDraw.Draw(tile)
  size = row.get("coordinate_size") or (h, w)
  for text, mark in (
    (as_text(row["gt"]), _corners),
    (row["prediction_text"], _outline),
  ):
    found = boxes_lib.parse_boxes(text).boxes
    for box in boxes_lib.scale(found, size, (tall, wide)).tolist():
      mark(draw, box)
  return tile


def _outline(draw, box) -> None:
  draw.rectangle(box, outline=PREDICTED_COLOUR, width=2)


def _corners(draw, box, out: int = 3) -> None:
  x0, y0, x1, y1 = box[0] - out, box[1] - out, box[2] + out, box[3] + out
  arm_x, arm_y = max((x1 - x0) / 4, 4), max((y1 - y0) / 4, 4)
  for x, step_x in ((x0, arm_x), (x1, -arm_x)):
    for y, step_y in ((y0, arm_y), (y1, -arm_y)):
      draw.line((x, y, x + step_x, y), fill=TRUE_COLOUR, width=2)
      draw.line((x, y, x, y + step_y), fill=TRUE_COLOUR, width=2)
