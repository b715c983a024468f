"""Pascal VOC (and SSDD's dialect of it) to triplets.

    python -m fusar_jax.data.importers.voc --images JPEGImages \
        --annotations Annotations --split test.txt --out data/ssdd_test \
        --source "SSDD, Li et al. 2017" --license "as stated by the source"

Each image gives, for each class, one row per task: detection, counting and 3x3
grounding; an image without a target of a class gives the empty answers. Boxes
stay in pixels of the original image, `coordinate_size` its [height, width]; the
loader converts them to what the model sees. Rotated boxes and polygons are kept
in the row ("rotated", "polygons") for tasks to come.

Targets are listed from top to bottom, then from left to right, by the centre of
their boxes: an autoregressive model learns an order that it can see, and a run
does not depend on the order in which somebody drew the boxes. Coordinates stay
as the file gives them; the answer rounds them to whole pixels.
"""

import argparse
import collections
import dataclasses
import hashlib
import json
import math
import os
import re
import shutil
import sys
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path

from fusar_jax.data import vision
from fusar_jax.data.triplets import (
  raise_together,
  write_manifest,
  write_text,
)
from fusar_jax.tasks import counting, detection, grounding

TASKS = ("detection", "counting", "grounding")
_EXTENSIONS = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp")
_POINT = re.compile(r"^point-?(\d+)$")


@dataclasses.dataclass(frozen=True)
class Target:
  """One object of an annotation.

  Attributes:
    label: its class.
    box: (x1, y1, x2, y2), pixels of the original image.
    rotated: the file's rotated box as it stands (centre, sides, angle in
      degrees and, in SSDD, corners x1..y4), or None.
    polygon: ((x, y), ...), or None.
  """

  label: str
  box: tuple[float, float, float, float]
  rotated: dict[str, float] | None = None
  polygon: tuple[tuple[float, float], ...] | None = None


def read_annotation(path: str | os.PathLike) -> tuple[tuple[int, int], list]:
  """Returns ((height, width) as stated, targets in the file's order).

  Raises:
    FileNotFoundError: no such file.
    ValueError: not XML, no size, or an object without name or a proper box.
  """
  path = Path(path)
  if not path.is_file():
    raise FileNotFoundError(f"annotation not found: {path}")
  try:
    text = path.read_bytes()
    if b"<!DOCTYPE" in text or b"<!ENTITY" in text:
      # Nested entities unpack to gigabytes; no annotation needs one.
      raise ValueError("document types and entities are refused")
    root = ET.fromstring(text)
    size = _number(root, "size/height"), _number(root, "size/width")
    targets = []
    for i, node in enumerate(root.iter("object")):
      try:
        targets.append(_target(node))
      except ValueError as error:
        raise ValueError(f"object {i}: {error}") from None
  except (ET.ParseError, ValueError, LookupError) as error:
    raise ValueError(f"{path}: {error}") from None
  return (int(size[0]), int(size[1])), targets


def read_split(path: str | os.PathLike) -> list[str]:
  """Returns the names in a split file, one a line (first word), in order.

  Raises:
    FileNotFoundError: no such file.
    ValueError: no name in it, or one twice.
  """
  path = Path(path)
  if not path.is_file():
    raise FileNotFoundError(f"split file not found: {path}")
  lines = path.read_text(encoding="utf-8").splitlines()
  names = [line.split()[0] for line in lines if line.strip()]
  if not names:
    raise ValueError(f"{path}: no names in the split file.")
  counts = collections.Counter(names)
  twice = sorted(name for name, count in counts.items() if count > 1)
  if twice:
    raise ValueError(f"{path}: names listed more than once: {twice[:10]}.")
  return names


