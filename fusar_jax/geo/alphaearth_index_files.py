"""Indexes of AlphaEarth tiles: CSV and Parquet, also at URLs, and GeoPackage.

The published index is 798 MB as CSV, which is streamed; 70 MB as Parquet, of
which the columns of paths and bounds are read, and only row groups that reach
into the scenes' bounds; and 500 MB as GeoPackage, whose spatial index finds the
rows. No more than 10,000 rows are Python objects at a time.
"""

import contextlib
import csv
import itertools
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fusar_jax.geo import alphaearth_index_rows as index_rows
from fusar_jax.geo import alphaearth_tiles as tiles
from fusar_jax.geo import vector_content
from fusar_jax.geo.gdal_files import without_secrets
from fusar_jax.geo.remote_file import open_remote

# West, south, east, north in degrees; east may exceed 180.
Bounds = tuple[float, float, float, float]
# Called with the name of the index, bytes read and its size.
Progress = Callable[[str, int, int], None]

_INDEX = re.compile(r"\.(csv|parquet|pq|gpkg)(\?.*)?$", re.I | re.S)
_BATCH = 10_000
_LINE = 1 << 20  # Of a CSV; published ones have 3 kB.
_ROW_GROUP = 1 << 30  # Bytes of the columns of one row group.
_REPORTED = 8 << 20
# Stated bounds are rounded.
_MARGIN = 1e-3
# Tiles across the date line state west > east, and are at most so wide.
_DATE_LINE = 170.0


def is_index(source: str) -> bool:
  """Returns whether a path or URL is an index, by its ending."""
  return bool(_INDEX.search(source))


def read_index(
  source: str,
  within: Sequence[Bounds] | None = None,
  progress: Progress | None = None,
) -> Iterator[tuple[int, Mapping[str, Any]]]:
  """Yields (number, row) of the tiles that touch the bounds.

  Args:
    source: path or URL.
    within: see `alphaearth_index.find_tiles`.
    progress: called every 8 MB of a CSV.

  Numbers are those of the file: lines of a CSV of one-line rows, whose header
  is 1; rows of a Parquet file from 1; of a GeoPackage, rows found.

  Raises:
    FileNotFoundError, ImportError, PermissionError, ConnectionError,
    ValueError: as `find_tiles`.
  """
  if not tiles.is_remote(source) and not Path(source).is_file():
    raise FileNotFoundError(f"AlphaEarth index not found: {source}")
  kind = _INDEX.search(source)
  assert kind, "callers check is_index"
  read = {"csv": _csv_rows, "gpkg": _package_rows}.get(
    kind[1].lower(), _parquet_rows
  )
  for number, row in read(source, within, progress):
    box = index_rows.stated_degrees(row) if within is not None else None
    if box is None or any(_touches(box, one) for one in within or ()):
      yield number, row


def _touches(box, one):
  west, south, east, north = box
  east += 360 * (east < west)
  if south - _MARGIN > one[3] or north + _MARGIN < one[1]:
    return False
  ahead = (west - _MARGIN - one[0]) % 360 <= one[2] - one[0]
  behind = (one[0] - west + _MARGIN) % 360 <= east - west + 2 * _MARGIN
  return ahead or behind


@contextlib.contextmanager
def _opened(source):
  if tiles.is_remote(source):
    remote = open_remote(source)
    with remote.buffered() as file:
      yield file, remote.size
  else:
    with open(source, "rb") as file:
      yield file, os.path.getsize(source)


def _csv_rows(source, within, progress):
  shown = without_secrets(source)
  with _opened(source) as (file, size):
    try:
      lines = _lines(shown, file, size, progress)
      reader = csv.DictReader(lines)
      _need_columns(shown, reader.fieldnames or ())
      yield from enumerate(reader, start=2)
    except (UnicodeDecodeError, csv.Error) as error:
      raise ValueError(f"{shown}: not a CSV table: {error}") from None


def _lines(shown, file, size, progress):
  done = reported = 0
  for number in itertools.count(1):
    line = file.readline(_LINE)
    if not line:
      return
    if len(line) == _LINE:
      raise ValueError(
        f"{shown}: not a CSV table: line {number} is longer than 1 MiB."
      )
    done += len(line)
    if progress and done - reported >= _REPORTED:
      reported = done
      progress(shown, done, size)
    yield line.decode("utf-8-sig" if number == 1 else "utf-8")


