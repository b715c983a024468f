"""Writing a data set folder: manifest.jsonl, dataset.json, images/.

A folder appears whole or not at all: it is written beside its place under
another name and renamed once everything stands. dataset.json is the card of the
data set: where it comes from, under which terms, what was imported how, the
hash of every image, the images that share their bytes, and how many entries
were refused. What was refused is listed in refused.txt.
"""

import collections
import contextlib
import dataclasses
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from fusar_jax.data.importers import duplicates, image_files
from fusar_jax.data.triplets import (
  raise_together,
  write_manifest,
  write_text,
)


@dataclasses.dataclass(frozen=True)
class Picture:
  """An image and the rows that ask about it.

  Attributes:
    file: where it lies.
    name: its path below images/, if it is copied; "/" between folders.
    rows: of the manifest, all but their "image".
  """

  file: Path
  name: str
  rows: Sequence[Mapping]


@dataclasses.dataclass(frozen=True)
class Origin:
  """Whose data these are, in the importing person's words.

  Attributes:
    source: where they come from, to be cited.
    license: the terms; "none stated" where the source states none.

  Raises:
    ValueError: one of them is blank.
  """

  source: str
  license: str

  def __post_init__(self):
    blank = [k for k, v in dataclasses.asdict(self).items() if not v.strip()]
    if blank:
      raise ValueError(
        f"{' and '.join(blank)} of the data must be told; where the source"
        ' states no terms, say "none stated".'
      )


def require_new(out: str | os.PathLike) -> Path:
  """Returns the path of a folder to make.

  Raises:
    FileExistsError: something is there already.
  """
  out = Path(out)
  if (out.is_dir() and any(out.iterdir())) or out.is_file():
    raise FileExistsError(f"{out} is not empty; give a new folder.")
  return out


@contextlib.contextmanager
def staged(out: str | os.PathLike) -> Iterator[Path]:
  """Yields a new folder that becomes OUT if the body ends without an error.

  It lies beside OUT, so that relative paths from it hold from OUT too.

  Raises:
    FileExistsError: something is there already.
  """
  out = require_new(out)
  out.parent.mkdir(parents=True, exist_ok=True)
  # Not by tempfile.mkdtemp, whose mode 0700 would stay with the folder.
  stage = out.with_name(f"{out.name}.{uuid.uuid4().hex}.part")
  stage.mkdir()
  try:
    yield stage
    if out.is_dir():
      out.rmdir()
    os.rename(stage, out)
  except BaseException:
    shutil.rmtree(stage, ignore_errors=True)
    raise


def write_dataset(
  folder: Path,
  pictures: Sequence[Picture],
  origin: Origin,
  description: Mapping,
  *,
  copy: bool = False,
  refused: Sequence[str] = (),
  digests: Mapping[Path, str] | None = None,
) -> None:
  """Fills a new folder (see `staged`).

  Args:
    folder: to fill.
    pictures: each image once.
    origin: of the data.
    description: what the card tells besides, "importer" first.
    copy: copy the images to FOLDER/images instead of pointing to where they
      are.
    refused: entries of the source that are not in `pictures`, and why.
    digests: of the pictures' files, if they are known already.

  Raises:
    ValueError: no picture, or an id or a name that occurs twice.
  """
  if not pictures:
    raise_together(refused, "nothing is left to import")
    raise ValueError("nothing to import: the source names no image.")
  _check_unique(pictures, copy)
  digests = digests or image_files.digests(picture.file for picture in pictures)
  rows, hashes = [], {}
  for picture in pictures:
    path = f"images/{picture.name}" if copy else _relative(picture.file, folder)
    hashes[path] = digests[picture.file]
    rows += [
      {"id": row["id"], "image": path, **row} for row in map(dict, picture.rows)
    ]
    if copy:
      (folder / path).parent.mkdir(parents=True, exist_ok=True)
      shutil.copyfile(picture.file, folder / path)
  card = {
    "importer": description["importer"],
    **dataclasses.asdict(origin),
    **description,
    "images": len(pictures),
    "rows": len(rows),
    "refused": len(refused),
    "identical_images": [
      list(copies.names) for copies in duplicates.find_copies(hashes)
    ],
    "sha256": hashes,
  }
  if refused:
    write_text(folder / "refused.txt", "".join(f"{r}\n" for r in refused))
  write_text(
    folder / "dataset.json",
    json.dumps(card, indent=1, ensure_ascii=False) + "\n",
  )
  write_manifest(folder / "manifest.jsonl", rows)


def _check_unique(pictures, copy) -> None:
  ids = collections.Counter(row["id"] for p in pictures for row in p.rows)
  files = collections.Counter(str(p.file) for p in pictures)
  # Names differ in more than case: not every file system tells them apart.
  names = collections.Counter(p.name.lower() for p in pictures if copy)
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
