"""Class folders (MSTAR, SAR-ACD) to triplets: one chip, one name.

    python -m fusar_jax.datasets.importers.folders --images MSTAR \
        --splits train test validation --out data/mstar \
        --source "MSTAR, AFRL" --license "public release"

Chips are in CLASS/*, or in SPLIT/CLASS/* if splits are named; then OUT contains
one data set folder per split. The target fills its chip, so the question is
that of classification with the full chip as the box. Spellings of one class
("zsu_23_4", "ZSU_23_4") are merged into the most frequent; the card lists them.

Without splits, `--hold-out 0.2` makes train and test by the chips' digests:
copies are in the same split, and adding chips does not move others.

Byte-identical chips in several splits or with several labels are an error that
lists all of them. "keep" imports them anyway. "drop" skips every copy, because
the correct label is unknown, and lists it in refused.txt. The card lists all
copies and the action taken.
"""

import collections
import dataclasses
import os
import sys
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from fusar_jax.data import vision
from fusar_jax.data.triplets import raise_together
from fusar_jax.datasets.importers import command_line, image_files
from fusar_jax.datasets.importers.dataset_folder import (
  Origin,
  Picture,
  write_dataset,
)
from fusar_jax.datasets.importers.duplicates import Copies, find_copies
from fusar_jax.datasets.importers.targets import Target, task_row
from fusar_jax.io.atomic_write import check_new_folder, new_folder
from fusar_jax.tasks.detection import normal

COPIES = ("stop", "keep", "drop")
# The splits that `hold_out` makes.
HELD_OUT = ("train", "test")


@dataclasses.dataclass(frozen=True)
class Chip:
  """One image of one target.

  Attributes:
    name: its path below the root.
    file: where it lies.
    split: folder of the split, or "".
    label: its class, in the spelling that counts.
    size: (height, width), pixels.
  """

  name: str
  file: Path
  split: str
  label: str
  size: tuple[int, int]


def import_folders(
  images: str | os.PathLike,
  out: str | os.PathLike,
  *,
  origin: Origin,
  splits: Sequence[str] = (),
  hold_out: float = 0.0,
  copies: str = "stop",
  copy: bool = False,
  drop_refused: bool = False,
) -> list[Path]:
  """Writes OUT, or OUT/SPLIT for each split; returns the manifests.

  Args:
    images: root of the class folders, or of the splits.
    out: output folder; absent or empty.
    origin: recorded in dataset.json.
    splits: folders between the root and the classes; default: none.
    hold_out: without splits, the share of chips that go to "test", the others
      to "train"; in [0, 1), 0: not split.
    copies: what to do with byte-identical chips across splits or with
      conflicting labels: "stop", "keep" or "drop".
    copy: also copy the images.
    drop_refused: skip bad images and list them in refused.txt.

  Raises:
    FileExistsError: `out` is not empty.
    FileNotFoundError: no such folder.
    ValueError: images that are no chips of a class, bad images, or copies: all
      are told, and nothing is written.
  """
  check_new_folder(out)
  if copies not in COPIES:
    raise ValueError(f"copies must be one of {COPIES}, got {copies!r}.")
  if len(set(splits)) < len(splits):
    raise ValueError(f"splits must differ, got {list(splits)}.")
  if not 0 <= hold_out < 1 or (hold_out and splits):
    raise ValueError(
      f"hold_out {hold_out}: expected a share below 1, without splits;"
      f" got splits {list(splits)}."
    )
  chips, spellings, bad = _read(Path(images), splits)
  if not drop_refused:
    raise_together([*bad.values()], f"{images}: bad images")
  digests = image_files.digests(chip.file for chip in chips)
  if hold_out:
    splits = HELD_OUT
    chips = [
      dataclasses.replace(c, split=splits[_drawn(digests[c.file]) < hold_out])
      for c in chips
    ]
  found = find_copies(
    {chip.name: digests[chip.file] for chip in chips},
    splits={chip.name: chip.split for chip in chips},
    labels={chip.name: chip.label for chip in chips},
  )
  faulty = [group for group in found if group.leaks or group.conflicts]
  if copies == "stop":
    raise_together(
      [str(group) for group in faulty],
      f'{images}: byte-identical images; give copies "keep" or "drop" (on the'
      " command line --copies) to import the rest",
    )
  if copies == "drop":
    bad |= {
      name: f"{name}: {group}" for group in faulty for name in group.names
    }
  card = {
    "importer": "folders",
    "classes": sorted({chip.label for chip in chips}),
    "spellings": spellings,
    **({"hold_out": hold_out} if hold_out else {}),
    "copies": copies,
    "copies_found": [_described(group) for group in found],
  }
  of_chip = {chip.name: chip.split for chip in chips}

  def side(name: str) -> str:
    """Returns the split that lists a rejected file.

    An unreadable one has no digest; with `hold_out` it counts as train.
    """
    return of_chip.get(name) or (
      splits[0] if hold_out else _split(name, splits)
    )

  with new_folder(out) as stage:
    for split in splits or [""]:
      kept = [c for c in chips if c.split == split and c.name not in bad]
      write_dataset(
        stage / split,
        [_picture(chip, card["classes"]) for chip in kept],
        origin,
        {**card, "split": split or None, "targets": len(kept)},
        copy=copy,
        refused=[
          message for name, message in bad.items() if side(name) == split
        ],
        digests=digests,
      )
  return [Path(out, split, "manifest.jsonl") for split in splits or [""]]