def rows_of(
  name: str,
  image: str,
  size: tuple[int, int],
  targets: Sequence[Target],
  classes: Sequence[str],
  tasks: Sequence[str] = TASKS,
) -> list[dict]:
  """Returns the manifest rows of one image.

  Args:
    name: of the image, without its extension.
    image: path, relative to the manifest.
    size: (height, width) of the image, pixels.
    targets: of all classes.
    classes: those to ask for.
    tasks: of `TASKS`.
  """
  rows = []
  for label in classes:
    found = sorted((t for t in targets if t.label == label), key=_reading_order)
    boxes = [list(t.box) for t in found]
    labels = [label] * len(found)
    texts = {
      "detection": (
        detection.question(label),
        detection.answer(boxes, labels),
      ),
      "counting": (counting.question(label), counting.answer(len(found))),
      "grounding": (grounding.question(label), grounding.answer(boxes, size)),
    }
    shapes = {
      "rotated": [t.rotated for t in found],
      "polygons": [t.polygon for t in found],
    }
    # One class needs no name in the id.
    suffix = f"-{label}" if len(classes) > 1 else ""
    for task in tasks:
      question, answer = texts[task]
      rows.append(
        {
          "id": f"{name}{suffix}-{task}",
          "image": image,
          "task": task,
          "class": label,
          "coordinate_size": list(size),
          "question": question,
          "answer": answer,
          "boxes": boxes,
          "labels": labels,
          **{key: kept for key, kept in shapes.items() if any(kept)},
        }
      )
  return rows


def import_voc(
  images: str | os.PathLike,
  annotations: str | os.PathLike,
  split: str | os.PathLike,
  out: str | os.PathLike,
  *,
  source: str,
  license_name: str,
  classes: Sequence[str] = (),
  tasks: Sequence[str] = TASKS,
  copy: bool = False,
) -> Path:
  """Writes OUT/manifest.jsonl and OUT/dataset.json; returns the manifest.

  Args:
    images, annotations: folders.
    split: file of names without extension, one a line.
    out: folder to make; absent or empty.
    source, license_name: recorded in dataset.json, in your words.
    classes: to ask for, in this order; default: all that occur, sorted.
    tasks: of `TASKS`.
    copy: copy the images to OUT/images instead of pointing to where they are.

  Raises:
    FileExistsError: `out` holds something.
    FileNotFoundError, ValueError: a file is missing or bad; all names are told,
      and nothing is written.
  """
  out, images = Path(out), Path(images)
  if (out.is_dir() and any(out.iterdir())) or out.is_file():
    raise FileExistsError(f"{out} is not empty; give a new folder.")
  unknown = sorted(set(tasks) - set(TASKS))
  if unknown:
    raise ValueError(f"unknown tasks {unknown}; known: {list(TASKS)}.")
  records, problems = [], []
  for name in read_split(split):
    try:
      records.append(_record(name, images, Path(annotations)))
    except (ValueError, OSError) as error:
      problems.append(f"{name}: {error}")
  raise_together(problems, f"{split}: bad images")
  present = sorted({t.label for _, _, _, ts in records for t in ts})
  classes = list(classes) or present
  if not classes:
    raise ValueError("no annotation holds an object; name the classes.")
  absent = sorted(set(classes) - set(present))
  if absent:
    raise ValueError(f"classes {absent} do not occur; found: {present}.")
  rows, hashes = [], {}
  for name, file, size, targets in records:
    path = f"images/{file.name}" if copy else _relative(file, out)
    hashes[path] = hashlib.sha256(file.read_bytes()).hexdigest()
    rows += rows_of(name, path, size, targets, classes, tasks)
  if copy:
    (out / "images").mkdir(parents=True, exist_ok=True)
    for _, file, _, _ in records:
      shutil.copyfile(file, out / "images" / file.name)
  # The manifest comes last: where it stands, everything does.
  description = {
    "importer": "voc",
    "source": source,
    "license": license_name,
    "split": Path(split).name,
    "classes": classes,
    "tasks": list(tasks),
    "images": len(records),
    "rows": len(rows),
    "targets": sum(len(targets) for _, _, _, targets in records),
    "sha256": hashes,
  }
  write_text(out / "dataset.json", json.dumps(description, indent=1) + "\n")
  write_manifest(out / "manifest.jsonl", rows)
  return out / "manifest.jsonl"


def _record(name, images, annotations):
  if Path(name).name != name:
    raise ValueError("a name in the split file must not be a path")
  found = [images / f"{name}{e}" for e in _EXTENSIONS]
  found = [path for path in found if path.is_file()]
  if not found:
    raise FileNotFoundError(f"image not found: {images / name}.*")
  size, targets = read_annotation(annotations / f"{name}.xml")
  actual = vision.image_size(found[0])
  if size != actual:
    raise ValueError(
      f"the annotation speaks of {size[0]} x {size[1]} pixels (height x width),"
      f" but {found[0].name} has {actual[0]} x {actual[1]}"
    )
  return name, found[0], size, targets


