"""Triplets: an image, what the ground below it is like, and words.

A manifest is a JSON list or JSON lines, one row per triplet, in the official
layout of FUSAR-GPT: {"id", "image", "aef", "coordinate_size", "question",
"answer"}; paths are relative to the manifest. "image" and "aef" may be lists
(several images), "aef" may be absent (an unmodulated image), "answer" may be
any JSON value. Our importers add "task", "boxes" and "labels".

Wherever a manifest is named, ArrayRecord shards may be, by a pattern such as
FOLDER/*.array_record, and a split of a TFDS data set, as FOLDER/train; see
`fusar_jax.data.shards` and `fusar_jax.data.tfds_fusar`.
"""

import dataclasses
import glob
import json
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from fusar_jax.data import records
from fusar_jax.data.records import File
from fusar_jax.data.tfds_fusar import reading
from fusar_jax.geo.whole_file import write_whole

# Errors of one manifest are told together, but not a million of them.
_MAX_TOLD = 20


@dataclasses.dataclass(frozen=True, eq=False)
class Triplet:
  """One row of a manifest.

  Attributes:
    id: unique within its manifest.
    images: files, in order of appearance.
    anchors: per image, its AlphaEarth file, or None: unmodulated.
    question: text of the user.
    answer: text of the assistant; a JSON value was dumped to text.
    coordinate_size: (height, width) of the image whose pixels all boxes of the
      row speak of; None: the original file's own pixels.
    task: name in `fusar_jax.tasks`, or None.
    source: the manifest, or the shard.
    row: 1-based: the line of JSON lines, the item of a JSON list, the row of
      the shard.
    extra: all other fields of the row, such as boxes and labels.
  """

  id: str
  images: tuple[File, ...]
  anchors: tuple[File | None, ...]
  question: str
  answer: str
  coordinate_size: tuple[int, int] | None = None
  task: str | None = None
  source: Path = Path()
  row: int = 0
  extra: Mapping = dataclasses.field(default_factory=dict)

  @property
  def where(self) -> str:
    """File, row and id, as errors tell them."""
    return f'{self.source} row {self.row} (id "{self.id}")'


def read_manifest(path: str | os.PathLike) -> list[Triplet]:
  """Returns the triplets of a manifest, in its order.

  Args:
    path: JSON, JSON lines, shards (one or a pattern), or a split of TFDS.

  Raises:
    FileNotFoundError: no such manifest.
    ValueError: nothing in it, or bad rows; all of them are told, by row.
  """
  triplets, refused = read_manifest_leniently(path)
  raise_together(refused, f"{path}: refused")
  return triplets


def read_manifests(paths: str) -> list[Triplet]:
  """Returns the triplets of one manifest, or of several with commas between.

  Raises:
    FileNotFoundError: a manifest is missing.
    ValueError: bad rows, or an id that two manifests use.
  """
  triplets, owners, twice = [], {}, []
  for path in split_paths(paths):
    for triplet in read_manifest(path):
      if triplet.id in owners:
        twice.append(f'id "{triplet.id}": in {owners[triplet.id]} and {path}')
      owners[triplet.id] = path
      triplets.append(triplet)
  raise_together(twice, "ids must differ between manifests")
  return triplets


def split_paths(paths: str) -> list[str]:
  """Returns the paths of "a.jsonl,b.jsonl"."""
  return [path.strip() for path in paths.split(",") if path.strip()]


def manifest_files(path: str | os.PathLike) -> list[Path]:
  """Returns what holds the rows of `read_manifest(path)`, in their order.

  That is the path itself, or the shards that a pattern finds.

  Raises:
    ValueError: a pattern finds a part of a set of shards only.
  """
  path = Path(path)
  if not glob.has_magic(str(path)) or path.exists():
    return [path]
  found = sorted(map(Path, glob.glob(str(path))))
  records.check_complete(found, str(path))
  return found or [path]


def is_readable(path: Path) -> bool:
  """Tells whether one of `manifest_files` is there."""
  return path.is_file() or reading.is_split(path)


def manifest_bytes(path: Path) -> bytes:
  """Returns what one of `manifest_files` says, byte for byte.

  Of an archive, that is its table of contents, which holds the hash of every
  image: nothing else of it is read.
  """
  table = _table(path)
  return path.read_bytes() if table is None else table.content


