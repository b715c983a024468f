"""Scan of manifests: reads every file once and measures every row.

Images are decoded and hashed, anchors are read, and token counts are computed
at the model's input size; no examples are built. An unreadable file is reported
once, with the first row that refers to it. `fusar_jax.datasets.validation`
performs all other checks.
"""

import collections
import dataclasses
import functools
import itertools
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from fusar_jax.data import vision
from fusar_jax.data.examples import (
  check_answer,
  count_visual_tokens,
  encode_texts,
  model_size,
)
from fusar_jax.data.records import sha256_of
from fusar_jax.data.row_texts import texts
from fusar_jax.data.tokenizer import Tokenizer
from fusar_jax.data.triplets import (
  Triplet,
  is_readable,
  manifest_files,
  read_manifest_leniently,
)
from fusar_jax.datasets.near_duplicates import thumbnail
from fusar_jax.geo.anchors import read_anchors
from fusar_jax.model.config import FusarConfig
from fusar_jax.tasks import boxes as boxes_lib
from fusar_jax.tasks.predictions import guess_task

# AlphaEarth vectors have length 1; quantisation changes it by less than 1 %.
_UNIT = (0.9, 1.1)
_UNDECLARED = "(undeclared)"

Track = Callable[[Sequence, str], Iterable]


@dataclasses.dataclass(frozen=True)
class Problem:
  """One error or warning.

  Attributes:
    kind: short label; problems of one kind are reported together.
    text: location and description.
    is_error: see `fusar_jax.datasets.validation`; otherwise a warning.
    split: name of the split, "" if it concerns several.
  """

  kind: str
  text: str
  is_error: bool
  split: str = ""


@dataclasses.dataclass(frozen=True)
class File:
  """An image or an anchors file, read once.

  Attributes:
    path: as in the manifest.
    sha256: of its bytes.
    size: (height, width) of an image, (S, 64) of anchors.
    odd: description of unusual content, or "".
    thumbnail: float32[1024] of an image, mean 0 and length 1, zeros for one
      grey; None for anchors.
  """

  path: Path
  sha256: str
  size: tuple[int, int]
  odd: str = ""
  thumbnail: np.ndarray | None = dataclasses.field(
    default=None, compare=False, repr=False
  )

  @property
  def name(self) -> str:
    """The resolved path, for messages."""
    known = self.path
    # A file inside an archive has no path to resolve.
    return (known.resolve() if isinstance(known, Path) else known).as_posix()


@dataclasses.dataclass(frozen=True, eq=False)
class Row:
  """A row whose files can be read.

  Attributes:
    triplet: the row.
    task: as declared, else guessed from the question, else "(undeclared)".
    images, anchors: its files; None for an image without anchors.
    seen: per image (height, width) as model input.
    visual_tokens: M, summed over its images.
    boxes: float32[n, 4], xyxy, pixels of the first image as model input.
    labels: one name per box.
    length, answer_length: L, and its number of supervised tokens; None without
      a tokenizer.
    with_answer: True for training. Otherwise `length` is that of the prompt and
      `answer_length` that of the true answer, 0 if there is none.
  """

  triplet: Triplet
  task: str
  images: tuple[File, ...]
  anchors: tuple[File | None, ...]
  seen: tuple[tuple[int, int], ...]
  visual_tokens: int
  boxes: np.ndarray
  labels: tuple[str, ...]
  length: int | None = None
  answer_length: int | None = None
  with_answer: bool = True


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
  """One manifest.

  Attributes:
    name: short and unique.
    path: the manifest.
    rows: readable rows.
    rejected: number of rejected rows.
  """

  name: str
  path: Path
  rows: tuple[Row, ...]
  rejected: int

  @functools.cached_property
  def images(self) -> dict[Path, tuple[File, File | None, tuple[int, int]]]:
    """(image, anchors of its first row, model input size) by image path."""
    found = {}
    for row in self.rows:
      for image, anchors, seen in zip(row.images, row.anchors, row.seen):
        found.setdefault(image.path, (image, anchors, seen))
    return found

  @functools.cached_property
  def boxes(self) -> np.ndarray:
    """float32[n, 4], model pixels; the same box in several rows counts once."""
    found = {
      (row.images[0].path, tuple(box)): box
      for row in self.rows
      for box in row.boxes.tolist()
    }
    return boxes_lib.as_boxes(list(found.values()))