def _target(node) -> Target:
  label = (node.findtext("name") or "").strip()
  if not label:
    raise ValueError("no <name>")
  rotated, polygon = _rotated(node), _polygon(node)
  if node.find("bndbox") is None and (outline := polygon or _corners(rotated)):
    # Files of rotated boxes or outlines alone: the box that encloses them.
    xs, ys = zip(*outline, strict=True)
    return Target(label, (min(xs), min(ys), max(xs), max(ys)), rotated, polygon)
  x1, y1, x2, y2 = (
    _number(node, f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax")
  )
  if x1 > x2 or y1 > y2:
    raise ValueError(f"box [{x1}, {y1}, {x2}, {y2}] is not [x1, y1, x2, y2]")
  return Target(label, (x1, y1, x2, y2), rotated, polygon)


def _rotated(node) -> dict[str, float] | None:
  box = node.find("rotated_bndbox")
  if box is None:
    return None
  return {
    child.tag.removeprefix("rotated_bbox_"): _number(box, child.tag)
    for child in box
  }


def _corners(rotated) -> list[tuple[float, float]]:
  """The corners of a rotated box, where the file gives all four."""
  names = [(f"x{i}", f"y{i}") for i in range(1, 5)]
  if not rotated or not all(x in rotated and y in rotated for x, y in names):
    return []
  return [(rotated[x], rotated[y]) for x, y in names]


def _polygon(node) -> tuple[tuple[float, float], ...] | None:
  outline = node.find("segm")
  if outline is None:
    return None
  points = {}
  for child in outline:
    number = _POINT.match(child.tag)
    parts = (child.text or "").split(",")
    if not number or len(parts) != 2:
      raise ValueError(f"<segm> holds <{child.tag}>{child.text}: no point")
    points[int(number[1])] = tuple(_finite(p, child.tag) for p in parts)
  return tuple(points[i] for i in sorted(points))


def _number(node, path) -> int | float:
  text = node.findtext(path)
  if text is None or not text.strip():
    raise ValueError(f"no <{path}>")
  return _finite(text, path)


def _finite(text, what) -> int | float:
  try:
    value = float(text)
  except ValueError:
    value = math.nan
  if not abs(value) < 1e9:
    raise ValueError(f"<{what}> must be a number of pixels, got {text!r:.40}")
  return int(value) if value == int(value) else value


def _reading_order(target: Target) -> tuple[float, float]:
  x1, y1, x2, y2 = target.box
  return (y1 + y2) / 2, (x1 + x2) / 2


def _relative(file: Path, folder: Path) -> str:
  return Path(os.path.relpath(file.resolve(), folder.resolve())).as_posix()


def main(argv: Sequence[str] | None = None) -> int:
  """Command line; returns the exit code."""
  parser = argparse.ArgumentParser(
    prog="python -m fusar_jax.data.importers.voc",
    description="Pascal VOC annotations (SSDD) to a manifest of triplets.",
  )
  parser.add_argument("--images", required=True, help="folder of images")
  parser.add_argument("--annotations", required=True, help="folder of XML")
  parser.add_argument("--split", required=True, help="names, one a line")
  parser.add_argument("--out", required=True, help="folder to make")
  parser.add_argument(
    "--source", required=True, help="where the data come from, to be cited"
  )
  parser.add_argument(
    "--license", required=True, help='terms of the data ("none stated")'
  )
  parser.add_argument("--classes", nargs="*", default=(), help="default: all")
  parser.add_argument("--tasks", nargs="+", default=TASKS, choices=TASKS)
  parser.add_argument("--copy", action="store_true", help="copy the images too")
  args = parser.parse_args(argv)
  try:
    manifest = import_voc(
      args.images,
      args.annotations,
      args.split,
      args.out,
      source=args.source,
      license_name=args.license,
      classes=args.classes,
      tasks=args.tasks,
      copy=args.copy,
    )
  except (ValueError, OSError) as error:
    print(f"error: {error}", file=sys.stderr)
    return 1
  told = json.loads((manifest.parent / "dataset.json").read_text())
  print(
    f"{manifest}: {told['rows']} rows of {told['images']} images,"
    f" {told['targets']} targets of {', '.join(told['classes'])}"
  )
  return 0


if __name__ == "__main__":
  sys.exit(main())
