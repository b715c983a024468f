"""What one or several manifests hold: every file read once, every row measured.

Images are decoded and hashed, anchors are read, and rows become token counts at
the size the model sees; no example is built. What cannot be read is told once,
with the row that first names it. `fusar_jax.data.inspection` judges the rest.
"""

import collections
import dataclasses
import functools
import hashlib
import itertools
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from fusar_jax.data import prompts, vision
from fusar_jax.data.examples import check_answer, model_size, texts
from fusar_jax.data.tokenizer import Tokenizer
from fusar_jax.data.triplets import (
  Triplet,
  is_readable,
  manifest_files,
  read_manifest_leniently,
)
from fusar_jax.geo.anchors import read_anchors
from fusar_jax.model.config import FusarConfig
from fusar_jax.tasks import boxes as boxes_lib
from fusar_jax.tasks.predictions import guess_task

# AlphaEarth vectors have length 1; quantisation moves it by less than 1 %.
_UNIT = (0.9, 1.1)
_UNTOLD = "(none told)"

Track = Callable[[Sequence, str], Iterable]


@dataclasses.dataclass(frozen=True)
class Problem:
  """One line of what to mend, or to know of.

  Attributes:
    kind: a few words; problems of one kind are told together.
    text: where, and what.
    is_error: see `fusar_jax.data.inspection`; otherwise a warning.
    split: name of the split, "" where it concerns several.
  """

  kind: str
  text: str
  is_error: bool
  split: str = ""


@dataclasses.dataclass(frozen=True)
class File:
  """An image or an anchors file, read once.

  Attributes:
    path: as the manifest names it.
    sha256: of its bytes.
    size: (height, width) of an image, (S, 64) of anchors.
    odd: what is unusual about its content, or "".
  """

  path: Path
  sha256: str
  size: tuple[int, int]
  odd: str = ""

  @property
  def name(self) -> str:
    """The path as messages tell it, without its detours."""
    known = self.path
    # A file inside of an archive has no other name.
    return (known.resolve() if isinstance(known, Path) else known).as_posix()


@dataclasses.dataclass(frozen=True, eq=False)
class Row:
  """A row whose files can be read.

  Attributes:
    triplet: the row.
    task: as declared, else as its question sounds, else "(none told)".
    images, anchors: its files; None for an image without anchors.
    seen: per image (height, width) as the model sees it.
    visual_tokens: M, of all its images.
    boxes: float32[n, 4], xyxy, pixels of the first image as the model sees it.
    labels: one name per box.
    length, answer_length: L, and how many of them are supervised; None without
      a tokenizer.
    with_answer: for training. Otherwise `length` is the prompt's and
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
    name: short, and unlike that of any other split.
    path: the manifest.
    rows: those that can be read.
    refused: how many cannot.
  """

  name: str
  path: Path
  rows: tuple[Row, ...]
  refused: int

  @functools.cached_property
  def images(self) -> dict[Path, tuple[File, File | None, tuple[int, int]]]:
    """(image, anchors of its first row, size as seen) by the image's path."""
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
  """Returns (one split per manifest, what could not be read).

  Args:
    paths: manifests, or folders with a manifest.jsonl.
    config: of the model that is to see the images.
    tokenizer: for lengths in tokens; None: they are not counted.
    with_answers: rows need an answer, which counts towards their length.
    track: iterates over (items, what they are), to show progress.

  Raises:
    FileNotFoundError: a manifest is missing; all else is told as a problem.
  """
  manifests = [manifest_of(path) for path in paths]
  names = _names(manifests)
  problems, read = [], []

  def tell(kind, text, split, is_error=True):
    problems.append(Problem(kind, text, is_error, split))

  for name, path in zip(names, manifests):
    try:
      triplets, refused = read_manifest_leniently(path)
    except ValueError as error:
      triplets, refused = [], []
      tell("unreadable manifest", str(error), name)
    for message in refused:
      tell("bad row", f"{path} {message}", name)
    read.append((triplets, len(refused)))
  owned = [
    (name, triplet)
    for name, (triplets, _) in zip(names, read)
    for triplet in triplets
  ]
  images = _read_all(owned, "images", _image, tell, track)
  anchors = _read_all(owned, "anchors", _anchors, tell, track)
  splits = []
  for name, path, (triplets, refused) in zip(names, manifests, read):
    rows = []
    for triplet in track(triplets, f"rows of {name}"):
      try:
        row = _row(triplet, images, anchors, config, tokenizer, with_answers)
      except ValueError as error:
        tell("bad row", f"{triplet.where}: {error}", name)
        continue
      if row is not None:
        rows.append(row)
    left = refused + len(triplets) - len(rows)
    splits.append(Split(name, path, tuple(rows), left))
  return splits, problems


