"""Discovery of AlphaEarth tiles in a folder, an index, or single files.

The published index has 300,000 rows: they are stored as columns, and bounds in
longitude and latitude are computed only for the requested years. Given the
bounds of the scenes, only rows of tiles there are kept.
"""

import collections
import dataclasses
import functools
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from fusar_jax.geo import alphaearth_index_files as index_files
from fusar_jax.geo import alphaearth_index_rows as index_rows
from fusar_jax.geo import alphaearth_tiles as tiles
from fusar_jax.geo import band_files, gdal_files, georeference, zarr_mosaic
from fusar_jax.geo.block_cache import BlockCache
from fusar_jax.geo.gdal_files import without_secrets
from fusar_jax.io.list_files import files_below

_RASTERS = (".tif", ".tiff")
# Four digits as a separate word: real file names are hashes with digits.
_YEAR = re.compile(r"(?<![0-9A-Za-z])(20\d\d)(?![0-9A-Za-z])")
_MAX_LISTED = 20
_RING = 8  # Steps on each edge: edges of UTM are curved in degrees.


Bounds = index_files.Bounds


@dataclasses.dataclass(frozen=True, eq=False)
class TileTable:
  """All tiles of an archive, in order of discovery.

  Attributes:
    origin: the source as given by the user, for messages.
    paths: as GDAL opens them.
    years: int16[n].
    crs: one of "EPSG:..." or WKT a tile.
    bounds: float64[n, 4], west, south, east, north; in the tile's CRS, or in
      degrees where `degrees`.
    degrees: bool[n].
    others: further files of tiles whose bands are in several, by path.
  """

  origin: str
  paths: Sequence[str]
  years: np.ndarray
  crs: Sequence[str]
  bounds: np.ndarray
  degrees: np.ndarray
  others: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)

  @functools.cached_property
  def all_years(self) -> tuple[int, ...]:
    return tuple(int(year) for year in np.unique(self.years))

  def of_year(self, year: int) -> np.ndarray:
    """Returns int[m], the rows of that year.

    Raises:
      ValueError: no tile of that year; the message lists the available years.
    """
    rows = np.flatnonzero(self.years == year)
    if not len(rows):
      there = ", ".join(map(str, self.all_years))
      raise ValueError(
        f"{self.origin}: no AlphaEarth tiles of {year}; years there are:"
        f" {there}."
      )
    return rows

  def lonlat_bounds(self, rows: np.ndarray) -> np.ndarray:
    """Returns float64[m, 4] in degrees, slightly enlarged.

    East is larger than west, and exceeds 180 across the date line.
    """
    out = self.bounds[rows].copy()
    systems = np.array([self.crs[row] for row in rows])
    for system in np.unique(systems[~self.degrees[rows]]):
      at = np.flatnonzero((systems == system) & ~self.degrees[rows])
      out[at] = _degrees(str(system), out[at])
    out[:, 2] += 360 * (out[:, 2] < out[:, 0])
    return out


