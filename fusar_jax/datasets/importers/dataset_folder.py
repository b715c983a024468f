"""Atomic writer of a data set folder: manifest.jsonl, dataset.json, images/.

The folder is written under a temporary name in the same parent folder and
renamed when complete. dataset.json is the data set card: source, licence,
import options, the hash of every image, byte-identical images, and the number
of rejected entries. rejected.txt lists the rejected entries.
"""

import collections
import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from fusar_jax.data.triplets import (
  raise_together,
  write_manifest,
  write_text,
)
from fusar_jax.datasets.importers import duplicates, image_files


@dataclasses.dataclass(frozen=True)
class Picture:
  """An image and the rows that ask about it.

  Attributes:
    file: its path.
    name: its path below images/, if it is copied; "/" between folders.
    rows: manifest rows. "image" may list the files of several pictures;
      without it, the row has this picture alone.
    encode: returns the bytes to write instead of those of `file`; the image is
      then always written.
  """

  file: Path
  name: str
  rows: Sequence[Mapping]
  encode: Callable[[], bytes] | None = None


@dataclasses.dataclass(frozen=True)
class Origin:
  """Source and licence of the data, as given by the user; None: not known.

  Attributes:
    source: citation of the source.
    license: the terms; "none stated" where the source is known to state none.

  Raises:
    ValueError: one of them is blank.
  """

  source: str | None = None
  license: str | None = None

  def __post_init__(self):
    given = dataclasses.asdict(self).items()
    blank = [k for k, v in given if v is not None and not v.strip()]
    if blank:
      raise ValueError(
        f"{' and '.join(blank)} of the data is blank; leave it out if it is not"
        ' known, and give "none stated" for a source that states no terms.'
      )


def write_rejected(folder: Path, rejected: Sequence[str]) -> None:
  """Lists rejected entries in FOLDER/rejected.txt, if there are any."""
  if rejected:
    write_text(folder / "rejected.txt", "".join(f"{r}\n" for r in rejected))


def write_dataset(
  folder: Path,
  pictures: Sequence[Picture],
  origin: Origin,
  description: Mapping,
  *,
  copy: bool = False,
  rejected: Sequence[str] = (),
  digests: Mapping[Path, str] | None = None,
) -> None:
  """Fills a new folder (see `io.atomic_write.new_folder`).

  Args:
    folder: to fill.
    pictures: each image once.
    origin: of the data.
    description: additional fields of the card, "importer" first.
    copy: True copies the images to FOLDER/images; False refers to their
      original paths.
    rejected: entries of the source that are not in `pictures`, with reasons.
    digests: hashes of the image files, if already known.

  Raises:
    ValueError: no image, or a duplicate id or name.
  """
  if not pictures:
    raise_together(rejected, "nothing is left to import")
    raise ValueError("nothing to import: the source names no image.")
  _check_unique(pictures, copy)
  digests = digests or image_files.digests(picture.file for picture in pictures)
  paths = {
    picture.file: f"images/{picture.name}"
    if copy or picture.encode
    else _relative(picture.file, folder)
    for picture in pictures
  }
  rows, hashes = [], {}
  for picture in pictures:
    path = paths[picture.file]
    hashes[path] = digests[picture.file]
    for row in picture.rows:
      files = [paths[file] for file in row.get("image", (picture.file,))]
      files = files if len(files) > 1 else files[0]
      rows.append({"id": row["id"], "image": files, **row} | {"image": files})
    if copy or picture.encode:
      (folder / path).parent.mkdir(parents=True, exist_ok=True)
    if picture.encode:
      content = picture.encode()
      (folder / path).write_bytes(content)
      hashes[path] = hashlib.sha256(content).hexdigest()
    elif copy:
      shutil.copyfile(picture.file, folder / path)
  card = {
    "importer": description["importer"],
    **dataclasses.asdict(origin),
    **description,
    "images": len(pictures),
    "rows": len(rows),
    "rejected": len(rejected),
    "identical_images": [
      list(copies.names) for copies in duplicates.find_copies(hashes)
    ],
    "sha256": hashes,
  }
  write_rejected(folder, rejected)
  write_text(
    folder / "dataset.json",
    json.dumps(card, indent=1, ensure_ascii=False) + "\n",
  )
  write_manifest(folder / "manifest.jsonl", rows)


def _check_unique(pictures, copy) -> None:
  ids = collections.Counter(row["id"] for p in pictures for row in p.rows)
  files = collections.Counter(str(p.file) for p in pictures)
  # Names must differ in more than case: some file systems ignore case.
  names = collections.Counter(
    p.name.lower() for p in pictures if copy or p.encode
  )
  raise_together(
    [
      f"{what} {key!r}: {count} times"
      for what, counts in (("id", ids), ("image", files), ("copy", names))
      for key, count in counts.items()
      if count > 1
    ],
    "ids and images must differ",
  )


def _relative(file: Path, folder: Path) -> str:
  return Path(os.path.relpath(file.resolve(), folder.resolve())).as_posix()