def read_splits(
  paths: Sequence[str | os.PathLike],
  config: FusarConfig,
  tokenizer: Tokenizer | None = None,
  *,
  with_answers: bool = True,
  track: Track = lambda items, what: items,
) -> tuple[list[Split], list[Problem]]:
  """Returns (one split per manifest, problems of unreadable rows and files).

  Args:
    paths: manifests, or folders with a manifest.jsonl.
    config: of the model that will process the images.
    tokenizer: for lengths in tokens; None: lengths are not computed.
    with_answers: rows require an answer, which counts towards their length.
    track: wraps iteration over (items, description), to show progress.

  Raises:
    FileNotFoundError: a manifest is missing; all else is returned as a problem.
  """
  manifests = [manifest_of(path) for path in paths]
  names = _names(manifests)
  problems, read = [], []

  def report(kind, text, split, is_error=True):
    problems.append(Problem(kind, text, is_error, split))

  for name, path in zip(names, manifests):
    try:
      triplets, rejected = read_manifest_leniently(path)
    except ValueError as error:
      triplets, rejected = [], []
      report("unreadable manifest", str(error), name)
    for message in rejected:
      report("bad row", f"{path} {message}", name)
    read.append((triplets, len(rejected)))
  owned = [
    (name, triplet)
    for name, (triplets, _) in zip(names, read)
    for triplet in triplets
  ]
  images = _read_all(owned, "images", _image, report, track)
  anchors = _read_all(owned, "anchors", _anchors, report, track)
  splits = []
  for name, path, (triplets, rejected) in zip(names, manifests, read):
    rows = []
    for triplet in track(triplets, f"rows of {name}"):
      try:
        row = _row(triplet, images, anchors, config, tokenizer, with_answers)
      except ValueError as error:
        report("bad row", f"{triplet.where}: {error}", name)
        continue
      if row is not None:
        rows.append(row)
    left = rejected + len(triplets) - len(rows)
    splits.append(Split(name, path, tuple(rows), left))
  return splits, problems


def manifest_of(path: str | os.PathLike) -> Path:
  """Returns the manifest of a path: the path itself, or that of a folder.

  Raises:
    FileNotFoundError: neither exists.
    ValueError: a pattern that matches an incomplete set of shards.
  """
  path = Path(path)
  manifest = path / "manifest.jsonl" if path.is_dir() else path
  if not all(is_readable(file) for file in manifest_files(manifest)):
    raise FileNotFoundError(
      f"{manifest} not found; give a manifest, or a folder that holds a"
      " manifest.jsonl."
    )
  return manifest


def choose(splits: Sequence[Split], count: int, seed: int) -> list[Row]:
  """Returns sample rows, round-robin over splits and tasks, new images first.

  The selection is deterministic in the seed. It has fewer than `count` rows
  only if there are no more.
  """
  groups = collections.defaultdict(list)
  for split in splits:
    for row in split.rows:
      groups[split.name, row.task].append(row)
  rng = np.random.default_rng(seed)
  queues = [
    [rows[i] for i in rng.permutation(len(rows))] for rows in groups.values()
  ]
  chosen, shown = [], set()
  for queue in itertools.cycle(queues):
    if len(chosen) >= count or not any(queues):
      break
    if queue:
      unseen = (
        i for i, row in enumerate(queue) if row.images[0].path not in shown
      )
      row = queue.pop(next(unseen, 0))
      shown.add(row.images[0].path)
      chosen.append(row)
  return chosen