def find_tiles(
  source: str | os.PathLike | Sequence[str | os.PathLike],
  year: int | None = None,
  cache: BlockCache | None = None,
  *,
  within: Sequence[Bounds] | None = None,
  progress: index_files.Progress | None = None,
) -> TileTable:
  """Returns the tiles of one source or of several.

  Args:
    source: a folder of GeoTIFFs (searched recursively; the bands of a tile may
      be in several, see `band_files`), a Zarr group, an index (file or
      URL, see `alphaearth_index_files`), a raster (file, URL, /vsi... path), or
      a list of those.
    year: year of rasters whose path contains none. A year is four separate
      digits in the file name (aef_2024_32N.tif), else in the innermost folder
      that has them (annual/2024/32N/x.tif).
    cache: caches the headers of remote rasters.
    within: bounds, degrees; rows of an index whose tiles touch none of them are
      left out, as far as their bounds are stated in degrees. None: all rows.
    progress: called while an index is read, with (name, bytes read, size).

  Raises:
    FileNotFoundError: no such file or folder.
    ImportError: a Parquet or GeoPackage index without the extra `geo`.
    PermissionError, ConnectionError: a URL that is denied or does not answer.
    ValueError: no tiles; a tile without a year, or with two; files that are not
      AlphaEarth tiles; unreadable rows. One message lists all problems.
  """
  given = [source] if isinstance(source, str | os.PathLike) else source
  sources = [os.fspath(one) for one in given]
  found, problems = [], []
  parts = collections.defaultdict(list)
  for one in sources:
    if index_files.is_index(one):
      found += _index_rows(one, problems, within, progress)
    elif zarr_mosaic.is_mosaic(one):
      found += _mosaic_rows(one, cache)
    else:
      found += _raster_rows(one, year, cache, problems, parts)
  shown = [without_secrets(one) for one in sources[:3]]
  origin = ", ".join(shown) + ", ..." * (len(sources) > 3)
  others = _join_parts(parts, found, problems)
  problems += _twice(found)
  if problems:
    listed = problems[:_MAX_LISTED]
    listed += [f"... and {len(problems) - _MAX_LISTED} more"] * (
      len(problems) > _MAX_LISTED
    )
    raise ValueError(
      f"{origin}: problems with AlphaEarth tiles ({len(problems)}):\n  "
      + "\n  ".join(listed)
    )
  if not found and within and any(map(index_files.is_index, sources)):
    listed = "; ".join(
      f"longitude {west:.4f} to {east:.4f}, latitude {south:.4f} to {north:.4f}"
      for west, south, east, north in within[:3]
    )
    raise ValueError(
      f"{origin}: no AlphaEarth tile at the scenes ({listed}): tiles of other"
      " places only."
    )
  if not found:
    raise ValueError(
      f"{origin or 'no source'}: no AlphaEarth tile; expected a folder with"
      " GeoTIFFs (.tif, .tiff), an index (.csv, .parquet, .gpkg) or a"
      " raster."
    )
  paths, years, crs, bounds, degrees = zip(*found, strict=True)
  return TileTable(
    origin=origin,
    paths=paths,
    years=np.array(years, np.int16),
    crs=crs,
    bounds=np.array(bounds, np.float64),
    degrees=np.array(degrees),
    others=others,
  )


def _mosaic_rows(source, cache):
  """Returns a row for each year of a mosaic."""
  root = tiles.gdal_path(source.rstrip("/"))
  paths = [(f"{root}#{year}", year) for year in zarr_mosaic.years_of(root)]
  reader = tiles.TileReader(paths[0][0], cache)
  crs, bounds = reader.header.crs, reader.header.bounds
  degrees = georeference.parse_crs(crs).is_geographic
  return [(path, year, crs, bounds, degrees) for path, year in paths]


def _raster_rows(source, year, cache, problems, parts):
  """Returns rows of rasters; those of some bands are added to `parts`."""
  remote = tiles.is_remote(source)
  if not remote and not Path(source).exists():
    raise FileNotFoundError(f"AlphaEarth source not found: {source}")
  if not remote and Path(source).is_dir():
    root = Path(source)
    paths = [
      path
      for path in files_below(root)
      if path.suffix.lower() in _RASTERS and path.is_file()
    ]
    # The folder's name may be the year; its parents are not considered.
    named = [path.relative_to(root.parent) for path in paths]
  else:
    paths, named = [source], [Path("/", source)]
  rows = []
  for path, name in zip(paths, named, strict=True):
    try:
      found = _year_of(name, year)
      # The bands of published tiles are all in one file.
      if not remote and (part := _part_of(str(path), found)):
        parts[part[0]].append(part[1])
        continue
      reader = tiles.TileReader(str(path), cache)
      header = reader.header
      reader.close()
    except ValueError as error:
      text, shown = str(error), without_secrets(str(path))
      problems.append(text if shown in text else f"{shown}: {text}")
      continue
    opened = tiles.gdal_path(str(path))
    rows.append((opened, found, header.crs, header.bounds, False))
  return rows


