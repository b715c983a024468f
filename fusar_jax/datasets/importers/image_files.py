"""Safe lookup and size checks of image files that annotations refer to.

Names in annotation files are untrusted input. A name that leaves its data
folder, through "..", an absolute path or a link, is rejected. Otherwise an
import could copy any file of the machine into a data set.
"""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from fusar_jax.data import vision
from fusar_jax.data.records import sha256_of
from fusar_jax.io.list_files import files_below

EXTENSIONS = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp")


def inside(folder: str | os.PathLike, name: str) -> Path:
  """Returns FOLDER/NAME.

  Raises:
    ValueError: not a file name, or one that leaves the folder.
  """
  if not isinstance(name, str) or not name.strip() or "\0" in name:
    raise ValueError(f"expected the name of an image, got {name!r:.60}")
  path = Path(folder, name)
  # Links are resolved, because an untrusted link may point anywhere. ".." is
  # always rejected: the path of a copy is derived from the name.
  if (
    Path(name).is_absolute()
    or ".." in Path(name).parts
    or not path.resolve().is_relative_to(Path(folder).resolve())
  ):
    raise ValueError(
      f"{name!r:.80} leaves the data folder {folder}; give a folder that holds"
      ' all images, and names without ".." and links out of it'
    )
  return path


def named(folder: str | os.PathLike, name: str) -> Path:
  """Returns the image FOLDER/NAME that an annotation refers to.

  Raises:
    ValueError: see `inside`. FileNotFoundError: no such file.
  """
  path = inside(folder, name)
  if not path.is_file():
    raise FileNotFoundError(f"image not found: {path}")
  return path


def with_stem(folder: str | os.PathLike, stem: str) -> Path:
  """Returns the image FOLDER/STEM.*, whatever its extension.

  Raises:
    FileNotFoundError: no match.
    ValueError: several matches, or the stem is a path.
  """
  if Path(stem).name != stem:
    raise ValueError(f"{stem!r:.80}: a name must not be a path")
  endings = [*EXTENSIONS, *map(str.upper, EXTENSIONS)]
  # On case-insensitive file systems both spellings are one file.
  found = {
    path.name.lower(): path
    for path in (inside(folder, f"{stem}{ending}") for ending in endings)
    if path.is_file()
  }
  if not found:
    raise FileNotFoundError(f"image not found: {Path(folder, stem)}.*")
  if len(found) > 1:
    raise ValueError(f"several images of one name: {', '.join(sorted(found))}")
  return next(iter(found.values()))


def listed(folder: str | os.PathLike) -> list[Path]:
  """Returns all images in a folder, recursively, sorted by path.

  Raises:
    FileNotFoundError, PermissionError: no such folder, or one that cannot be
      read. ValueError: a link out of it.
  """
  folder = Path(folder)
  if not folder.is_dir():
    raise FileNotFoundError(f"folder not found: {folder}")
  return [
    inside(folder, path.relative_to(folder).as_posix())
    for path in files_below(folder)
    if path.suffix.lower() in EXTENSIONS and path.is_file()
  ]


def stems(folder: str | os.PathLike) -> set[str]:
  """Returns the names, without extension, of images directly in a folder."""
  return {p.stem for p in listed(folder) if p.parent == Path(folder)}


def check_size(file: Path, stated: Sequence[float]) -> tuple[int, int]:
  """Returns a file's (height, width); raises ValueError if not as stated."""
  actual = vision.image_size(file)
  if tuple(stated) != actual:
    raise ValueError(
      f"the annotation states {stated[0]} x {stated[1]} pixels (height x"
      f" width), but {file.name} has {actual[0]} x {actual[1]}"
    )
  return actual


def digests(files: Iterable[Path]) -> dict[Path, str]:
  """Returns the SHA-256 hex digest of each file."""
  return {path: sha256_of(path) for path in files}