def boxes_of(triplet: Triplet) -> tuple[np.ndarray, tuple[str, ...]]:
  """Returns the ground-truth (boxes, labels) of a row, in its coordinates.

  For rows without "boxes", such as the official ones, the boxes are parsed from
  the answer of a detection task.

  Raises:
    ValueError: the answer cannot be parsed.
  """
  if triplet.boxes is not None:
    return triplet.boxes, triplet.labels
  task = triplet.task or guess_task(triplet.question)
  if task != "detection" or triplet.answer is None:
    return boxes_lib.as_boxes([]), ()
  parsed = boxes_lib.parse_complete(triplet.answer)
  if parsed.error:
    raise ValueError(f"the answer holds no boxes: {parsed.error}")
  return parsed.boxes, parsed.labels


def _names(manifests: Sequence[Path]) -> list[str]:
  """Returns short names where unique, else the paths."""
  short = [
    p.parent.resolve().name if p.name == "manifest.jsonl" else p.stem
    for p in manifests
  ]
  return [
    name if short.count(name) == 1 else str(path)
    for name, path in zip(short, manifests)
  ]


def _read_all(owned, field, read, report, track) -> dict[Path, File]:
  """Returns the readable files by path; reports each of the others once."""
  users = collections.defaultdict(list)
  for name, triplet in owned:
    for path in getattr(triplet, field):
      if path is not None:
        users[path].append((name, triplet))
  files = {}
  for path in track(list(users), field):
    (name, first), *others = users[path]
    try:
      files[path] = read(path)
    except (ValueError, OSError) as error:
      more = f" and {len(others)} more" if others else ""
      report(f"unreadable {field}", f"{first.where}{more}: {error}", name)
      continue
    if files[path].odd:
      report(f"odd {field}", f"{path}: {files[path].odd}", name, False)
  return files


def _image(path: Path) -> File:
  pixels = vision.load_image(path)
  low, high = pixels.min(), pixels.max()
  odd = f"every pixel is {low}; nothing can be seen" if low == high else ""
  small = thumbnail(pixels).ravel()
  small = small - small.mean()
  length = np.linalg.norm(small)
  return File(
    path,
    sha256_of(path),
    pixels.shape[:2],
    odd,
    # Rounding of the mean leaves a small length.
    small / length if length > 1e-3 else np.zeros_like(small),
  )


def _anchors(path: Path) -> File:
  found = read_anchors(path)
  norms = np.linalg.norm(found.features, axis=1)
  odd = ""
  if norms.min() < _UNIT[0] or norms.max() > _UNIT[1]:
    odd = (
      f"vectors of length {norms.min():.3g} to {norms.max():.3g}, but those of"
      " AlphaEarth have length 1; de-quantise q as sign(q) (q / 127.5)^2"
    )
  return File(path, sha256_of(path), found.features.shape, odd)


def _row(
  triplet, images, anchors, config, tokenizer, with_answers
) -> Row | None:
  """Returns the measured row; None if a file is bad, as already reported."""
  if any(path not in images for path in triplet.images) or any(
    path and path not in anchors for path in triplet.anchors
  ):
    return None
  # JSON can contain a lone surrogate; tokenizers and files cannot.
  f"{triplet.question}{triplet.answer or ''}".encode()
  if with_answers:
    check_answer(triplet.answer)
  files = tuple(images[path] for path in triplet.images)
  seen = tuple(model_size(file.size, config) for file in files)
  space = triplet.coordinate_size or files[0].size
  boxes, labels = boxes_of(triplet)
  # Also without a tokenizer: training would reject the same rows.
  question, answer = texts(triplet, files[0].size, seen[0])
  length = answer_length = None
  if tokenizer is not None:
    ids, mask = encode_texts(question, answer, seen, tokenizer, config)
    answer_length = 0 if answer is None else int(mask.sum())
    if not with_answers:
      ids, _ = encode_texts(question, None, seen, tokenizer, config)
    length = len(ids)
  return Row(
    triplet=triplet,
    task=triplet.task or guess_task(triplet.question) or _UNDECLARED,
    images=files,
    anchors=tuple(anchors[p] if p else None for p in triplet.anchors),
    seen=seen,
    visual_tokens=sum(count_visual_tokens(size, config) for size in seen),
    boxes=boxes_lib.scale(boxes, space, seen[0]),
    labels=labels,
    length=length,
    answer_length=answer_length,
    with_answer=with_answers,
  )
