"""The figure of the README: what the demo's model answers on unseen scenes.

COMMAND, after `python -m fusar_jax.demo --out runs/demo`:
  python docs/figures/prediction.py runs/demo docs/figures/prediction.png

The first two unseen scenes that every task asks about, not chosen by score.
Left: the image with the true boxes (dashed) and the answer's (solid). Middle:
the anchors, coloured by the first three principal components of their vectors,
as in the report.
Right: the answers, each with the true one if it differs.
"""

import itertools
import json
import sys
import textwrap
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fusar_jax.data.triplets import Triplet, read_manifest
from fusar_jax.geo.anchors import read_anchors
from fusar_jax.report.anchor_colours import anchor_colours
from fusar_jax.tasks.boxes import parse_boxes

SCENES, SIDE, GAP, TEXT = 2, 320, 8, 420
PREDICTED, TRUE = (230, 60, 50), (60, 200, 90)
TASKS = ("counting", "grounding", "classification", "detection", "captioning")


def main(demo: str, out: str) -> None:
  folder = Path(demo)
  triplets = {
    t.id: t
    for t in read_manifest(folder / "data" / "unseen" / "manifest.jsonl")
  }
  scenes: dict[str, dict[str, dict]] = {}
  for name in ("tasks", "captions"):
    path = folder / "predictions" / name / "predictions.jsonl"
    for line in filter(None, path.read_text(encoding="utf-8").split("\n")):
      row = json.loads(line)
      scenes.setdefault(row["image"], {})[row["task"]] = row
  asked = [
    rows
    for rows in scenes.values()
    if all(task in rows for task in TASKS)
    and len(parse_boxes(rows["detection"]["gt"]).boxes) > 1
  ]
  sheet = Image.new(
    "RGB", (2 * (SIDE + GAP) + TEXT, SCENES * (SIDE + GAP) - GAP), "white"
  )
  for i, rows in enumerate(asked[:SCENES]):
    triplet = triplets[rows["detection"]["id"]]
    top = i * (SIDE + GAP)
    sheet.paste(answered(rows["detection"], triplet), (0, top))
    sheet.paste(anchor_field(triplet), (SIDE + GAP, top))
    draw = ImageDraw.Draw(sheet)
    draw.text(
      (2 * (SIDE + GAP), top),
      "\n".join(itertools.chain.from_iterable(answers(rows))),
      fill="black",
      font=ImageFont.load_default(13),
      spacing=3,
    )
  sheet.save(out, optimize=True)


def answers(rows: dict[str, dict]):
  """Yields the lines of each task: the answer, and the truth if it differs."""
  for task in TASKS:
    row = rows[task]
    said, true = row["prediction_text"], row["gt"]
    if task == "detection":
      said, true = (
        f"{len(parse_boxes(text).boxes)} boxes" for text in (said, true)
      )
    if task == "captioning":
      said = said.split(". ")[0] + " ..."
      true = true.split(". ")[0] + " ..."
    line = f"{task}: {said}" + ("" if said == true else f"  [true: {true}]")
    yield textwrap.wrap(line, 60)


def answered(row: dict, triplet: Triplet) -> Image.Image:
  """Returns the image with true and predicted boxes, SIDE x SIDE."""
  image = Image.open(triplet.images[0]).convert("RGB")
  scale = np.tile(np.divide(SIDE, image.size), 2)
  image = image.resize((SIDE, SIDE), Image.Resampling.NEAREST)
  draw = ImageDraw.Draw(image)
  for key, colour, dashed in (
    ("gt", TRUE, True),
    ("prediction_text", PREDICTED, False),
  ):
    for box in parse_boxes(row[key]).boxes:
      outline(draw, box * scale, colour, dashed)
  return image


def anchor_field(triplet: Triplet) -> Image.Image:
  """Returns the anchors over the darkened image, SIDE x SIDE."""
  anchors = read_anchors(triplet.anchors[0])
  colours, _ = anchor_colours(anchors.features)
  image = Image.open(triplet.images[0]).convert("RGB").resize((SIDE, SIDE))
  field = Image.blend(image, Image.new("RGB", image.size), 0.6)
  draw = ImageDraw.Draw(field)
  radius = SIDE / np.sqrt(len(colours)) * 0.36
  for (y, x), colour in zip(anchors.positions * (SIDE - 1), colours):
    draw.ellipse(
      (x - radius, y - radius, x + radius, y + radius), fill=tuple(colour)
    )
  return field


def outline(draw, box: np.ndarray, colour, dashed: bool) -> None:
  x1, y1, x2, y2 = box
  corners = [(x1, y1), (x2, y1), (x2, y2), (x1, y2), (x1, y1)]
  for begin, end in itertools.pairwise(np.array(corners)):
    length = max(1.0, float(np.abs(end - begin).sum()))
    step = 6.0 if dashed else length
    for at in np.arange(0, length, 2 * step):
      ends = np.minimum([at, at + step], length) / length
      a, b = begin + (end - begin) * ends[:, None]
      draw.line((*a, *b), fill=colour, width=2)


if __name__ == "__main__":
  main(*sys.argv[1:])
