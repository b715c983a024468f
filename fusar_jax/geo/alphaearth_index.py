"""Discovery of AlphaEarth tiles in a folder, an index, or single files.

An index is a table (CSV, Parquet or GeoPackage) with one row per tile: `path`,
`year`, `crs` and its bounds, either in one column `bounds` (west, south, east,
north in the tile's CRS) or in four, utm_west .. utm_north (in the tile's CRS)
or wgs84_west .. wgs84_north (degrees), as in the published index. Paths may be
files (relative to the index), URLs, or GDAL's /vsigs/, /vsicurl/ and the like.

The published index has 300,000 rows: they are stored as columns, and bounds in
longitude and latitude are computed only for the requested years.
"""

import csv
import dataclasses
import functools
import itertools
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fusar_jax.geo import alphaearth_tiles as tiles
from fusar_jax.geo import georeference
from fusar_jax.geo.block_cache import BlockCache
from fusar_jax.geo.gdal_files import without_secrets
from fusar_jax.io.list_files import files_below

INDEXES = (".csv", ".parquet", ".pq", ".gpkg")
_RASTERS = (".tif", ".tiff")
_PREFIXES = ("utm_", "wgs84_", "")
_EDGES = ("west", "south", "east", "north")
# Four digits as a separate word: real file names are hashes with digits.
_YEAR = re.compile(r"(?<![0-9A-Za-z])(20\d\d)(?![0-9A-Za-z])")
_MAX_LISTED = 20
_BATCH = 10_000  # Rows of an index that are Python objects at a time.
_RING = 8  # Steps on each edge: edges of UTM are curved in degrees.


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
  """

  origin: str
  paths: Sequence[str]
  years: np.ndarray
  crs: Sequence[str]
  bounds: np.ndarray
  degrees: np.ndarray

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
) -> TileTable:
  """Returns the tiles of one source or of several.

  Args:
    source: a folder of GeoTIFFs (searched recursively), an index, a raster
      (file, URL, /vsi... path), or a list of those.
    year: year of rasters whose path contains none. A year is four separate
      digits in the file name (aef_2024_32N.tif), else in the innermost folder
      that has them (annual/2024/32N/x.tif).
    cache: caches the headers of remote rasters.

  Raises:
    FileNotFoundError: no such file or folder.
    ImportError: a Parquet or GeoPackage index without the extra `geo`.
    ValueError: no tiles; a tile without a year, or with two; files that are not
      AlphaEarth tiles; unreadable rows. One message lists all problems.
  """
  given = [source] if isinstance(source, str | os.PathLike) else source
  sources = [os.fspath(one) for one in given]
  found, problems = [], []
  for one in sources:
    suffix = Path(one).suffix.lower()
    if suffix in INDEXES:
      if tiles.is_remote(one):
        raise ValueError(
          f"{one}: an index must be a local file; fetch it once."
        )
      found += _index_rows(Path(one), problems)
    else:
      found += _raster_rows(one, year, cache, problems)
  shown = [without_secrets(one) for one in sources[:3]]
  origin = ", ".join(shown) + ", ..." * (len(sources) > 3)
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
  )


def _raster_rows(source, year, cache, problems):
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


def _index_rows(path, problems):
  if not path.is_file():
    raise FileNotFoundError(f"AlphaEarth index not found: {path}")
  rows = []
  read = _csv_rows if path.suffix.lower() == ".csv" else _arrow_rows
  for number, row in read(path):
    try:
      rows.append(_index_row(row, path.parent))
    except ValueError as error:
      problems.append(f"{path} row {number}: {error}")
  return rows


def _index_row(row: Mapping[str, Any], folder):
  missing = [name for name in ("path", "year", "crs") if not row.get(name)]
  if missing:
    raise ValueError(f"no {', '.join(missing)}")
  path = str(row["path"]).strip()
  if not tiles.is_remote(path) and not path.startswith("/vsi"):
    path = str(folder / path)
  try:
    year = int(row["year"])
  except ValueError:
    raise ValueError(f"year {row['year']!r} is not a number") from None
  if not 2000 <= year <= 2200:
    raise ValueError(f"year {year} is not a year of AlphaEarth (from 2017)")
  crs = _crs_text(str(row["crs"]).strip())
  bounds, degrees = _bounds(row)
  west, south, east, north = bounds
  if not all(map(math.isfinite, bounds)) or south >= north or west == east:
    raise ValueError(f"bounds {bounds} are not west, south, east, north")
  if west > east and not degrees:
    raise ValueError(f"bounds {bounds}: west is larger than east")
  if degrees and (max(map(abs, bounds[1::2])) > 90 or abs(west) > 360):
    raise ValueError(f"bounds {bounds} are not degrees")
  if not degrees and max(map(abs, bounds)) <= 360 and _is_projected(crs):
    raise ValueError(
      f"bounds {bounds} look like degrees, but {crs} is in metres; name the"
      " columns wgs84_west, wgs84_south, wgs84_east, wgs84_north"
    )
  return tiles.gdal_path(path), year, crs, bounds, degrees


def _bounds(row):
  """Returns ((west, south, east, north), bool: degrees) of a row."""
  if row.get("bounds") not in (None, ""):
    value = row["bounds"]
    if isinstance(value, str):
      value = re.split(r"[\s,;]+", value.strip(" ()[]\t"))
    values = list(value.values()) if isinstance(value, dict) else list(value)
    names, degrees = ["bounds"] * len(values), False
  else:
    for prefix in _PREFIXES:
      names = [prefix + edge for edge in _EDGES]
      values = [row.get(name) for name in names]
      degrees = prefix == "wgs84_"
      if not any(value in (None, "") for value in values):
        break
    else:
      raise ValueError(
        "no bounds (a column bounds, or utm_west, utm_south, utm_east,"
        " utm_north, or wgs84_west, ...)"
      )
  if len(values) != 4:
    raise ValueError(f"bounds {row['bounds']!r} are not four numbers")
  out = []
  for name, value in zip(names, values, strict=True):
    try:
      out.append(float(value))
    except (TypeError, ValueError):
      raise ValueError(f"{name} {value!r} is not a number") from None
  return tuple(out), degrees


def _csv_rows(path) -> Iterator[tuple[int, dict[str, str]]]:
  """Yields rows with their number in the file; the header is row 1."""
  with path.open(newline="", encoding="utf-8-sig") as file:
    try:
      yield from enumerate(_checked(path, csv.DictReader(file)), start=2)
    except (UnicodeDecodeError, csv.Error) as error:
      raise ValueError(f"{path}: not a CSV table: {error}") from None


def _checked(path, reader):
  _need_columns(path, reader.fieldnames or ())
  yield from reader


def _arrow_rows(path):
  """Yields rows of Parquet or GeoPackage with their number, from 1."""
  try:
    import pyogrio
    from pyarrow import ArrowException, parquet
  except ImportError:
    raise ImportError(
      f"{path}: needs pyarrow and pyogrio (pip install 'fusar-jax[geo]'); or"
      " save the index as CSV."
    ) from None
  edges = map("".join, itertools.product(_PREFIXES, _EDGES))
  wanted = {"path", "year", "crs", "bounds", *edges}
  try:
    if path.suffix.lower() == ".gpkg":
      names = list(pyogrio.read_info(path)["fields"])
      columns = _known_columns(path, names, wanted)
      _, table = pyogrio.read_arrow(path, columns=columns, read_geometry=False)
    else:
      with parquet.ParquetFile(path) as file:
        columns = _known_columns(path, file.schema_arrow.names, wanted)
        table = file.read(columns)
    batches = (batch.to_pylist() for batch in table.to_batches(_BATCH))
    yield from enumerate(itertools.chain.from_iterable(batches), start=1)
  # Text that is not UTF-8, and times that Python cannot express.
  except (UnicodeDecodeError, ArithmeticError) as error:
    raise ValueError(f"{path}: a value cannot be read: {error}") from None
  except (ArrowException, OSError, RuntimeError) as error:
    raise ValueError(f"{path}: cannot be read: {error}") from None


def _known_columns(path, names, wanted) -> list[str]:
  _need_columns(path, names)
  return [name for name in names if name in wanted]


def _need_columns(path, names: Iterable[str]):
  missing = sorted({"path", "year", "crs"} - set(names))
  if missing:
    raise ValueError(
      f"{path}: columns path, year, crs and bounds expected; missing"
      f" {', '.join(missing)}, found {list(names)[:12]}."
    )


def _twice(rows):
  """Returns problems: files that are listed under two years."""
  years, problems = {}, []
  for path, year, *_ in rows:
    if years.setdefault(path, year) != year:
      shown = without_secrets(path)
      problems.append(f"{shown}: mixed years: {years[path]} and {year}")
  return problems


@functools.lru_cache(maxsize=512)
def _crs_text(text):
  return georeference.crs_text(georeference.parse_crs(text))


@functools.lru_cache(maxsize=512)
def _is_projected(crs):
  return georeference.parse_crs(crs).is_projected


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
