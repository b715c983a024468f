"""COCO instances to triplets.

    python -m fusar_jax.datasets.importers.coco --images images \
        --annotations annotations/train.json --out data/hrsid_train \
        --source "HRSID, Wei et al. 2020" --license "as stated by the source"

A "bbox" is [x, y, width, height] in pixels; an outline of one part is kept in
the row ("polygons"), and is enclosed where there is no "bbox". Masks and
outlines of several parts are no polygon: they are left out of the row, and the
card counts them ("outlines_left_out").

Dialects with rotated boxes write [cx, cy, width, height, angle] as "bbox" or
"rbox"; some mean degrees, others radians, so `--angles` states it. The row
keeps the rotated box, with the angle in degrees, and has its envelope as box.

An image with a crowd region ("iscrowd") has no exact count and no box for each
target, so it is rejected. `targets` documents the generated rows.
"""

import collections
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from fusar_jax.data.triplets import raise_together
from fusar_jax.datasets.importers import command_line, image_files
from fusar_jax.datasets.importers.annotation_json import read_json
from fusar_jax.datasets.importers.box_dataset import (
  Annotated,
  check_tasks,
  write_boxes,
)
from fusar_jax.datasets.importers.dataset_folder import Origin
from fusar_jax.datasets.importers.targets import (
  TASKS,
  Point,
  Target,
  check_overlap,
  enclosing,
  pixels,
)
from fusar_jax.io.atomic_write import check_new_folder
from fusar_jax.tasks import rotated_boxes

ANGLES = ("degrees", "radians")


def import_coco(
  images: str | os.PathLike,
  annotations: str | os.PathLike,
  out: str | os.PathLike,
  *,
  origin: Origin,
  classes: Sequence[str] = (),
  tasks: Sequence[str] = TASKS,
  angles: str | None = None,
  copy: bool = False,
  drop_rejected: bool = False,
) -> Path:
  """Writes OUT/manifest.jsonl and OUT/dataset.json; returns the manifest.

  Args:
    images: folder that "file_name" is relative to.
    annotations: the JSON file of a split.
    out: output folder; absent or empty.
    origin: recorded in dataset.json.
    classes: to ask for, in this order; default: all that occur, sorted.
    tasks: of `targets.EVERY_TASK`.
    angles: unit of the angles of rotated boxes, of `ANGLES`; None: unknown.
    copy: copy the images to OUT/images; otherwise rows refer to their paths.
    drop_rejected: skip bad images and list them in OUT/rejected.txt.

  Raises:
    FileExistsError: `out` is not empty.
    FileNotFoundError: no such annotation file.
    ValueError: not COCO, or bad images: all are listed, and nothing is written.
  """
  check_new_folder(out)
  check_tasks(tasks)
  records, names, notes, problems = read_annotations(annotations)
  raise_together(problems, f"{annotations}: not COCO instances")
  targets, rejected = [], []
  for record in records:
    try:
      own = notes[record["id"]]
      targets.append(_annotated(record, images, names, own, angles))
    except (ValueError, OSError) as error:
      rejected.append(
        f"image {record['id']} ({record['file_name']!r}): {error}"
      )
  if not drop_rejected:
    raise_together(rejected, f"{annotations}: bad images")
  kept = {record.file for record in targets}
  left_out = sum(
    _is_no_polygon(note)
    for record in records
    if Path(images, record["file_name"]) in kept
    for note in notes[record["id"]]
  )
  return write_boxes(
    out,
    targets,
    origin,
    {
      "importer": "coco",
      "annotations": Path(annotations).name,
      "outlines_left_out": left_out,
    },
    source=annotations,
    classes=classes,
    tasks=tasks,
    copy=copy,
    rejected=rejected,
  )


def read_annotations(path: str | os.PathLike) -> tuple:
  """Returns (images, category names by id, annotations by image, problems).

  Raises:
    FileNotFoundError: no such file.
    ValueError: not JSON, or one of COCO's three lists is missing.
  """
  value = read_json(path)
  parts = {}
  for key in ("images", "annotations", "categories"):
    part = value.get(key) if isinstance(value, dict) else None
    if not isinstance(part, list) or not all(isinstance(p, dict) for p in part):
      raise ValueError(f'{path}: expected a list of objects in "{key}"')
    parts[key] = part
  problems = []
  names = _categories(parts["categories"], problems)
  records = _images(parts["images"], problems)
  notes = {record["id"]: [] for record in records}
  for i, note in enumerate(parts["annotations"]):
    owner = note.get("image_id")
    if not isinstance(owner, (int, str)) or owner not in notes:
      problems.append(f"annotation {i}: image_id {owner!r:.40} is no image")
    else:
      notes[owner].append(note)
  return records, names, notes, problems


def _categories(categories, problems) -> dict:
  names = {}
  for i, category in enumerate(categories):
    identity, name = category.get("id"), category.get("name")
    if not isinstance(identity, int) or not isinstance(name, str):
      problems.append(f'category {i}: expected a number "id" and a "name"')
    elif not name.strip() or identity in names:
      problems.append(f"category {i}: its id or name is blank or used twice")
    else:
      names[identity] = name.strip()
  return names


