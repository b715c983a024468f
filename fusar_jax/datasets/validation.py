"""Validation of a data set: statistics, errors and warnings.

Every file is read once (see `fusar_jax.datasets.scan`). Several manifests are
splits of one data set and must not share an image.

An error is a problem that training rejects or that invalidates a score: a
missing or corrupt file, a bad row, a sequence that is too long, a box without
area or outside the image, an image in two splits. Other anomalies are warnings:
boxes over the edge, duplicate images, near duplicates in two splits, one
question with two answers, answers that follow from a shortcut.

For prediction, rows may lack an answer, and lengths are those of the prompts.
Existing answers are checked as for training, because they are scored.
"""

import collections
import dataclasses
import itertools
import os
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from fusar_jax.data.lengths import MAX_LENGTH
from fusar_jax.data.tokenizer import Tokenizer
from fusar_jax.datasets.near_duplicates import SIDE, near_pairs
from fusar_jax.datasets.near_duplicates import groups as group_numbers
from fusar_jax.datasets.scan import (
  File,
  Problem,
  Split,
  Track,
  boxes_of,
  read_splits,
)
from fusar_jax.datasets.shortcuts import Shortcut, find_shortcuts
from fusar_jax.datasets.source_rows import describe_sources
from fusar_jax.model.config import FusarConfig

# Images of all splits; the search takes the square of their number.
MAX_SEARCHED = 30_000
# Near duplicates that a problem names.
MOST_NAMED = 5


@dataclasses.dataclass(frozen=True, eq=False)
class Inspection:
  """Result of a validation.

  Attributes:
    splits: one per manifest, in the given order.
    problems: errors first, grouped by kind.
    shared_images: per split, the number of images that another split contains.
    near_duplicates: per split, the number of images with a near duplicate in
      it, and in another split; None: not searched.
    shortcuts: see `fusar_jax.datasets.shortcuts`.
    max_length: limit of L that was checked.
    has_lengths: True if a tokenizer was given.
    with_answers: True for training rows, False for prediction.
  """

  splits: tuple[Split, ...]
  problems: tuple[Problem, ...]
  shared_images: tuple[int, ...]
  max_length: int
  has_lengths: bool
  with_answers: bool = True
  near_duplicates: tuple[tuple[int, int], ...] | None = None
  shortcuts: tuple[Shortcut, ...] = ()

  @property
  def errors(self) -> int:
    return sum(problem.is_error for problem in self.problems)

  @property
  def warnings(self) -> int:
    return len(self.problems) - self.errors

  @property
  def verdict(self) -> str:
    """The numbers of errors and warnings as text: "1 error, 0 warnings"."""
    return ", ".join(
      f"{count} {name}{'s' * (count != 1)}"
      for count, name in ((self.errors, "error"), (self.warnings, "warning"))
    )

  def kinds(self, split: str | None = None) -> collections.Counter[str]:
    """Returns the number of problems per kind, of one split or of all."""
    return collections.Counter(
      p.kind for p in self.problems if split is None or p.split == split
    )


def inspect(
  paths: Sequence[str | os.PathLike],
  config: FusarConfig,
  tokenizer: Tokenizer | None = None,
  *,
  max_length: int = MAX_LENGTH,
  with_answers: bool = True,
  duplicates: bool = True,
  track: Track = lambda items, what: items,
) -> Inspection:
  """Scans and validates manifests.

  Args:
    paths: manifests, or folders with a manifest.jsonl.
    config: of the model that will process the images.
    tokenizer: for lengths in tokens; None: lengths are not computed.
    max_length: a longer sequence is an error.
    with_answers: True: for training; False: for prediction, see the module
      docstring.
    duplicates: search for near duplicates, if there are at most MAX_SEARCHED
      images.
    track: wraps iteration over (items, description), to show progress.

  Raises:
    FileNotFoundError: a manifest is missing; all else is returned as a problem.
  """
  splits, problems = read_splits(
    paths, config, tokenizer, with_answers=with_answers, track=track
  )
  for split in splits:
    problems += _row_problems(split, max_length)
    problems += _duplicates(split)
    problems += _unknown_terms(split)
  shared, leaks = _leaks(splits)
  problems += leaks
  near, groups, found = _near_duplicates(splits, duplicates)
  problems += found
  shortcuts = find_shortcuts(splits, groups)
  problems += [
    Problem("shortcut", str(shortcut), False, shortcut.split)
    for shortcut in shortcuts
    if shortcut.gives_away
  ]
  return Inspection(
    splits=tuple(splits),
    problems=_in_order(problems),
    shared_images=shared,
    max_length=max_length,
    has_lengths=tokenizer is not None,
    with_answers=with_answers,
    near_duplicates=near,
    shortcuts=tuple(shortcuts),
  )


def _row_problems(split: Split, max_length: int) -> Iterable[Problem]:
  checked = set()
  for row in split.rows:
    where = row.triplet.where
    if (row.length or 0) > max_length:
      yield Problem(
        "too long",
        f"{where}: {row.length} tokens ({row.visual_tokens} of them visual),"
        f" but max_length is {max_length}; nothing is truncated",
        True,
        split.name,
      )
    for number, box in enumerate(row.boxes.tolist(), start=1):
      # Tasks share the boxes of their image.
      if (row.images[0].path, tuple(box)) in checked:
        continue
      checked.add((row.images[0].path, tuple(box)))
      if fault := _box_fault(box, row.seen[0]):
        own = boxes_of(row.triplet)[0][number - 1].tolist()
        space = row.triplet.coordinate_size or row.images[0].size
        yield Problem(
          fault[0],
          f"{where}: box {number}, {[round(v, 1) for v in own]}, on"
          f" {space[0]} x {space[1]} pixels (height x width)",
          fault[1],
          split.name,
        )


