"""AlphaEarth bands in several files, as they are exported from Earth Engine.

A download is limited to 32 MB, so an area arrives as files of a few bands each,
on one grid. Their bands have no names: which they are is in the file's name
alone, A00_A01_A02.tif, in the order of the file. Names may lack the zero (A0,
A1, A10): they are compared as numbers, so an order sorted as text is undone.
"""

import collections
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.windows import Window

from fusar_jax.geo import gdal_files

BANDS = 64
_BAND = re.compile(r"(?<![0-9A-Za-z])A(\d{1,2})(?![0-9A-Za-z])")


def band_number(name: str) -> int | None:
  """Returns the number of a band named A00..A63, or A0..A63; None: another."""
  found = re.fullmatch(r"A(\d{1,2})", name)
  return int(found[1]) if found and int(found[1]) < BANDS else None


def bands_of(dataset: rasterio.DatasetReader, path: str) -> list[int] | None:
  """Returns the AlphaEarth bands of a file with some of them, in its order.

  Returns None for a file of 64 bands or more.

  Raises:
    ValueError: neither the bands nor the file are named.

  Example: of A00_A01_A02.tif: [0, 1, 2].
  """
  if dataset.count >= BANDS:
    return None
  described = [band_number(name or "") for name in dataset.descriptions]
  named = [int(number) for number in _BAND.findall(Path(path).stem)]
  for numbers in (described, named):
    known = [number for number in numbers if number is not None]
    if len(known) == dataset.count == len(set(known)) and max(known) < BANDS:
      return known
  raise ValueError(
    f"{BANDS} bands A00..A63 expected, found {dataset.count}, and which they"
    " are is neither in their names nor in the file's, as A00_A01_A02.tif."
  )


class SplitTile:
  """Several files on one grid, with the attributes of one rasterio dataset.

  Its bands are A00..A63. A band that is in several files, as in exports of
  overlapping triplets, is read from the first of them.

  Raises:
    ValueError: bands that are missing, or differ between files; files of
      different grids, types or nodata values.
  """

  def __init__(self, paths: Sequence[str]):
    self._files: list[rasterio.DatasetReader] = []
    try:
      for path in paths:
        self._files.append(gdal_files.open_dataset(path))
      self._check_grids(paths)
      self._places = self._find_bands(paths)
    except BaseException:
      self.close()
      raise
    first = self._files[0]
    self.crs, self.transform = first.crs, first.transform
    self.height, self.width = first.height, first.width
    self.nodata = first.nodata
    self.count = BANDS
    self.dtypes = first.dtypes[:1] * BANDS
    self.block_shapes = first.block_shapes[:1] * BANDS
    self.descriptions = tuple(f"A{band:02d}" for band in range(BANDS))

  def read(self, bands: Sequence[int], window: Any) -> np.ndarray:
    """Returns [len(bands), h, w]; bands are counted from 1, A00."""
    by_file = collections.defaultdict(list)
    for i, band in enumerate(bands):
      file, place = self._places[band - 1]
      by_file[file].append((i, place))
    out = None
    for file, wanted in by_file.items():
      order, places = zip(*wanted, strict=True)
      values = self._files[int(file)].read(list(places), window=window)
      if out is None:
        out = np.empty((len(bands), *values.shape[1:]), values.dtype)
      out[list(order)] = values
    assert out is not None, "at least one band"
    return out

  def close(self) -> None:
    for file in self._files:
      file.close()

  def _check_grids(self, paths):
    def grid(file):
      transform = tuple(file.transform)[:6]
      return str(file.crs), transform, file.shape, file.dtypes, str(file.nodata)

    first = grid(self._files[0])
    for path, file in zip(paths, self._files, strict=True):
      found = grid(file)
      if len(set(file.dtypes)) > 1 or (
        (*found[:3], found[3][0], found[4])
        != (*first[:3], first[3][0], first[4])
      ):
        raise ValueError(
          f"{path}: another grid, type or nodata than {paths[0]}: {found}"
          f" instead of {first}."
        )

  def _find_bands(self, paths) -> list[tuple[int, int]]:
    """Returns (number of the file, its band from 1) of each band."""
    places, problems = {}, []
    for i, (path, file) in enumerate(zip(paths, self._files, strict=True)):
      for place, band in enumerate(bands_of(file, path) or (), start=1):
        other = places.setdefault(band, (i, place))
        if other != (i, place) and not self._agree(other, (i, place)):
          problems.append(f"A{band:02d} differs in {paths[other[0]]}, {path}")
    missing = [f"A{n:02d}" for n in range(BANDS) if n not in places]
    if missing:
      problems.append(
        f"{len(missing)} of {BANDS} bands are missing: {', '.join(missing[:8])}"
        + ", ..." * (len(missing) > 8)
      )
    if problems:
      raise ValueError(
        f"{len(paths)} files of some bands each, on one grid: "
        + "; ".join(problems[:4])
      )
    return [places[band] for band in range(BANDS)]

  def _agree(self, one, other):
    """Returns whether two bands have equal values in their middle row."""
    row = self._files[0].height // 2
    window = Window.from_slices((row, row + 1), (0, self._files[0].width))
    values = [
      self._files[int(i)].read(band, window=window) for i, band in (one, other)
    ]
    return np.array_equal(*values, equal_nan=values[0].dtype.kind == "f")