def _images(images, problems) -> list[dict]:
  good, ids, files = [], collections.Counter(), collections.Counter()
  for i, image in enumerate(images):
    identity, name = image.get("id"), image.get("file_name")
    if not isinstance(identity, (int, str)) or not isinstance(name, str):
      problems.append(f'image {i}: expected an "id" and a "file_name"')
      continue
    ids[identity] += 1
    files[name] += 1
    if ids[identity] > 1 or files[name] > 1:
      problems.append(f"image {i}: id {identity!r} or {name!r} is used twice")
    else:
      good.append(image)
  return good


def _annotated(record, images, names, notes, angles) -> Annotated:
  file = image_files.named(images, record["file_name"])
  stated = [
    pixels(record.get(side), f'"{side}"') for side in ("height", "width")
  ]
  size = image_files.check_size(file, stated)
  targets = []
  for note in notes:
    try:
      targets.append(read_target(note, names, size, angles))
    except ValueError as error:
      identity = str(note.get("id"))[:40]
      raise ValueError(f"annotation {identity}: {error}") from None
  path = PurePosixPath(record["file_name"])
  return Annotated(
    str(path.with_suffix("")), file, size, targets, path=str(path)
  )


def read_target(note, names, size, angles: str | None = None) -> Target:
  """Returns the target of one annotation.

  Args:
    note: of the list "annotations".
    names: category names by id.
    size: (height, width) of its image, pixels.
    angles: unit of the angles of rotated boxes, of `ANGLES`; None: unknown.

  Raises:
    ValueError: what is wrong with it.
  """
  if note.get("iscrowd"):
    raise ValueError("a crowd region, not one object")
  category = note.get("category_id")
  if not isinstance(category, int) or category not in names:
    raise ValueError(
      f"category_id {category!r:.40} is none of {sorted(names)[:20]}"
    )
  polygon, rotated = _polygon(note), _rotated(note, angles)
  numbers = note.get("bbox")
  if rotated is not None:
    cx, cy, w, h, angle = rotated.values()
    upright = (cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2, angle)
    x1, y1, x2, y2 = rotated_boxes.envelope([upright])[0].tolist()
    box = (x1, y1, x2, y2)
  elif not numbers and polygon:
    box = enclosing(polygon)
  elif not isinstance(numbers, list) or len(numbers) != 4:
    raise ValueError(
      f'"bbox" must be [x, y, width, height], got {numbers!s:.60}'
    )
  else:
    x, y, w, h = (pixels(number, '"bbox"') for number in numbers)
    box = (x, y, x + w, y + h)
  check_overlap(box, size)
  return Target(names[category], box, rotated, polygon)


def _rotated(note, angles: str | None) -> dict[str, float] | None:
  """Returns cx, cy, w, h in pixels and the angle in degrees, or None."""
  numbers = note.get("rbox", note.get("bbox"))
  if not isinstance(numbers, list) or len(numbers) != 5:
    return None
  if angles not in ANGLES:
    raise ValueError(
      f"a rotated box {numbers!s:.60}: the unit of its angle is not known;"
      f" state it (importer coco, --angles {' or '.join(ANGLES)})"
    )
  cx, cy, w, h, angle = (pixels(n, "a rotated box") for n in numbers)
  if w <= 0 or h <= 0:
    raise ValueError(f"a rotated box {numbers!s:.60} without area")
  if angles == "radians":
    angle = math.degrees(angle)
  return {"cx": cx, "cy": cy, "w": w, "h": h, "angle": angle}


def _polygon(note) -> tuple[Point, ...] | None:
  parts = note.get("segmentation")
  if not parts or _is_no_polygon(note):
    return None
  numbers = [pixels(number, '"segmentation"') for number in parts[0]]
  if len(numbers) % 2 or len(numbers) < 6:
    raise ValueError(
      f'"segmentation" needs three points x, y or more, got {len(numbers)}'
      " numbers"
    )
  return tuple(zip(numbers[::2], numbers[1::2], strict=True))


def _is_no_polygon(note) -> bool:
  """There is an outline, but a mask or one of several parts."""
  parts = note.get("segmentation")
  return bool(parts) and not (
    isinstance(parts, list) and len(parts) == 1 and isinstance(parts[0], list)
  )


def main(argv: Sequence[str] | None = None) -> int:
  """Command line; returns the exit code."""
  parser = command_line.parser(
    "coco", "COCO instances to a manifest of triplets."
  )
  parser.add_argument("--images", required=True, help="folder of images")
  parser.add_argument("--annotations", required=True, help="the JSON file")
  parser.add_argument(
    "--angles", choices=ANGLES, help="unit of the angles of rotated boxes"
  )
  command_line.add_box_options(parser)
  return command_line.run(parser, import_coco, argv)


if __name__ == "__main__":
  sys.exit(main())
