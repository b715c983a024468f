"""Terms of a base model, as its folder states them; nothing is guessed."""

import re
import shutil
from pathlib import Path
from typing import NamedTuple

_NAMES = re.compile(r"(?:LICEN[CS]E|NOTICE|COPYING)(?:[.-][\w.-]+)?", re.I)
_FRONT = re.compile(r"\A---\n(.*?)\n---", re.S)
_FIELD = re.compile(r"^license:[ \t]*['\"]?([\w.+-]+)['\"]?[ \t]*$", re.M)
_MAX_BYTES = 1_000_000


class Terms(NamedTuple):
  """What a folder says of its licence.

  Attributes:
    identifier: of the front matter of its README.md, for instance
      "apache-2.0"; None: it names none.
    files: its licence and notice files.
  """

  identifier: str | None = None
  files: tuple[Path, ...] = ()


def read_terms(folder: Path | None) -> Terms:
  """Returns the terms of a model folder; None, or a folder without: none."""
  if folder is None or not Path(folder).is_dir():
    return Terms()
  files = tuple(
    path
    for path in sorted(Path(folder).iterdir())
    if _NAMES.fullmatch(path.name)
    and path.is_file()
    and path.stat().st_size <= _MAX_BYTES
  )
  return Terms(_identifier(Path(folder) / "README.md"), files)


def copy_terms(terms: Terms, folder: Path) -> None:
  """Copies the licence and notice files into an exported folder."""
  for path in terms.files:
    shutil.copyfile(path, Path(folder) / path.name)


def _identifier(readme: Path) -> str | None:
  if not readme.is_file() or readme.stat().st_size > _MAX_BYTES:
    return None
  text = readme.read_text(encoding="utf-8", errors="replace")
  front = _FRONT.match(text)
  field = front and _FIELD.search(front[1])
  return field[1] if field else None
