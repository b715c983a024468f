"""Contact sheets: many scenes on one PNG, for visual inspection.

`contact_sheet` shows scenes with their true boxes and a one-line caption each.
`mixed_sheet` shuffles real and simulated crops without labels and writes the
solution to a text file next to the PNG. Images are enlarged by nearest
neighbour, without smoothing. The same panels give the same bytes.
"""

import dataclasses
import io
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fusar_jax.data import triplets
from fusar_jax.data.vision import load_image
from fusar_jax.io.atomic_write import write_atomically
from fusar_jax.report.box_colours import TRUE_COLOUR
from fusar_jax.tasks import captioning

_BACK = (24, 26, 30)
_TEXT = (225, 228, 232)
_GAP = 8
_LINE = 16
# Small images are enlarged by an integer factor up to about this size.
_SIDE = 256


@dataclasses.dataclass(frozen=True, eq=False)
class Panel:
  """One picture of a sheet.

  Attributes:
    image: uint8[h, w].
    caption: one line, truncated to the panel's width.
    boxes: xyxy, pixels of the image.
  """

  image: np.ndarray
  caption: str
  boxes: Sequence[Sequence[float]] = ()


def contact_sheet(
  panels: Sequence[Panel], path: str | os.PathLike, columns: int = 6
) -> None:
  """Writes panels as a PNG, row by row.

  Args:
    panels: at least one, all of the same size.
    path: of the PNG; its folder is created.
    columns: panels per row.

  Raises:
    ValueError: no panels, or panels of different sizes.
  """
  shapes = {panel.image.shape for panel in panels}
  if len(shapes) != 1:
    raise ValueError(
      "expected panels of one size, got"
      f" {', '.join(map(str, sorted(shapes))) or 'no panels'}."
    )
  height, width = shapes.pop()
  factor = max(1, _SIDE // max(height, width))
  step_x, step_y = width * factor + _GAP, height * factor + _LINE + _GAP
  columns = min(columns, len(panels))
  rows = -(-len(panels) // columns)
  sheet = Image.new(
    "RGB", (columns * step_x + _GAP, rows * step_y + _GAP), _BACK
  )
  draw = ImageDraw.Draw(sheet)
  font = ImageFont.load_default(12)
  for i, panel in enumerate(panels):
    x, y = _GAP + i % columns * step_x, _GAP + i // columns * step_y
    sheet.paste(_picture(panel, factor), (x, y))
    text = _fitting(draw, panel.caption, font, width * factor)
    draw.text((x, y + height * factor + 1), text, _TEXT, font)
  png = io.BytesIO()
  sheet.save(png, "PNG")
  write_atomically(Path(path), lambda file: file.write(png.getvalue()))


def mixed_sheet(
  real: Sequence[Panel],
  simulated: Sequence[Panel],
  path: str | os.PathLike,
  *,
  seed: int = 0,
  columns: int = 6,
) -> Path:
  """Writes real and simulated panels in random order.

  The PNG numbers its panels from 1 and shows neither boxes nor captions. The
  solution, PATH with the suffix .txt, lists for each number "real" or
  "simulated" and the panel's caption.

  Args:
    real, simulated: panels of one size; captions name the source of each.
    path: of the PNG.
    seed: of the order.
    columns: panels per row.

  Returns:
    The path of the solution.

  Raises:
    ValueError: as in `contact_sheet`.
  """
  panels = [("real", panel) for panel in real]
  panels += [("simulated", panel) for panel in simulated]
  order = np.random.default_rng(seed).permutation(len(panels))
  panels = [panels[i] for i in order]
  contact_sheet(
    [Panel(panel.image, str(n)) for n, (_, panel) in enumerate(panels, 1)],
    path,
    columns,
  )
  lines = [
    f"{n} {kind}: {panel.caption}\n"
    for n, (kind, panel) in enumerate(panels, 1)
  ]
  solution = Path(path).with_suffix(".txt")
  write_atomically(solution, lambda file: file.write("".join(lines).encode()))
  return solution


def manifest_panels(path: str | os.PathLike, most: int) -> list[Panel]:
  """Returns the first scenes of a data set with all of their true boxes.

  Args:
    path: a manifest as written by `simulate`.
    most: largest number of scenes.

  Raises:
    ValueError: an invalid row or image.
  """
  scenes = {}
  for row in triplets.read_manifest(path):
    if row.images[0] in scenes or len(scenes) < most:
      scenes.setdefault(row.images[0], []).append(row)
  panels = []
  for image, rows in scenes.items():
    boxes = {tuple(b) for row in rows for b in row.extra.get("boxes", ())}
    pixels = Image.fromarray(load_image(image)).convert("L")
    panels.append(
      Panel(np.asarray(pixels), _caption(rows, len(boxes)), sorted(boxes))
    )
  return panels


def _caption(rows, targets):
  """Returns "terrain: targets", e.g. "open sea: 1"."""
  for row in rows:
    if row.task == "captioning" and row.answer:
      terrain = captioning.parse(row.answer).fields.get("Terrain")
      if terrain:
        return f"{terrain}: {targets}"
  return f"{Path(str(rows[0].images[0])).stem}: {targets}"


def _picture(panel, factor):
  height, width = panel.image.shape
  picture = Image.fromarray(panel.image).convert("RGB")
  picture = picture.resize(
    (width * factor, height * factor), Image.Resampling.NEAREST
  )
  draw = ImageDraw.Draw(picture)
  for x0, y0, x1, y1 in panel.boxes:
    # One pixel outside the box: the outline must not hide the target.
    draw.rectangle(
      (
        x0 * factor - 1,
        y0 * factor - 1,
        x1 * factor,
        y1 * factor,
      ),
      outline=TRUE_COLOUR,
    )
  return picture


def _fitting(draw, text, font, width):
  if draw.textlength(text, font) <= width:
    return text
  while text and draw.textlength(text + "...", font) > width:
    text = text[:-1]
  return text + "..."