def manifest_of(path: str | os.PathLike) -> Path:
  """Returns the manifest that a path names: itself, or that of a folder.

  Raises:
    FileNotFoundError: neither is there.
    ValueError: a pattern that finds a part of a set of shards only.
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
  """Returns rows to look at: every split and task in turn, images unlike.

  The same seed gives the same rows, and fewer than `count` only if there are
  no more.
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
  """Returns the true (boxes, labels) of a row, in the row's own pixels.

  Rows without "boxes", as the official ones are, tell them in the answer of a
  detection task.

  Raises:
    ValueError: that answer cannot be read.
  """
  if triplet.extra.get("boxes") is not None:
    return (
      boxes_lib.as_boxes(triplet.extra["boxes"]),
      tuple(triplet.extra["labels"]),
    )
  task = triplet.task or guess_task(triplet.question)
  if task != "detection" or triplet.answer is None:
    return boxes_lib.as_boxes([]), ()
  parsed = boxes_lib.parse_complete(triplet.answer)
  if parsed.error:
    raise ValueError(f"the answer holds no boxes: {parsed.error}")
  return parsed.boxes, parsed.labels


def _names(manifests: Sequence[Path]) -> list[str]:
  """The shortest ends of the paths that tell them apart."""
  short = [
    p.parent.resolve().name if p.name == "manifest.jsonl" else p.stem
    for p in manifests
  ]
  return [
    name if short.count(name) == 1 else str(path)
    for name, path in zip(short, manifests)
  ]


def _read_all(owned, field, read, tell, track) -> dict[Path, File]:
  """Returns the readable files by path; the others are told, each once."""
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
      tell(f"unreadable {field}", f"{first.where}{more}: {error}", name)
      continue
    if files[path].odd:
      tell(f"odd {field}", f"{path}: {files[path].odd}", name, False)
  return files


def _image(path: Path) -> File:
  pixels = vision.load_image(path)
  low, high = pixels.min(), pixels.max()
  odd = f"every pixel is {low}; nothing can be seen" if low == high else ""
  return File(path, _sha256(path), pixels.shape[:2], odd)


def _anchors(path: Path) -> File:
  found = read_anchors(path)
  norms = np.linalg.norm(found.features, axis=1)
  odd = ""
  if norms.min() < _UNIT[0] or norms.max() > _UNIT[1]:
    odd = (
      f"vectors of length {norms.min():.3g} to {norms.max():.3g}, but those of"
      " AlphaEarth have length 1; de-quantise q as sign(q) (q / 127.5)^2"
    )
  return File(path, _sha256(path), found.features.shape, odd)


def _sha256(path: Path) -> str:
  with path.open("rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()


def _row(
  triplet, images, anchors, config, tokenizer, with_answers
) -> Row | None:
  """None where a file is bad, which has been told already."""
  if any(path not in images for path in triplet.images) or any(
    path and path not in anchors for path in triplet.anchors
  ):
    return None
  # JSON can hold half a surrogate pair; tokenizers cannot, nor can a file.
  f"{triplet.question}{triplet.answer or ''}".encode()
  if with_answers:
    check_answer(triplet.answer)
  files = tuple(images[path] for path in triplet.images)
  seen = tuple(model_size(file.size, config) for file in files)
  counts = [h * w // config.vision.cell**2 for h, w in seen]
  space = triplet.coordinate_size or files[0].size
  boxes, labels = boxes_of(triplet)
  # Also without a tokenizer: what it refuses, training would.
  question, answer = texts(triplet, files[0].size, seen[0])
  length = answer_length = None
  if tokenizer is not None:
    ids, mask = prompts.encode_example(
      tokenizer, question, answer or "", counts
    )
    answer_length = 0 if answer is None else int(mask.sum())
    length = len(ids) if with_answers else int((~mask).sum())
  return Row(
    triplet=triplet,
    task=triplet.task or guess_task(triplet.question) or _UNTOLD,
    images=files,
    anchors=tuple(anchors[p] if p else None for p in triplet.anchors),
    seen=seen,
    visual_tokens=sum(counts),
    boxes=boxes_lib.scale(boxes, space, seen[0]),
    labels=labels,
    length=length,
    answer_length=answer_length,
    with_answer=with_answers,
  )
