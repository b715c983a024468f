"""Pascal VOC, SSDD, HRSC2016, DIOR-R and ATRNet-STAR to triplets.

    python -m fusar_jax.datasets.importers.voc --images JPEGImages \
        --annotations Annotations --split test.txt --out data/ssdd_test \
        --source "SSDD, Li et al. 2017" --license "as stated by the source"

Reads axis-aligned boxes, rotated boxes and outlines. If a file has no
axis-aligned box, the bounding box of the shape is used. The row stores rotated
boxes and polygons ("rotated", "polygons") for future tasks. HRSC2016 names
classes by number (Class_ID), and its angles are radians; rows have degrees.
`targets` documents the generated rows.
"""

import math
import os
import re
import sys
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path

from fusar_jax.data.triplets import raise_together
from fusar_jax.datasets.importers import command_line, image_files
from fusar_jax.datasets.importers.annotation_xml import read_xml
from fusar_jax.datasets.importers.box_dataset import (
  Annotated,
  check_tasks,
  write_boxes,
)
from fusar_jax.datasets.importers.dataset_folder import Origin
from fusar_jax.datasets.importers.splits import read_split
from fusar_jax.datasets.importers.targets import (
  TASKS,
  Target,
  enclosing,
  pixels,
)
from fusar_jax.io.atomic_write import check_new_folder
from fusar_jax.io.list_files import files_in

_POINT = re.compile(r"^point-?(\d+)?$")


def read_annotation(path: str | os.PathLike) -> tuple[tuple[int, int], list]:
  """Returns ((height, width) as stated, targets in the file's order).

  Raises:
    FileNotFoundError: no such file.
    ValueError: not XML, no size, or an object without name or a proper box.
  """
  root = read_xml(path)
  try:
    if _is_atrnet(root):
      return _atrnet(root)
    if root.tag == "HRSC_Image":
      sides, tag, read = ("Img_SizeHeight", "Img_SizeWidth"), *_HRSC
    else:
      sides, tag, read = ("size/height", "size/width"), "object", _target
    size = [_number(root, side) for side in sides]
    targets = []
    for i, node in enumerate(root.iter(tag)):
      try:
        targets.append(read(node))
      except ValueError as error:
        raise ValueError(f"object {i}: {error}") from None
  except ValueError as error:
    raise ValueError(f"{path}: {error}") from None
  return (int(size[0]), int(size[1])), targets


def import_voc(
  images: str | os.PathLike,
  annotations: str | os.PathLike,
  out: str | os.PathLike,
  *,
  origin: Origin,
  split: str | os.PathLike | None = None,
  classes: Sequence[str] = (),
  tasks: Sequence[str] = TASKS,
  copy: bool = False,
  drop_rejected: bool = False,
) -> Path:
  """Writes OUT/manifest.jsonl and OUT/dataset.json; returns the manifest.

  Args:
    images, annotations: folders.
    out: output folder; absent or empty.
    origin: recorded in dataset.json.
    split: file of names without extension, one per line; default: every
      annotation, by name.
    classes: to ask for, in this order; default: all that occur, sorted.
    tasks: of `targets.EVERY_TASK`.
    copy: copy the images to OUT/images; otherwise rows refer to their paths.
    drop_rejected: skip bad images and list them in OUT/rejected.txt.

  Raises:
    FileExistsError: `out` is not empty.
    FileNotFoundError, ValueError: a file is missing or bad; all are listed, and
      nothing is written.
  """
  check_new_folder(out)
  check_tasks(tasks)
  annotations = Path(annotations)
  names = read_split(split) if split else _names(annotations)
  records, rejected = [], []
  for name in names:
    try:
      records.append(_record(name, images, annotations))
    except (ValueError, OSError) as error:
      rejected.append(f"{name}: {error}")
  if not drop_rejected:
    raise_together(rejected, f"{split or annotations}: bad images")
  return write_boxes(
    out,
    records,
    origin,
    {"importer": "voc", "split": Path(split).name if split else None},
    source=split or annotations,
    classes=classes,
    tasks=tasks,
    copy=copy,
    rejected=rejected,
  )


def _names(annotations: Path) -> list[str]:
  names = [path.stem for path in files_in(annotations, ".xml")]
  if not names:
    raise FileNotFoundError(f"no annotation (*.xml) in {annotations}")
  return names


def _record(name, images, annotations) -> Annotated:
  file = image_files.with_stem(images, name)
  size, targets = read_annotation(annotations / f"{name}.xml")
  image_files.check_size(file, size)
  return Annotated(name, file, size, targets)