def read_manifest_leniently(
  path: str | os.PathLike,
) -> tuple[list[Triplet], list[str]]:
  """Returns (good triplets, one message per refused row).

  Raises:
    FileNotFoundError: no such manifest.
    ValueError: the file is not JSON at all, or holds no row; a damaged shard.
  """
  triplets, refused, seen = [], [], {}
  files = manifest_files(path)
  for file in files:
    rows, bad, locate = _open(file)
    within = f"{file.name} " if len(files) > 1 else ""
    refused += [f"{within}{message}" for message in bad]
    for number, row in rows:
      place = f"{within}row {number}"
      try:
        triplet = parse_row(row, number, file, locate)
        if triplet.id in seen:
          raise ValueError(
            f'id "{triplet.id}" was used by {seen[triplet.id]} already'
          )
      except ValueError as error:
        refused.append(f"{place}: {error}")
        continue
      seen[triplet.id] = place
      triplets.append(triplet)
  if not triplets and not refused:
    raise ValueError(
      f"{path}: the manifest is empty; expected one row per triplet."
    )
  return triplets, refused


def write_manifest(path: str | os.PathLike, rows: Iterable[Mapping]) -> None:
  """Writes JSON lines (a list, if the name ends in .json), whole or not at all.

  Rows are dicts of the official layout.
  """
  path = Path(path)
  rows = list(rows)
  if path.suffix == ".json":
    text = json.dumps(rows, ensure_ascii=False, indent=1) + "\n"
  else:
    text = "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows)
  write_text(path, text)


def write_text(path: Path, text: str) -> None:
  """Writes a file, whole or not at all."""
  content = text.encode("utf-8")
  write_whole(path, lambda file: file.write(content))


def raise_together(problems: Sequence[str], head: str) -> None:
  """Raises one ValueError that tells all problems, if there are any."""
  if not problems:
    return
  told = "\n".join(f"  {problem}" for problem in problems[:_MAX_TOLD])
  if len(problems) > _MAX_TOLD:
    told += f"\n  ... and {len(problems) - _MAX_TOLD} more"
  raise ValueError(f"{head} ({len(problems)}):\n{told}")


def _open(path: Path):
  """Returns ([(row number, value)], refused, what finds a row's files)."""
  table = _table(path)
  if table is not None:
    return list(enumerate(table.rows, start=1)), [], _in_table(table)
  if not path.is_file():
    folder = path.is_dir()
    hint = f"; it is a folder, give a file such as {path / 'manifest.jsonl'}"
    raise FileNotFoundError(f"manifest not found: {path}{hint * folder}")
  return *_rows(path), _in_folder(path.parent)


def _table(path: Path) -> records.Table | None:
  """Contents of an archive; None: the path means a manifest."""
  if path.suffix == records.SUFFIX:
    return records.read_table(path)
  return reading.read_table(path) if reading.is_split(path) else None


def _in_folder(folder: Path):
  def locate(name) -> Path:
    if not isinstance(name, str) or not name or "\0" in name:
      raise ValueError(f"must be a file name, got {name!r:.60}")
    return folder / name

  return locate


def _in_table(table: records.Table):
  def locate(record) -> File:
    if not isinstance(record, int) or record not in table.files:
      raise ValueError(f"must be the number of a file, got {record!r:.60}")
    return table.files[record]

  return locate


def _rows(path):
  """Returns ([(row number, value)], refused) of either layout."""
  try:
    text = path.read_text(encoding="utf-8-sig")
  except UnicodeDecodeError as error:
    raise ValueError(f"{path}: not UTF-8 text: {error}") from None
  if text.lstrip().startswith("["):
    try:
      return list(enumerate(_load(text), start=1)), []
    except ValueError as error:
      raise ValueError(f"{path}: not a JSON list: {error}") from None
  rows, refused = [], []
  # Not splitlines(): JSON strings may hold U+2028 and its like.
  for number, line in enumerate(text.split("\n"), start=1):
    if line.strip():
      try:
        rows.append((number, _load(line)))
      except ValueError as error:
        refused.append(f"row {number}: not JSON: {error}")
  return rows, refused