def _unknown_terms(split: Split) -> Iterable[Problem]:
  """Cards that record the source or the licence as unknown."""
  card = describe_sources(row.triplet for row in split.rows)
  for one in card.get("sources", [card]):
    unknown = [k for k in ("source", "license") if one.get(k, "") is None]
    if unknown:
      yield Problem(
        "unknown terms",
        f"{split.name}: {' and '.join(unknown)} of the data not recorded;"
        " prepare and the importers take --source and --license",
        False,
        split.name,
      )


def _box_fault(box, size) -> tuple[str, bool] | None:
  """Returns (kind, is_error) of a box on an image of (h, w), or None."""
  x1, y1, x2, y2 = box
  if x1 >= x2 or y1 >= y2:
    return "box without area", True
  if x2 <= 0 or y2 <= 0 or x1 >= size[1] or y1 >= size[0]:
    return "box outside of the image", True
  # Boxes pass through float32 on their way to the model's pixels.
  slack = 1e-3
  if min(x1, y1) < -slack or x2 > size[1] + slack or y2 > size[0] + slack:
    return "box over the edge", False
  return None


def _duplicates(split: Split) -> Iterable[Problem]:
  twins = collections.defaultdict(list)
  for image, _, _ in split.images.values():
    twins[image.sha256].append(image.name)
  for names in twins.values():
    if len(names) > 1:
      yield Problem(
        "same image twice",
        f"{split.name}: {' = '.join(names)}",
        False,
        split.name,
      )
  asked = collections.defaultdict(list)
  for row in split.rows:
    triplet = row.triplet
    key = tuple(i.sha256 for i in row.images), triplet.history, triplet.question
    asked[key].append(triplet)
  for triplets in asked.values():
    if len(triplets) > 1:
      same = len({triplet.answer for triplet in triplets}) == 1
      rows = ", ".join(f'{t.row} ("{t.id}")' for t in triplets)
      yield Problem(
        "same question twice" if same else "two answers to one question",
        f"{split.name}: rows {rows} ask the same of the same image",
        False,
        split.name,
      )


def _leaks(splits) -> tuple[tuple[int, ...], list[Problem]]:
  """Returns (number of shared images per split, problems)."""
  problems, shared = [], [set() for _ in splits]
  images = [_by_hash(i for i, _, _ in s.images.values()) for s in splits]
  for a, b in itertools.combinations(range(len(splits)), 2):
    names = splits[a].name, splits[b].name
    both = [digest for digest in images[a] if digest in images[b]]
    shared[a].update(both)
    shared[b].update(both)
    problems += [
      Problem(
        "image in two splits",
        f"{names[0]} {images[a][digest]} = {names[1]} {images[b][digest]}",
        True,
      )
      for digest in both
    ]
    # Other images of the same ground make the test set easier than it seems.
    grounds = [
      _by_hash(
        anchors
        for image, anchors, _ in splits[side].images.values()
        if anchors and image.sha256 not in both
      )
      for side in (a, b)
    ]
    same = [digest for digest in grounds[0] if digest in grounds[1]]
    if same:
      problems.append(
        Problem(
          "same ground in two splits",
          f"{len(same)} anchors files of {names[0]} lie under other images of"
          f" {names[1]} too, such as {grounds[0][same[0]]}",
          False,
        )
      )
  return tuple(map(len, shared)), problems


def _near_duplicates(splits, search: bool):
  """Returns (counts of `Inspection`, group by image path, problems)."""
  images = [
    (at, image)
    for at, split in enumerate(splits)
    for image, _, _ in split.images.values()
  ]
  if not search or len(images) > MAX_SEARCHED:
    groups = {image.path: i for i, (_, image) in enumerate(images)}
    text = f"{len(images)} images are more than {MAX_SEARCHED}"
    unsearched = Problem("near duplicates not searched", text, False)
    return None, groups, [unsearched] if search else []
  pairs, values = near_pairs(
    np.array([image.thumbnail for _, image in images]).reshape(-1, SIDE, SIDE)
  )
  numbers = group_numbers(len(images), pairs)
  within = [set() for _ in splits]
  across = [set() for _ in splits]
  crossing = collections.defaultdict(list)
  for (a, b), value in zip(pairs.tolist(), values.tolist()):
    (of_a, one), (of_b, other) = images[a], images[b]
    for at, mine, theirs in ((of_a, one, of_b), (of_b, other, of_a)):
      (within if at == theirs else across)[at].add(mine.path)
    # Equal bytes in two splits are an error already.
    if of_a != of_b and one.sha256 != other.sha256:
      crossing[of_a, of_b].append((value, one.name, other.name))
  problems = []
  for (a, b), found in sorted(crossing.items()):
    worst = sorted(found, key=lambda pair: (-pair[0], pair[1:]))[:MOST_NAMED]
    problems.append(
      Problem(
        "near duplicates in two splits",
        f"{len({pair[2] for pair in found})} of {len(splits[b].images)} images"
        f" of {splits[b].name} show the same as one of {splits[a].name};"
        f" fusar_jax.datasets.split separates them. The closest: "
        + "; ".join(f"{x} ~ {y} (correlation {v:.3f})" for v, x, y in worst),
        False,
      )
    )
  groups = {image.path: int(n) for (_, image), n in zip(images, numbers)}
  counts = tuple((len(w), len(a)) for w, a in zip(within, across))
  return counts, groups, problems


def _by_hash(files: Iterable[File]) -> Mapping[str, str]:
  return {file.sha256: file.name for file in files}


def _in_order(problems: list[Problem]) -> tuple[Problem, ...]:
  kinds = list(dict.fromkeys(problem.kind for problem in problems))
  return tuple(
    sorted(problems, key=lambda p: (not p.is_error, kinds.index(p.kind)))
  )