def _read(root: Path, splits):
  """Returns (chips, other spellings of each class, problems by name)."""
  depth = 3 if splits else 2
  names, strange = [], []
  for file in image_files.listed(root):
    parts = file.relative_to(root).parts
    if len(parts) == depth and (not splits or parts[0] in splits):
      names.append(PurePosixPath(*parts))
    else:
      strange.append(str(PurePosixPath(*parts)))
  layout = "SPLIT/CLASS/IMAGE" if splits else "CLASS/IMAGE"
  raise_together(
    strange,
    f"{root}: images that are not {layout}; name all splits (on the command"
    " line --splits), or give the folder above the classes",
  )
  absent = sorted(set(splits) - {name.parts[0] for name in names})
  if absent or not names:
    raise ValueError(f"{root}: no images in {', '.join(absent) or 'it'}.")
  labels, spellings = _spellings([name.parent.name for name in names])
  chips, bad = [], {}
  for name in names:
    file = root / name
    try:
      size = vision.image_size(file)
    except (ValueError, OSError) as error:
      bad[str(name)] = f"{name}: {error}"
      continue
    label = labels[name.parent.name]
    chips.append(Chip(str(name), file, _split(name, splits), label, size))
  return chips, spellings, bad


def _spellings(labels: Sequence[str]) -> tuple[dict[str, str], dict]:
  """Returns (folder -> class, class -> its other spellings)."""
  counts = collections.defaultdict(collections.Counter)
  for label in labels:
    counts[normal(label)][label] += 1
  chosen, others = {}, {}
  for counter in counts.values():
    first, *rest = sorted(counter, key=lambda name: (-counter[name], name))
    chosen |= dict.fromkeys(counter, first)
    if rest:
      others[first] = rest
  return chosen, others


def _drawn(digest: str) -> float:
  """Returns a number in [0, 1) that the digest alone decides."""
  return int(digest[:13], 16) / 16**13


def _split(name: str | PurePosixPath, splits: Sequence[str]) -> str:
  return PurePosixPath(name).parts[0] if splits else ""


def _picture(chip: Chip, classes: Sequence[str]) -> Picture:
  h, w = chip.size
  row = task_row(
    f"{PurePosixPath(chip.name).with_suffix('')}-classification",
    "classification",
    chip.label,
    chip.size,
    [Target(chip.label, (0, 0, w, h))],
    classes,
  )
  name = PurePosixPath(chip.name)
  return Picture(chip.file, str(PurePosixPath(*name.parts[-2:])), [row])


def _described(group: Copies) -> dict:
  return {
    **dataclasses.asdict(group),
    "across_splits": group.leaks,
    "conflicting_labels": group.conflicts,
  }


def main(argv: Sequence[str] | None = None) -> int:
  """Command line; returns the exit code."""
  parser = command_line.parser(
    "folders", "Folders of chips, one per class, to a manifest of triplets."
  )
  parser.add_argument(
    "--images", required=True, help="root of the classes, or of the splits"
  )
  parser.add_argument(
    "--splits", nargs="+", default=(), help="folders above the classes"
  )
  parser.add_argument(
    "--hold-out",
    type=float,
    default=0.0,
    help="without splits: the share of chips for a test split",
  )
  parser.add_argument(
    "--copies",
    default="stop",
    choices=COPIES,
    help="byte-identical chips across splits or with conflicting labels",
  )
  return command_line.run(parser, import_folders, argv)


if __name__ == "__main__":
  sys.exit(main())
