"""From the paths that a user gives to scenes with unique names."""

import collections
import os
import re
from collections.abc import Sequence
from pathlib import Path

from fusar_jax.geo import stac
from fusar_jax.geo.band_stack import check_exists

# File names are limited to 255 bytes, and tiles add a suffix.
_NAME_BYTES = 150


def scene_paths(paths: Sequence[str | os.PathLike]) -> list[Path]:
  """Returns one path per scene: collections of STAC items hold several.

  Raises:
    FileNotFoundError, ValueError: a path that is no file, or not STAC.
  """
  paths = [Path(path) for path in paths]
  for path in paths:
    check_exists(path)
  return [scene for path in paths for scene in stac.expand(path)]


def names_of(paths: Sequence[Path]) -> list[str]:
  """Returns unique names that are valid folder names.

  Equal file names, common in products, are prefixed with their parent folders.

  Raises:
    ValueError: a file is named twice.

  Example:
    >>> names_of([Path("a/vv.tif"), Path("b/vv.tif"), Path("b/vh 1.tif")])
    ['a-vv', 'b-vv', 'b-vh_1']
  """
  # URLs may differ in their queries alone, items of two files in the files.
  given = [
    path if stac.is_url(path) or stac.is_item(path) else _product_path(path)
    for path in paths
  ]
  given = [p if stac.is_url(p) else p.resolve() for p in given]
  counts = collections.Counter(given)
  twice = [stac.shown(path) for path, n in counts.items() if n > 1]
  if twice:
    raise ValueError(f"scenes named twice: {', '.join(twice)}.")
  whole = [_product_path(path).resolve() for path in paths]
  deepest = max((len(path.parts) for path in whole), default=0)
  for depth in range(1, deepest + 1):
    names = [_fit([*p.parts[:-1], p.stem][-depth:]) for p in whole]
    if len({name.lower() for name in names}) == len(names):
      return names
  raise ValueError(
    "scenes whose paths cannot be distinguished:"
    f" {', '.join(map(stac.shown, given))}; rename them, or download them."
  )


def _product_path(path: Path) -> Path:
  """The path whose name is the scene's."""
  if stac.is_item(path):
    file, _, item = stac.shown(path).partition("#")
    return Path(file).parent / item.replace("/", "_") if item else Path(file)
  # All manifests of products have one name.
  manifest = path.name.lower() == "manifest.safe"
  return path.parent if manifest else Path(stac.shown(path))


def _fit(parts) -> str:
  """Returns a name of letters, digits, "-", "_" and "." only."""
  name = re.sub(r"[^\w.-]+", "_", "-".join(parts)).strip("._-") or "scene"
  return name.encode()[-_NAME_BYTES:].decode(errors="ignore")