def _load(text):
  try:
    return json.loads(text)
  except RecursionError:
    raise ValueError("nested too deeply") from None


def parse_row(
  row: Mapping, number: int, source: Path, locate: Callable[..., File]
) -> Triplet:
  """Returns the triplet of a row.

  Args:
    row: as in a manifest.
    number: of the row; 1-based.
    source: what holds it.
    locate: returns the file that an entry of "image" or "aef" means, or raises
      ValueError saying what the entry must be.

  Raises:
    ValueError: what is wrong with it, in one sentence.
  """
  if not isinstance(row, dict):
    raise ValueError(f"expected an object, got {type(row).__name__}")
  missing = [k for k in ("id", "image", "question", "answer") if k not in row]
  if missing:
    raise ValueError(f"missing {', '.join(map(repr, missing))}")
  identity = row["id"]
  if isinstance(identity, bool) or not isinstance(identity, (str, int)):
    raise ValueError(f"'id' must be text or a number, got {identity!r:.60}")
  if identity == "":
    raise ValueError("'id' is empty")
  question = row["question"]
  if not isinstance(question, str):
    raise ValueError(f"'question' must be text, got {question!r:.60}")
  answer = row["answer"]
  if not isinstance(answer, str):
    answer = json.dumps(answer, ensure_ascii=False)
  _check_text(question, answer)
  images = _located(row, "image", locate)
  if not images or None in images:
    raise ValueError("'image' names no file")
  anchors = _located(row, "aef", locate) or (None,) * len(images)
  if len(anchors) != len(images):
    raise ValueError(
      f"{len(images)} images but {len(anchors)} 'aef' files; one each, null for"
      " an image without"
    )
  task = row.get("task")
  if task is not None and not isinstance(task, str):
    raise ValueError(f"'task' must be text, got {task!r:.60}")
  _check_boxes(row)
  known = {*Triplet.__dataclass_fields__, "image", "aef"} - {"extra"}
  return Triplet(
    id=str(identity),
    images=images,
    anchors=anchors,
    question=question,
    answer=answer,
    coordinate_size=_size(row.get("coordinate_size")),
    task=task,
    source=source,
    row=number,
    extra={
      k: v
      for k, v in row.items()
      # "boxes": null says as much as no "boxes".
      if k not in known and not (k in ("boxes", "labels") and v is None)
    },
  )


def _check_text(question: str, answer: str) -> None:
  for name, text in (("question", question), ("answer", answer)):
    try:
      text.encode()
    except UnicodeEncodeError as error:
      raise ValueError(
        f"{name!r}: character {error.start} is half of a surrogate pair"
        f" ({text[error.start]!r}); write it as whole UTF-8 text"
      ) from None


def _located(row, key, locate) -> tuple[File | None, ...]:
  value = row.get(key)
  if value is None:
    return ()
  names = value if isinstance(value, list) else [value]
  try:
    return tuple(None if name is None else locate(name) for name in names)
  except ValueError as error:
    raise ValueError(f"{key!r} {error}") from None


def _size(value) -> tuple[int, int] | None:
  if value is None:
    return None
  sides = value if isinstance(value, list) else [value, value]
  if len(sides) != 2 or not all(
    isinstance(s, (int, float))
    and not isinstance(s, bool)
    and math.isfinite(s)
    and s == int(s)
    and s > 0
    for s in sides
  ):
    raise ValueError(
      f"'coordinate_size' must be one side or [height, width] in pixels, got"
      f" {value!r:.60}"
    )
  return int(sides[0]), int(sides[1])


def _check_boxes(row) -> None:
  boxes, labels = row.get("boxes"), row.get("labels")
  if boxes is None:
    return
  numbers = isinstance(boxes, list) and all(
    isinstance(box, list)
    and len(box) == 4
    and all(
      isinstance(v, (int, float)) and not isinstance(v, bool) and abs(v) < 1e9
      for v in box
    )
    for box in boxes
  )
  if not numbers:
    raise ValueError("'boxes' must be a list of [x1, y1, x2, y2]")
  if not isinstance(labels, list) or len(labels) != len(boxes):
    raise ValueError("'labels' must be a list with one name per box")
  if not all(isinstance(label, str) for label in labels):
    raise ValueError("'labels' must be text")
