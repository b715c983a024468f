"""Splits a data set so that no picture and no scene is on both sides.

    python -m fusar_jax.datasets.split --manifest data/all/manifest.jsonl \\
        --out data/split --shares train=0.7,validation=0.1,test=0.2 --seed 0

Rows stay together that share an image file or its bytes, a near duplicate (see
`fusar_jax.datasets.near_duplicates`), an anchors file, or a scene or product.
Labels are stratified as far as these groups allow. The result depends on the
rows and the seed alone.

With `--test`, the test split is given (a published one) and stays unchanged:

    python -m fusar_jax.datasets.split --manifest data/train/manifest.jsonl \\
        --test data/test/manifest.jsonl --out data/clean \\
        --shares train=0.9,validation=0.1

Rows of `--manifest` that show the same picture as a test row are dropped and
listed in OUT/near_duplicates.txt; `--near-duplicates list` only lists them.

OUT/SPLIT contains manifest.jsonl, which refers to the original files, and
dataset.json. The field "split_group" of a row is the number of its group.
OUT/conflicting_labels.txt lists near duplicates of different classes: one of
the two labels is wrong, or the classes differ by less than the images show.
"""

import argparse
import collections
import dataclasses
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from fusar_jax import command_line
from fusar_jax.data.records import File, PackedFile
from fusar_jax.data.triplets import (
  Triplet,
  read_manifests,
  write_manifest,
  write_text,
)
from fusar_jax.datasets import assignment
from fusar_jax.datasets.near_duplicates import MIN_CORRELATION, groups
from fusar_jax.datasets.pictures import Pictures, links
from fusar_jax.datasets.source_rows import describe_sources, row_of
from fusar_jax.io.atomic_write import check_new_folder, new_folder

# Default shares, without and with a given test split.
SHARES = "train=0.7,validation=0.1,test=0.2"
SHARES_OF_REST = "train=0.9,validation=0.1"
# Fields of a row, or of its "metadata", that name where an image comes from.
GROUP_BY = ("scene", "product")
ACTIONS = ("drop", "list")
GIVEN_TEST = "test"
LISTING = "near_duplicates.txt"
CONFLICTS = "conflicting_labels.txt"
# Tasks whose answers are labels.
_LABELLED = ("classification", "counting")


@dataclasses.dataclass(frozen=True, eq=False)
class Part:
  """One split.

  Attributes:
    name: of the split.
    rows: its rows, in the order of the source.
    groups: group number of each row.
  """

  name: str
  rows: Sequence[Triplet]
  groups: Sequence[int]

  @property
  def images(self) -> list[File]:
    return list(dict.fromkeys(i for row in self.rows for i in row.images))

  @property
  def labels(self) -> collections.Counter[str]:
    return collections.Counter(map(label_of, self.rows))


@dataclasses.dataclass(frozen=True, eq=False)
class Result:
  """Splits, and what was found between the given rows and a given test split.

  Attributes:
    parts: one per split.
    crossing: one line per image that repeats a test image.
    dropped: number of rows that were left out.
    conflicting: one line per pair of near duplicates of different classes.
  """

  parts: Sequence[Part]
  crossing: Sequence[str]
  dropped: int
  conflicting: Sequence[str]


def label_of(row: Triplet) -> str:
  """Returns the stratum of a row: its task with its answer, or its class."""
  answer = row.answer if row.task in _LABELLED else row.extra.get("class")
  return f"{row.task or '(no task)'}: {answer}" if answer else str(row.task)


