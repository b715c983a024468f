"""DOTA text files (RSAR, SRSDD, FAIR-CSAR) to triplets.

    python -m fusar_jax.datasets.importers.dota --images images \
        --labels annfiles --out data/rsar \
        --source "RSAR, Zhang 2025" --license "CC BY-NC 4.0"

One text file per image, one line per target: four corners in pixels, the class,
and how difficult it is to see:

  x1 y1 x2 y2 x3 y3 x4 y4 class [difficulty]

Lines such as "imagesource:GoogleEarth" and "gsd:0.3" may come first. An empty
file means that the image has no target; an image without a file is an error.
The corners are kept as a polygon, and the box around them is the row's; corners
may lie outside of the image. Targets above --max-difficulty are left out and
counted in the card. `targets` documents the generated rows.
"""

import os
import re
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
  pixels,
)
from fusar_jax.io.atomic_write import check_new_folder
from fusar_jax.io.list_files import files_in
from fusar_jax.io.strict_json import read_text

# What the usual loaders keep.
MAX_DIFFICULTY = 100
_HEADER = re.compile(r"(?i)(imagesource|gsd):")


def read_labels(
  path: str | os.PathLike,
  size: tuple[int, int],
  max_difficulty: int = MAX_DIFFICULTY,
) -> tuple[list[Target], int]:
  """Returns (targets in the file's order, number of more difficult ones).

  Args:
    path: the file.
    size: (height, width) of its image, pixels.
    max_difficulty: of the targets that are kept.

  Raises:
    ValueError: lines that cannot be read, all listed, by number.
  """
  targets, problems, difficult = [], [], 0
  for number, line in enumerate(read_text(Path(path)).splitlines(), start=1):
    words = line.split()
    if not words or (number <= 2 and _HEADER.match(words[0])):
      continue
    try:
      target, difficulty = _target(words, size)
    except ValueError as error:
      problems.append(f"line {number}: {error}")
      continue
    if difficulty > max_difficulty:
      difficult += 1
    else:
      targets.append(target)
  if problems:
    raise ValueError(f"{Path(path).name}: {'; '.join(problems)}")
  return targets, difficult


def import_dota(
  images: str | os.PathLike,
  labels: str | os.PathLike,
  out: str | os.PathLike,
  *,
  origin: Origin,
  split: str | os.PathLike | None = None,
  classes: Sequence[str] = (),
  tasks: Sequence[str] = TASKS,
  max_difficulty: int = MAX_DIFFICULTY,
  copy: bool = False,
  drop_rejected: bool = False,
) -> Path:
  """Writes OUT/manifest.jsonl and OUT/dataset.json; returns the manifest.

  Args:
    images, labels: folders.
    out: output folder; absent or empty.
    origin: recorded in dataset.json.
    split: file of names without extension, one per line; default: every image
      and every label file, by name.
    classes: to ask for, in this order; default: all that occur, sorted.
    tasks: of `targets.EVERY_TASK`.
    max_difficulty: of the targets that are kept.
    copy: copy the images to OUT/images; otherwise rows refer to their paths.
    drop_rejected: skip bad images and list them in OUT/rejected.txt.

  Raises:
    FileExistsError: `out` is not empty.
    FileNotFoundError, ValueError: a file is missing or bad: all are listed, and
      nothing is written.
  """
  check_new_folder(out)
  check_tasks(tasks)
  labels = Path(labels)
  if not labels.is_dir():
    raise FileNotFoundError(f"folder of labels not found: {labels}")
  records, rejected, difficult = [], [], 0
  for stem in read_split(split) if split else _stems(images, labels):
    path = labels / f"{stem}.txt"
    try:
      file = image_files.with_stem(images, stem)
      size = vision.image_size(file)
      if not path.is_file():
        raise FileNotFoundError(
          f"label file not found: {path}; for an image without targets it is"
          " empty"
        )
      found, left_out = read_labels(path, size, max_difficulty)
    except (ValueError, OSError) as error:
      rejected.append(f"{stem}: {error}")
      continue
    difficult += left_out
    records.append(Annotated(stem, file, size, found))
  if not drop_rejected:
    raise_together(rejected, f"{split or images}: bad images")
  return write_boxes(
    out,
    records,
    origin,
    {
      "importer": "dota",
      "split": Path(split).name if split else None,
      "max_difficulty": max_difficulty,
      "too_difficult": difficult,
    },
    source=split or labels,
    classes=classes,
    tasks=tasks,
    copy=copy,
    rejected=rejected,
  )


def _stems(images, labels: Path) -> list[str]:
  """Names of all images and label files; what lacks the other is reported."""
  pictures = image_files.stems(images)
  return sorted(pictures | {path.stem for path in files_in(labels, ".txt")})


def _target(words: list[str], size) -> tuple[Target, int]:
  if len(words) not in (9, 10):
    raise ValueError(
      f"{len(words)} words; expected 8 coordinates, a class and perhaps a"
      " difficulty"
    )
  values = [pixels(word, "a coordinate") for word in words[:8]]
  difficulty = words[9] if len(words) == 10 else "0"
  if not difficulty.isdecimal():
    raise ValueError(f"difficulty {difficulty!r:.20}: expected a whole number")
  polygon = tuple(zip(values[::2], values[1::2], strict=True))
  box = enclosing(polygon)
  check_overlap(box, size)
  return Target(words[8], box, polygon=polygon), int(difficulty)


def main(argv: Sequence[str] | None = None) -> int:
  """Command line; returns the exit code."""
  parser = command_line.parser(
    "dota", "DOTA text files to a manifest of triplets."
  )
  parser.add_argument("--images", required=True, help="folder of images")
  parser.add_argument("--labels", required=True, help="folder of label files")
  parser.add_argument("--split", help="names, one per line; default: all")
  parser.add_argument(
    "--max-difficulty",
    type=int,
    default=MAX_DIFFICULTY,
    help="leave out more difficult targets (default: %(default)s)",
  )
  command_line.add_box_options(parser)
  return command_line.run(parser, import_dota, argv)


if __name__ == "__main__":
  sys.exit(main())