def _target(node) -> Target:
  label = _label(node, "name")
  rotated, polygon = _rotated(node), _polygon(node) or _corner_tags(node)
  if node.find("bndbox") is None and (outline := polygon or _corners(rotated)):
    # Files of rotated boxes or outlines alone: the box that encloses them.
    return Target(label, enclosing(outline), rotated, polygon)
  return Target(label, _box(node, "bndbox/"), rotated, polygon)


def _hrsc_target(node) -> Target:
  rotated = None
  if node.find("mbox_cx") is not None:
    rotated = {
      name: _number(node, f"mbox_{name}") for name in ("cx", "cy", "w", "h")
    }
    angle = math.degrees(_number(node, "mbox_ang"))
    rotated["theta"] = round(angle, 4)
  return Target(_label(node, "Class_ID"), _box(node, "box_"), rotated)


_HRSC = ("HRSC_Object", _hrsc_target)


def _label(node, tag: str) -> str:
  label = (node.findtext(tag) or "").strip()
  if not label:
    raise ValueError(f"no <{tag}>")
  return label


def _is_atrnet(root: ET.Element) -> bool:
  """ATRNet-STAR: a chip of one vehicle, without the elements of VOC."""
  return (
    root.find("size") is None
    and root.find(".//object/bndbox") is None
    and root.find(".//xmin") is not None
    and root.find(".//subclass") is not None
  )


def _atrnet(root: ET.Element) -> tuple[tuple[int, int], list]:
  """Returns ((height, width), [target]) of an ATRNet-STAR chip.

  The class is the folder's name, <type>. <height> and <width> occur twice: of
  the image as plain numbers, of the vehicle with a unit, such as 1.88m.
  """
  size = []
  for side in ("height", "width"):
    texts = [(node.text or "").strip() for node in root.iter(side)]
    plain = [text for text in texts if text.isdigit()]
    if not plain:
      raise ValueError(f"no <{side}> of the image, found {texts!s:.60}")
    size.append(int(plain[0]))
  label = (root.findtext(".//type") or "").strip()
  if not label:
    raise ValueError("no <type>, which names the class")
  return (size[0], size[1]), [Target(label, _box(root, ".//"))]


def _box(node, prefix: str) -> tuple:
  x1, y1, x2, y2 = (
    _number(node, f"{prefix}{side}")
    for side in ("xmin", "ymin", "xmax", "ymax")
  )
  if x1 > x2 or y1 > y2:
    raise ValueError(f"box [{x1}, {y1}, {x2}, {y2}] is not [x1, y1, x2, y2]")
  return x1, y1, x2, y2


def _corner_tags(node) -> tuple[tuple[float, float], ...] | None:
  """The corners of DIOR-R's <robndbox>, or None."""
  if node.find("robndbox") is None:
    return None
  return tuple(
    (_number(node, f"robndbox/x_{name}"), _number(node, f"robndbox/y_{name}"))
    for name in ("left_top", "right_top", "right_bottom", "left_bottom")
  )


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
  points, numbers = [], []
  for child in outline:
    number = _POINT.match(child.tag)
    parts = (child.text or "").split(",")
    if not number or len(parts) != 2:
      raise ValueError(f"<segm> holds <{child.tag}>{child.text}: no point")
    points.append(tuple(pixels(part, f"<{child.tag}>") for part in parts))
    numbers.append(number[1])
  # SSDD numbers its points, its derivatives list them.
  if points and all(numbers):
    order = sorted(range(len(points)), key=lambda i: int(numbers[i]))
    return tuple(points[i] for i in order)
  return tuple(points) or None


def _number(node, path) -> int | float:
  text = node.findtext(path)
  if text is None or not text.strip():
    raise ValueError(f"no <{path}>")
  return pixels(text, f"<{path}>")


def main(argv: Sequence[str] | None = None) -> int:
  """Command line; returns the exit code."""
  parser = command_line.parser(
    "voc", "Pascal VOC annotations (SSDD) to a manifest of triplets."
  )
  parser.add_argument("--images", required=True, help="folder of images")
  parser.add_argument("--annotations", required=True, help="folder of XML")
  parser.add_argument("--split", help="names, one per line; default: all")
  command_line.add_box_options(parser)
  return command_line.run(parser, import_voc, argv)


if __name__ == "__main__":
  sys.exit(main())
