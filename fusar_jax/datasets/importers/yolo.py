"""YOLO label files to triplets.

    python -m fusar_jax.datasets.importers.yolo --images images \
        --labels labels --names ship --out data/ls_ssdd \
        --source "LS-SSDD-v1.0, Zhang 2020" --license "as stated by the source"

One text file per image, one line per target, all lengths in shares of the
image's width or height:

  class cx cy w h               upright box: centre and sides
  class x1 y1 x2 y2 ... xn yn   outline of n >= 3 points; four points are an
                                oriented box as well, and kept as a polygon

In this format an image without a label file has no targets. The card counts
such images ("without_label_file"), because a file may also be missing by
accident. `targets` documents the generated rows.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from fusar_jax.data import vision
from fusar_jax.data.triplets import raise_together
from fusar_jax.datasets.importers import command_line, image_files
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
  check_overlap,
  enclosing,
)
from fusar_jax.io.atomic_write import check_new_folder
from fusar_jax.io.list_files import files_in
from fusar_jax.io.strict_json import read_text

# Files written with six decimals miss 0 and 1 by as much.
_SLACK = 1e-5


def read_labels(
  path: str | os.PathLike, size: tuple[int, int], names: Sequence[str]
) -> list[Target]:
  """Returns the targets of a label file, in its order.

  Boxes are rounded to a thousandth of a pixel: the file's decimals give no
  more.

  Args:
    path: the file.
    size: (height, width) of its image, pixels.
    names: of the classes, by number.

  Raises:
    ValueError: lines that cannot be read, all listed, by number.
  """
  lines = read_text(Path(path)).splitlines()
  targets, problems = [], []
  for number, line in enumerate(lines, start=1):
    if not line.strip():
      continue
    try:
      targets.append(_target(line.split(), size, names))
    except ValueError as error:
      problems.append(f"line {number}: {error}")
  if problems:
    raise ValueError(f"{Path(path).name}: {'; '.join(problems)}")
  return targets


def import_yolo(
  images: str | os.PathLike,
  labels: str | os.PathLike,
  out: str | os.PathLike,
  *,
  names: Sequence[str],
  origin: Origin,
  split: str | os.PathLike | None = None,
  classes: Sequence[str] = (),
  tasks: Sequence[str] = TASKS,
  copy: bool = False,
  drop_rejected: bool = False,
) -> Path:
  """Writes OUT/manifest.jsonl and OUT/dataset.json; returns the manifest.

  Args:
    images, labels: folders.
    out: output folder; absent or empty.
    names: of the classes; the first is class 0.
    origin: recorded in dataset.json.
    split: file of names without extension, one per line; default: every image
      in the folder, by name.
    classes: to ask for, in this order; default: all that occur, sorted.
    tasks: of `targets.EVERY_TASK`.
    copy: copy the images to OUT/images; otherwise rows refer to their paths.
    drop_rejected: skip bad images and list them in OUT/rejected.txt.

  Raises:
    FileExistsError: `out` is not empty.
    FileNotFoundError, ValueError: a file is missing or bad, or a label file
      has no image: all are listed, and nothing is written.
  """
  check_new_folder(out)
  check_tasks(tasks)
  if not names or len(set(names)) < len(names):
    raise ValueError(f"expected the classes' names, each once; got {names}.")
  labels = Path(labels)
  if not labels.is_dir():
    raise FileNotFoundError(f"folder of labels not found: {labels}")
  stems = read_split(split) if split else _stems(images, labels)
  records, rejected, without = [], [], 0
  for stem in stems:
    path = labels / f"{stem}.txt"
    try:
      file = image_files.with_stem(images, stem)
      size = vision.image_size(file)
      found = read_labels(path, size, names) if path.is_file() else []
    except (ValueError, OSError) as error:
      rejected.append(f"{stem}: {error}")
      continue
    without += not path.is_file()
    records.append(Annotated(stem, file, size, found))
  if not drop_rejected:
    raise_together(rejected, f"{split or images}: bad images")
  return write_boxes(
    out,
    records,
    origin,
    {
      "importer": "yolo",
      "split": Path(split).name if split else None,
      "names": list(names),
      "without_label_file": without,
    },
    source=split or labels,
    classes=classes,
    tasks=tasks,
    copy=copy,
    rejected=rejected,
  )


def read_names(path: str | os.PathLike) -> list[str]:
  """Returns the class names of a file, one per line (classes.txt, *.names)."""
  lines = read_text(Path(path)).splitlines()
  return [line.strip() for line in lines if line.strip()]


def _stems(images, labels: Path) -> list[str]:
  """Names of all images and label files; missing images are reported later."""
  pictures = image_files.stems(images)
  texts = {path.stem for path in files_in(labels, ".txt")}
  # The list of classes is often kept among the labels.
  return sorted(pictures | (texts - {"classes"}))


def _target(words: list[str], size, names) -> Target:
  try:
    number, *values = [float(word) for word in words]
  except ValueError:
    raise ValueError(f"numbers expected, got {' '.join(words)!r:.60}") from None
  if number not in range(len(names)):
    raise ValueError(
      f"class {words[0]!r:.20} is none of the {len(names)} named: {names}"
    )
  if not all(-_SLACK <= value <= 1 + _SLACK for value in values):
    text = " ".join(words[1:])
    raise ValueError(f"shares from 0 to 1 expected, got {text!r:.60}")
  label, (h, w) = names[int(number)], size
  if len(values) == 4:
    cx, cy, bw, bh = values
    corners = cx - bw / 2, cy - bh / 2, cx + bw / 2, cy + bh / 2
    box = tuple(round(v * s, 3) for v, s in zip(corners, (w, h, w, h)))
    polygon = None
  elif len(values) >= 6 and len(values) % 2 == 0:
    xs, ys = values[::2], values[1::2]
    polygon = tuple((round(x * w, 3), round(y * h, 3)) for x, y in zip(xs, ys))
    box = enclosing(polygon)
  else:
    raise ValueError(
      f"{len(words)} numbers; expected 5 (class, centre, sides) or a class and"
      " three points or more. Predictions with confidences are no labels"
    )
  check_overlap(box, size)
  return Target(label, box, polygon=polygon)


def main(argv: Sequence[str] | None = None) -> int:
  """Command line; returns the exit code."""
  parser = command_line.parser(
    "yolo", "YOLO label files to a manifest of triplets."
  )
  parser.add_argument("--images", required=True, help="folder of images")
  parser.add_argument("--labels", required=True, help="folder of label files")
  classes = parser.add_mutually_exclusive_group(required=True)
  classes.add_argument("--names", nargs="+", help="classes 0, 1, ... by name")
  classes.add_argument("--names-file", help="the same, one per line")
  parser.add_argument("--split", help="names, one per line; default: all")
  command_line.add_box_options(parser)

  def import_named(names, names_file, **options):
    names = names or read_names(names_file)
    return import_yolo(names=names, **options)

  return command_line.run(parser, import_named, argv)


if __name__ == "__main__":
  sys.exit(main())