def write_splits(
  manifest: str,
  out: str | os.PathLike,
  *,
  shares: Mapping[str, float],
  seed: int = 0,
  test: str | None = None,
  action: str = "drop",
  group_by: Sequence[str] = GROUP_BY,
  min_correlation: float = MIN_CORRELATION,
) -> Result:
  """Writes OUT/SPLIT/manifest.jsonl and dataset.json; returns the splits.

  Args:
    manifest: one, or several separated by commas.
    out: output folder; absent or empty.
    shares: split -> share of the rows, summing to 1.
    seed: see `assignment.assign`.
    test: manifest of a given test split.
    action: "drop" or "list" rows whose images repeat those of `test`.
    group_by: fields of rows or of their "metadata"; rows with one value are
      not separated.
    min_correlation: of near duplicates.

  Raises:
    FileExistsError: `out` is not empty.
    FileNotFoundError, ValueError: bad rows, images or shares; nothing is
      written.
  """
  check_new_folder(out)
  if test and GIVEN_TEST in shares:
    raise ValueError(
      f"shares {dict(shares)}: {GIVEN_TEST!r} is given by a manifest; share"
      " the rest between other splits."
    )
  rows = read_manifests(",".join([manifest, test] if test else [manifest]))
  given = np.zeros(len(rows), bool)
  given[len(rows) - (len(read_manifests(test)) if test else 0) :] = True
  pictures = _pictures(rows, min_correlation)
  same = links(_shown(row, pictures) for row in rows)
  shown = groups(len(rows), same)
  repeats = np.isin(shown, shown[given]) & ~given
  crossing = pictures.matches(
    [i for at in np.flatnonzero(repeats) for i in rows[at].images],
    [i for at in np.flatnonzero(given) for i in rows[at].images],
  )
  kept = np.flatnonzero(~given & ~(repeats & (action == "drop")))
  joined = groups(len(rows), same, links(_keys(row, group_by) for row in rows))
  sides = assignment.assign(
    joined[kept].tolist(), [label_of(rows[i]) for i in kept], shares, seed
  )
  members: dict[str, list[int]] = {name: [] for name in shares}
  for i, side in zip(kept, sides):
    members[side].append(int(i))
  if test:
    members[GIVEN_TEST] = np.flatnonzero(given).tolist()
  parts = [
    Part(name, [rows[i] for i in of], joined[of].tolist())
    for name, of in members.items()
  ]
  dropped = int(repeats.sum()) if action == "drop" else 0
  result = Result(parts, crossing, dropped, _conflicts(rows, pictures))
  about = {
    "seed": seed,
    "shares": dict(shares),
    "group_by": list(group_by),
    "min_correlation": min_correlation,
    "near_duplicates_of_test": len(crossing),
    "rows_dropped": result.dropped,
  }
  with new_folder(out) as stage:
    for part in parts:
      _write(stage / part.name, part, about, pictures.digests)
    for name, lines in ((LISTING, crossing), (CONFLICTS, result.conflicting)):
      if lines:
        write_text(stage / name, "".join(f"{line}\n" for line in lines))
  return result


def _pictures(rows, min_correlation) -> Pictures:
  files = [image for row in rows for image in row.images]
  packed = [file for file in files if isinstance(file, PackedFile)]
  if packed:
    raise ValueError(
      f"{packed[0]} lies in an archive, to which a manifest cannot refer; split"
      " the manifest before packing it."
    )
  return Pictures(files, min_correlation)


def _conflicts(rows, pictures) -> list[str]:
  """Returns the pairs of near duplicates that are classified differently."""
  answers = collections.defaultdict(set)
  for row in rows:
    if row.task == "classification":
      answers[row.images].add(row.answer)
  return [
    f"{a} ({', '.join(sorted(first))}) ~ {b} ({', '.join(sorted(second))})"
    f" (correlation {value:.3f})"
    for a, b, value in pictures.pairs()
    if (first := answers.get((a,))) and (second := answers.get((b,)))
    if first != second
  ]


def _shown(row, pictures) -> set:
  """Returns what identifies the pictures of a row."""
  found = {pictures.groups[image] for image in row.images}
  # Groups of the originals: padding changes thumbnails.
  named = row.extra.get("picture")
  return found | ({named} if isinstance(named, str) else set())


def _keys(row, fields):
  """Yields what keeps a row together with others, besides its images."""
  yield from (anchors for anchors in row.anchors if anchors)
  known = row.extra.get("metadata")
  for source in (row.extra, known if isinstance(known, dict) else {}):
    for field in fields:
      if isinstance(value := source.get(field), (str, int)):
        yield field, value


