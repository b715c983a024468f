"""Class folders (MSTAR, SAR-ACD) to triplets: one chip, one name.

    python -m fusar_jax.datasets.importers.folders --images MSTAR \
        --splits train test validation --out data/mstar \
        --source "MSTAR, AFRL" --license "public release"

Chips are in CLASS/*, or in SPLIT/CLASS/* if splits are named; then OUT contains
one data set folder per split. The target fills its chip, so the question is
that of classification with the full chip as the box. Spellings of one class
("zsu_23_4", "ZSU_23_4") are merged into the most frequent; the card lists them.

Chips of different sizes get one physical size (`importers.chips`): the median
of their longer sides, or `--chip-size`. `--chip-size keep` leaves them as they
are, to be squashed to the model's square.

Without splits, `--hold-out 0.2` makes train and test: near duplicates share a
split, and both have the same mixture of classes. For more splits, or to clean
given ones, import first and then use `fusar_jax.datasets.split`.

Byte-identical chips in several splits or with several labels are an error that
lists all of them. "keep" imports them anyway. "drop" skips every copy, because
the correct label is unknown, and lists it in rejected.txt. The card lists all
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
from fusar_jax.datasets import assignment
from fusar_jax.datasets.importers import chips as chips_lib
from fusar_jax.datasets.importers import command_line, image_files
from fusar_jax.datasets.importers.dataset_folder import (
  Origin,
  Picture,
  write_dataset,
)
from fusar_jax.datasets.importers.duplicates import Copies, find_copies
from fusar_jax.datasets.importers.targets import Target, task_row
from fusar_jax.datasets.near_duplicates import groups
from fusar_jax.datasets.pictures import Pictures, links
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
  seed: int = 0,
  copies: str = "stop",
  chip_size: str | int = chips_lib.MEDIAN,
  copy: bool = False,
  drop_rejected: bool = False,
) -> list[Path]:
  """Writes OUT, or OUT/SPLIT for each split; returns the manifests.

  Args:
    images: root of the class folders, or of the splits.
    out: output folder; absent or empty.
    origin: recorded in dataset.json.
    splits: folders between the root and the classes; default: none.
    hold_out: without splits, the share of chips that go to "test", the others
      to "train"; in [0, 1), 0: not split.
    seed: of `hold_out`.
    copies: what to do with byte-identical chips across splits or with
      conflicting labels: "stop", "keep" or "drop".
    chip_size: side of all chips, pixels; or see `chips.common_side`.
    copy: also copy the images; chips of a new size are always written.
    drop_rejected: skip bad images and list them in rejected.txt.

  Raises:
    FileExistsError: `out` is not empty.
    FileNotFoundError: no such folder.
    ValueError: images that are no chips of a class, bad images, or copies: all
      are listed, and nothing is written.
  """
  check_new_folder(out)
  chip_size = chips_lib.parse_size(chip_size)
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
  if not drop_rejected:
    raise_together([*bad.values()], f"{images}: bad images")
  side = chips_lib.common_side([chip.size for chip in chips], chip_size)
  if side and side > chips_lib.LARGEST_SIDE:
    raise ValueError(
      f"{images}: chips would get {side} x {side} pixels; at most"
      f" {chips_lib.LARGEST_SIDE} are a chip. Give another chip_size (on the"
      ' command line --chip-size), or "keep".'
    )
  load = _loader(side)
  same: dict[Path, str] = {}
  if side or splits or hold_out:
    same = _same_picture([chip.file for chip in chips], side, load)
  if hold_out:
    splits = HELD_OUT
    sides = assignment.assign(
      [same[chip.file] for chip in chips],
      [chip.label for chip in chips],
      dict(zip(splits, (1 - hold_out, hold_out))),
      seed,
    )
    chips = [dataclasses.replace(c, split=s) for c, s in zip(chips, sides)]
  digests = image_files.digests(chip.file for chip in chips)
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
    **({"hold_out": hold_out, "seed": seed} if hold_out else {}),
    **(
      {"near_duplicates_across_splits": _crossing(chips, same)}
      if splits
      else {}
    ),
    "chip_size": side,
    "copies": copies,
    "copies_found": [_described(group) for group in found],
  }
  of_chip = {chip.name: chip.split for chip in chips}

  def split_of(name: str) -> str:
    """Returns the split that lists a rejected file.

    With `hold_out`, an unreadable one counts as train.
    """
    return of_chip.get(name) or (
      splits[0] if hold_out else _split(name, splits)
    )

  with new_folder(out) as stage:
    for split in splits or [""]:
      kept = [c for c in chips if c.split == split and c.name not in bad]
      write_dataset(
        stage / split,
        [
          _picture(chip, card["classes"], same.get(chip.file), side, load)
          for chip in kept
        ],
        origin,
        {**card, "split": split or None, "targets": len(kept)},
        copy=copy,
        rejected=[
          message for name, message in bad.items() if split_of(name) == split
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
      size = vision.load_image(file).shape[:2]
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


def _loader(side: int | None):
  """Returns the function that reads a chip in its final size."""
  if side is None:
    return vision.load_image
  return lambda file: chips_lib.fit(vision.load_image(file), side)


def _same_picture(files: Sequence[Path], side, load) -> dict[Path, str]:
  """Returns the name of each file's group of near duplicates.

  Both the originals and the chips are compared: padding hides some pairs, and
  cropping makes others. The name depends on the content alone, so that groups
  of several imports do not mix.
  """
  found = [Pictures(files)]
  if side:
    found.append(Pictures(files, load=load))
  numbers = groups(
    len(files),
    *(links([of.groups[file]] for file in files) for of in found),
  )
  first = {}
  for file, number in zip(files, numbers.tolist()):
    first.setdefault(number, found[0].digests[file][:16])
  return {file: first[n] for file, n in zip(files, numbers.tolist())}


def _crossing(chips, same) -> int:
  """Returns the number of chips with a near duplicate in another split."""
  splits = collections.defaultdict(set)
  for chip in chips:
    splits[same[chip.file]].add(chip.split)
  return sum(len(splits[same[chip.file]]) > 1 for chip in chips)


def _split(name: str | PurePosixPath, splits: Sequence[str]) -> str:
  return PurePosixPath(name).parts[0] if splits else ""


def _picture(chip: Chip, classes, same, side, load) -> Picture:
  h, w = (side, side) if side else chip.size
  row = task_row(
    f"{PurePosixPath(chip.name).with_suffix('')}-classification",
    "classification",
    chip.label,
    (h, w),
    [Target(chip.label, (0, 0, w, h))],
    classes,
  )
  name = PurePosixPath(*PurePosixPath(chip.name).parts[-2:])
  if not side:
    return Picture(chip.file, str(name), [row])
  # The extension stays in the name: "1.jpg" and "1.png" are two chips.
  return Picture(
    chip.file,
    f"{name}.png",
    [
      row
      | {
        "chip": dataclasses.asdict(chips_lib.plan(chip.size, side)),
        "picture": same,
      }
    ],
    encode=lambda: chips_lib.as_png(load(chip.file)),
  )


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
    "--seed", type=int, default=0, help="of --hold-out (default: %(default)s)"
  )
  parser.add_argument(
    "--chip-size",
    default=chips_lib.MEDIAN,
    help="crop or pad chips to this side, pixels; median: of their longer"
    " sides; keep: leave them as they are (default: %(default)s)",
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
