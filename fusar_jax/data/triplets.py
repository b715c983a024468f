"""Manifests of triplets: image, AlphaEarth anchors, question and answer.

A manifest is a JSON list or a JSON Lines file with one row per triplet, in the
official layout of FUSAR-GPT: {"id", "image", "aef", "coordinate_size",
"question", "answer"}. Paths are relative to the manifest. "image" and "aef" may
be lists (several images). Without "aef" the image is unmodulated. "answer" may
be any JSON value and is required in training only (`require_answers`). See
`fusar_jax.data.manifest_row`. The importers add "task", "boxes" and "labels".

A manifest path may also be a pattern of ArrayRecord shards, such as
FOLDER/*.array_record, or a split of a TFDS data set, such as FOLDER/train; see
`fusar_jax.datasets.shards` and `fusar_jax.datasets.tfds_fusar`.
"""

import fnmatch
import glob
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from fusar_jax.data import records
from fusar_jax.data import tfds_reading as reading
from fusar_jax.data.manifest_row import Triplet, parse_row
from fusar_jax.data.records import File
from fusar_jax.io import object_store, strict_json
from fusar_jax.io.atomic_write import write_atomically

# Limit of the errors that one exception lists.
_MAX_LISTED = 20


def read_manifest(path: str | os.PathLike) -> list[Triplet]:
  """Returns the triplets of a manifest, in its order.

  Args:
    path: JSON, JSON Lines, shards (one or a pattern), or a split of TFDS.

  Raises:
    FileNotFoundError: no such manifest.
    ValueError: an empty manifest, or bad rows, reported together by row.
  """
  triplets, rejected = read_manifest_leniently(path)
  raise_together(rejected, f"{path}: rejected rows")
  return triplets


def read_manifests(paths: str) -> list[Triplet]:
  """Returns the triplets of one or several comma-separated manifests.

  Raises:
    FileNotFoundError: a manifest is missing.
    ValueError: bad rows, or an id that occurs in two manifests.
  """
  triplets, owners, twice = [], {}, []
  for path in split_paths(paths):
    for triplet in read_manifest(path):
      if triplet.id in owners:
        twice.append(f'id "{triplet.id}": in {owners[triplet.id]} and {path}')
      owners[triplet.id] = path
      triplets.append(triplet)
  raise_together(
    twice,
    "ids must differ between manifests (a row without 'id' has the number of"
    " its row)",
  )
  return triplets


def require_answers(triplets: Iterable[Triplet]) -> None:
  """Checks that every row has an answer, as training and scoring require.

  Raises:
    ValueError: rows without an answer, reported together.
  """
  raise_together(
    [row.where for row in triplets if row.answer is None],
    "rows without 'answer', which only prediction can do without",
  )


def split_paths(paths: str) -> list[str]:
  """Returns the paths of "a.jsonl,b.jsonl"."""
  return [path.strip() for path in paths.split(",") if path.strip()]


def manifest_files(path: str | os.PathLike) -> list[Path]:
  """Returns the files that `read_manifest(path)` reads, in order.

  These are the path itself, or the shards that match a pattern.

  Raises:
    ValueError: the pattern matches an incomplete set of shards.
  """
  path = local_manifest(path)
  if not glob.has_magic(str(path)) or path.exists():
    return [path]
  found = sorted(map(Path, glob.glob(str(path))))
  records.check_complete(found, str(path))
  return found or [path]


def local_manifest(path: str | os.PathLike) -> Path:
  """Returns a manifest's path, of gs://BUCKET/PATH that of its local copy.

  The folder of a copy also has the dataset.json or TFDS split next to it.

  Raises:
    OSError: the bucket cannot be read.
  """
  if not object_store.is_url(path):
    return Path(path)
  folder, _, name = str(path).rpartition("/")
  found = object_store.listing(folder, below=False)
  if "features.json" in found and name not in found:
    return object_store.fetch_folder(folder) / name
  chosen = fnmatch.filter(found, name)
  if not chosen:
    raise FileNotFoundError(f"manifest not found: {path}")
  wanted = {n: found[n] for n in (*chosen, "dataset.json") if n in found}
  return object_store.fetch(folder, wanted) / name