def _part_of(path, year):
  """Returns what the files of one tile have in common; None: all bands."""
  opened = tiles.gdal_path(path)
  with gdal_files.open_dataset(opened) as dataset:
    bands = band_files.bands_of(dataset, path)
    if bands is None:
      return None
    place = str(dataset.crs), tuple(dataset.transform), dataset.shape
    return (os.path.dirname(path), year, *place), (opened, bands)


def _join_parts(parts, found, problems):
  """Adds a row for each tile in several files; returns its other files."""
  others = {}
  for (_, year, *_), files in parts.items():
    files = sorted(files, key=lambda file: file[1])
    first, *rest = (path for path, _ in files)
    try:
      reader = tiles.TileReader(first, others=rest)
      header = reader.header
      reader.close()
    except ValueError as error:
      text, shown = str(error), without_secrets(first)
      problems.append(text if shown in text else f"{shown}: {text}")
      continue
    found.append((first, year, header.crs, header.bounds, False))
    others[first] = tuple(rest)
  return others


def _year_of(path, given):
  """Returns the year in the file name, else in the innermost folder."""
  in_name, *in_folders = (
    set(_YEAR.findall(part.replace("_", " ")))
    for part in (path.stem, *reversed(path.parts[:-1]))
  )
  # A folder name with several years (2017-2024) is ambiguous.
  in_folder = next((years for years in in_folders if len(years) == 1), set())
  # Parent folders of an absolute path may contain unrelated years.
  if in_name and path.is_absolute():
    in_folder = set()
  years = {int(year) for year in in_name | in_folder}
  years |= {given} if given is not None else set()
  if len(years) > 1:
    raise ValueError(
      f"mixed years: {sorted(years)} in its name, its folders or the year"
      " given; a tile has one year."
    )
  if not years:
    raise ValueError(
      "its year is not in its name (aef_2024.tif) nor in a folder's"
      " (2024/x.tif); name it so, or give the year."
    )
  return years.pop()


def _index_rows(source, problems, within, progress):
  """Returns the rows of an index, of the tiles within bounds only."""
  rows = []
  for number, row in index_files.read_index(source, within, progress):
    try:
      rows.append(index_rows.parse_row(row, source))
    except ValueError as error:
      shown = without_secrets(source)
      problems.append(f"{shown} row {number}: {error}")
  return rows


def _twice(rows):
  """Returns problems: files that are listed under two years."""
  years, problems = {}, []
  for path, year, *_ in rows:
    if years.setdefault(path, year) != year:
      shown = without_secrets(path)
      problems.append(f"{shown}: mixed years: {years[path]} and {year}")
  return problems


def _degrees(crs, bounds):
  """Returns float64[n, 4] in degrees that enclose bounds in the CRS."""
  west, south, east, north = bounds.T[:, :, None]
  t = np.arange(_RING) / _RING
  x = np.concatenate(
    [
      west + t * (east - west),
      east + 0 * t,
      east + t * (west - east),
      west + 0 * t,
    ],
    axis=1,
  )
  y = np.concatenate(
    [
      south + 0 * t,
      south + t * (north - south),
      north + 0 * t,
      north + t * (south - north),
    ],
    axis=1,
  )
  lons, lats = georeference.reproject(crs, georeference.LONLAT, x, y)
  lons = np.unwrap(lons.reshape(x.shape), period=360, axis=1)
  lats = lats.reshape(x.shape)
  # Upper bound of how far an edge bulges between two steps.
  margin = 0.02 * np.ptp(lats, axis=1) + 1e-9
  return np.stack(
    [
      lons.min(axis=1) - margin,
      lats.min(axis=1) - margin,
      lons.max(axis=1) + margin,
      lats.max(axis=1) + margin,
    ],
    axis=1,
  )