def _write(folder: Path, part: Part, about, digests) -> None:
  def path(file):
    below = os.path.relpath(Path(file).resolve(), folder.resolve())
    return Path(below).as_posix()

  rows = []
  for triplet, group in zip(part.rows, part.groups):
    images = [path(file) for file in triplet.images]
    anchors = [a and path(a) for a in triplet.anchors]
    row = {k: v for k, v in row_of(triplet).items() if v is not None}
    row |= {"image": images if len(images) > 1 else images[0]}
    if any(anchors):
      row["aef"] = anchors if len(anchors) > 1 else anchors[0]
    row["split_group"] = group
    rows.append({"id": row["id"], "image": row["image"], **row})
  card = {
    **describe_sources(part.rows),
    "split": part.name,
    "splitting": about,
    "images": len(part.images),
    "rows": len(rows),
    "sha256": {path(file): digests[file] for file in part.images},
  }
  # They describe the images of the source.
  for key in (
    "identical_images",
    "copies_found",
    "rejected",
    "targets",
    "refused",
  ):
    card.pop(key, None)
  write_text(
    folder / "dataset.json",
    json.dumps(card, indent=1, ensure_ascii=False) + "\n",
  )
  write_manifest(folder / "manifest.jsonl", rows)


def print_result(result: Result, console: Console) -> None:
  """Prints rows, images, groups and labels of each split as a table."""
  table = Table("", *(part.name for part in result.parts))
  for name, of in (
    ("rows", lambda p: len(p.rows)),
    ("images", lambda p: len(p.images)),
    ("groups", lambda p: len(set(p.groups))),
  ):
    table.add_row(name, *(str(of(part)) for part in result.parts))
  table.add_section()
  labels = sorted({label for part in result.parts for label in part.labels})
  for label in labels:
    table.add_row(label, *(str(part.labels[label]) for part in result.parts))
  console.print(table, markup=False)


def main(argv: Sequence[str] | None = None) -> int:
  """Command line; returns the exit code."""
  parser = argparse.ArgumentParser(
    prog="python -m fusar_jax.datasets.split",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument(
    "--manifest", required=True, help="one, or several with commas between"
  )
  parser.add_argument("--out", required=True, help="folder to create")
  parser.add_argument(
    "--shares",
    nargs="+",
    help=f"split=share, separated by commas (default: {SHARES}; with --test"
    f" {SHARES_OF_REST})",
  )
  parser.add_argument(
    "--seed", type=int, default=0, help="default: %(default)s"
  )
  parser.add_argument("--test", help="manifest of a given test split")
  parser.add_argument(
    "--near-duplicates",
    default="drop",
    choices=ACTIONS,
    help="rows that repeat an image of --test: drop them, or only list them"
    " (default: %(default)s)",
  )
  parser.add_argument(
    "--group-by",
    nargs="*",
    default=GROUP_BY,
    metavar="FIELD",
    help="fields of rows or of their metadata; rows of one value stay together"
    f" (default: {' '.join(GROUP_BY)})",
  )
  parser.add_argument(
    "--min-correlation",
    type=float,
    default=MIN_CORRELATION,
    help="of the thumbnails of near duplicates (default: %(default)s)",
  )
  return command_line.run(parser, _split, argv)


def _split(args: argparse.Namespace) -> None:
  shares = args.shares or [SHARES_OF_REST if args.test else SHARES]
  result = write_splits(
    args.manifest,
    args.out,
    shares=assignment.parse_shares(shares),
    seed=args.seed,
    test=args.test,
    action=args.near_duplicates,
    group_by=args.group_by,
    min_correlation=args.min_correlation,
  )
  print_result(result, Console())
  if result.crossing:
    done = f"{result.dropped} rows dropped" if result.dropped else "kept"
    print(
      f"{len(result.crossing)} images repeat a test image ({done}), listed in"
      f" {Path(args.out, LISTING)}"
    )
  if result.conflicting:
    print(
      f"{len(result.conflicting)} pairs of near duplicates have different"
      f" classes, listed in {Path(args.out, CONFLICTS)}"
    )


if __name__ == "__main__":
  sys.exit(main())