def is_readable(path: Path) -> bool:
  """Returns whether a path of `manifest_files` exists."""
  return path.is_file() or reading.is_split(path)


def manifest_bytes(path: Path) -> bytes:
  """Returns the content of a path of `manifest_files`.

  For an archive this is only its table of contents, which includes the hash of
  every image.
  """
  table = _table(path)
  return path.read_bytes() if table is None else table.content


def read_manifest_leniently(
  path: str | os.PathLike,
) -> tuple[list[Triplet], list[str]]:
  """Returns (valid triplets, one message per rejected row).

  Raises:
    FileNotFoundError: no such manifest.
    ValueError: the file is not JSON or has no rows, or a shard is corrupt.
  """
  triplets, rejected, seen = [], [], {}
  files = manifest_files(path)
  for file in files:
    rows, bad, locate = _open(file)
    within = f"{file.name} " if len(files) > 1 else ""
    rejected += [f"{within}{message}" for message in bad]
    for number, row in rows:
      place = f"{within}row {number}"
      try:
        triplet = parse_row(row, number, file, locate)
        if triplet.id in seen:
          raise ValueError(
            f'id "{triplet.id}" was used by {seen[triplet.id]} already'
          )
      except ValueError as error:
        rejected.append(f"{place}: {error}")
        continue
      seen[triplet.id] = place
      triplets.append(triplet)
  _fetch_files(triplets)
  if not triplets and not rejected:
    raise ValueError(
      f"{path}: the manifest is empty; expected one row per triplet."
    )
  return triplets, rejected


def write_manifest(path: str | os.PathLike, rows: Iterable[Mapping]) -> None:
  """Writes rows atomically, as JSON Lines or (.json) as a JSON list.

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
  """Writes a UTF-8 text file atomically."""
  content = text.encode("utf-8")
  write_atomically(path, lambda file: file.write(content))


def raise_together(problems: Sequence[str], head: str) -> None:
  """Raises one ValueError that lists all problems, if there are any."""
  if not problems:
    return
  lines = "\n".join(f"  {problem}" for problem in problems[:_MAX_LISTED])
  if len(problems) > _MAX_LISTED:
    lines += f"\n  ... and {len(problems) - _MAX_LISTED} more"
  raise ValueError(f"{head} ({len(problems)}):\n{lines}")


def _fetch_files(triplets: Iterable[Triplet]) -> None:
  """Downloads the images and anchors of a manifest in a bucket."""
  if not any(map(object_store.url_of, {t.source for t in triplets})):
    return
  files = {
    os.path.normpath(file)
    for triplet in triplets
    for file in (*triplet.images, *triplet.anchors)
    if isinstance(file, Path)
  }
  urls = (object_store.url_of(Path(file)) for file in sorted(files))
  object_store.fetch_files(url for url in urls if url)


def _open(path: Path):
  """Returns ([(row number, value)], rejected, locator of a row's files)."""
  table = _table(path)
  if table is not None:
    return list(enumerate(table.rows, start=1)), [], _in_table(table)
  if not path.is_file():
    folder = path.is_dir()
    hint = f"; it is a folder, give a file such as {path / 'manifest.jsonl'}"
    raise FileNotFoundError(f"manifest not found: {path}{hint * folder}")
  return *_rows(path), _in_folder(path.parent)


def _table(path: Path) -> records.Table | None:
  """Returns the contents of an archive, or None for a manifest."""
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
  """Returns ([(row number, value)], rejected) of either layout."""
  text = strict_json.read_text(path)
  if text.lstrip().startswith("["):
    try:
      return list(enumerate(strict_json.parse(text), start=1)), []
    except ValueError as error:
      raise ValueError(f"{path}: not a JSON list: {error}") from None
  rows, rejected = [], []
  # Not splitlines(): JSON strings may contain U+2028 and similar characters.
  for number, line in enumerate(text.split("\n"), start=1):
    if line.strip():
      try:
        rows.append((number, strict_json.parse(line)))
      except ValueError as error:
        rejected.append(f"row {number}: not JSON: {error}")
  return rows, rejected