def _parquet_rows(source, within, progress):
  """Yields rows with their number, from 1."""
  shown = without_secrets(source)
  parquet, errors = _parquet(shown)
  with _opened(source) as (file, size):
    try:
      # Buffered by pyarrow, which asks for whole columns.
      table = parquet.ParquetFile(getattr(file, "raw", file), pre_buffer=True)
      names = table.schema_arrow.names
      _need_columns(shown, names)
      columns = [name for name in names if name in index_rows.COLUMNS]
      first, done = 1, 0
      for group in range(table.num_row_groups):
        meta = table.metadata.row_group(group)
        if _may_touch(meta, within):
          _check_size(shown, meta, set(columns))
          batches = table.iter_batches(_BATCH, [group], columns)
          rows = (batch.to_pylist() for batch in batches)
          yield from enumerate(itertools.chain.from_iterable(rows), start=first)
        first, done = first + meta.num_rows, done + meta.total_byte_size
        if progress:
          progress(shown, min(done, size), size)
    # Text that is not UTF-8, and times that Python cannot express.
    except (UnicodeDecodeError, ArithmeticError) as error:
      raise ValueError(f"{shown}: a value cannot be read: {error}") from None
    except (PermissionError, ConnectionError, FileNotFoundError):
      raise
    except errors as error:
      raise ValueError(f"{shown}: cannot be read: {error}") from None


def _parquet(shown):
  try:
    from pyarrow import ArrowException, parquet
  except ImportError:
    raise ImportError(_no_extra(shown)) from None
  return parquet, (ArrowException, OSError, RuntimeError)


def _no_extra(shown):
  return (
    f"{shown}: needs pyarrow and pyogrio (pip install 'fusar-jax[geo]'); or"
    " save the index as CSV."
  )


def _check_size(shown, meta, columns):
  parts = map(meta.column, range(meta.num_columns))
  size = sum(
    part.total_uncompressed_size
    for part in parts
    if part.path_in_schema.split(".")[0] in columns
  )
  if size > _ROW_GROUP:
    raise ValueError(
      f"{shown}: cannot be read: a row group of {size} bytes, more than 1 GiB."
    )


def _may_touch(meta, within):
  """Returns whether a row group may hold tiles there, by its statistics."""
  if within is None:
    return True
  ranges = {}
  for part in map(meta.column, range(meta.num_columns)):
    statistics = part.statistics
    if statistics is not None and statistics.has_min_max:
      ranges[part.path_in_schema] = statistics.min, statistics.max
  for names in (
    ("wgs84_west", "wgs84_south", "wgs84_east", "wgs84_north"),
    ("bbox.xmin", "bbox.ymin", "bbox.xmax", "bbox.ymax"),
  ):
    try:
      (west, _), (south, _), (_, east), (_, north) = (
        tuple(map(float, ranges[name])) for name in names
      )
    except (KeyError, TypeError, ValueError):
      continue
    return any(_in_range(one, west, south, east, north) for one in within)
  return True


def _in_range(one, west, south, east, north):
  if south - _MARGIN > one[3] or north + _MARGIN < one[1]:
    return False
  if one[0] < -_DATE_LINE or one[2] > _DATE_LINE:
    return True  # Rows with west > east are not in the ranges.
  return west - _MARGIN <= one[2] and east + _MARGIN >= one[0]


def _package_rows(source, within, progress):
  """Yields rows with their number among those found, from 1."""
  shown = without_secrets(source)
  if tiles.is_remote(source):
    raise ValueError(
      f"{shown}: a GeoPackage must be a local file; name the .parquet or .csv"
      " beside it, or download it once."
    )
  try:
    import pyogrio
    from pyarrow import ArrowException
  except ImportError:
    raise ImportError(_no_extra(shown)) from None
  vector_content.check(Path(source))
  try:
    info = pyogrio.read_info(source)
    names = list(info["fields"])
    _need_columns(shown, names)
    columns = [name for name in names if name in index_rows.COLUMNS]
    box = _enclosing(within) if info["geometry_type"] else None
    with pyogrio.open_arrow(
      source,
      columns=columns,
      read_geometry=False,
      bbox=box,
      batch_size=_BATCH,
      use_pyarrow=True,
    ) as (_, reader):
      rows = (batch.to_pylist() for batch in reader)
      yield from enumerate(itertools.chain.from_iterable(rows), start=1)
  except (UnicodeDecodeError, ArithmeticError) as error:
    raise ValueError(f"{shown}: a value cannot be read: {error}") from None
  except (ArrowException, OSError, RuntimeError) as error:
    raise ValueError(f"{shown}: cannot be read: {error}") from None


def _enclosing(within):
  """Returns the bounds of all bounds; None where they cross the date line."""
  if not within or any(abs(edge) > 180 for one in within for edge in one[::2]):
    return None
  wests, souths, easts, norths = zip(*within, strict=True)
  return (
    max(-180.0, min(wests) - _MARGIN),
    max(-90.0, min(souths) - _MARGIN),
    min(180.0, max(easts) + _MARGIN),
    min(90.0, max(norths) + _MARGIN),
  )


def _need_columns(shown, names: Iterable[str]):
  missing = index_rows.missing_columns(set(names))
  if missing:
    raise ValueError(
      f"{shown}: columns path, year, crs and bounds expected (or, of STAC,"
      " assets, datetime, proj:epsg, bbox); missing"
      f" {', '.join(sorted(missing))}, found {list(names)[:12]}."
    )
