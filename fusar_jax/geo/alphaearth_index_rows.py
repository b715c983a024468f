"""One row of an index of AlphaEarth tiles: its file, year, CRS and bounds.

Four layouts are read:

  published   path, year, crs, utm_west .. utm_north, wgs84_west .. wgs84_north
  STAC        assets {data {href}}, datetime, proj:epsg or proj:code, bbox
  rasteret    path, year, crs, bbox {xmin, ymin, xmax, ymax} in degrees
  own         path, year, crs, bounds: four numbers in the tile's CRS

Paths may be files (relative to the index), URLs, or GDAL's /vsigs/, /vsicurl/
and the like. The mirror's index once named the files of Google's bucket; those
of an index that is itself read from the mirror are the mirror's.
"""

import datetime
import functools
import math
import os
import re
from collections.abc import Mapping
from typing import Any

from fusar_jax.geo import alphaearth_tiles as tiles
from fusar_jax.geo import georeference

_PREFIXES = ("utm_", "wgs84_", "")
_EDGES = ("west", "south", "east", "north")
_BOX = ("xmin", "ymin", "xmax", "ymax")
# What each layout needs, for messages and to tell whether columns suffice.
_PLAIN = ("path", "year", "crs")
_STAC = ("assets", "datetime", "proj:epsg or proj:code", "bbox")
COLUMNS = frozenset(
  {
    *_PLAIN, "bounds", "bbox", "assets", "datetime", "proj:epsg", "proj:code",
    *(prefix + edge for prefix in _PREFIXES for edge in _EDGES),
  }
)  # fmt: skip
_GOOGLE = re.compile(
  r"^(gs://|/vsigs/|https://storage\.googleapis\.com/)alphaearth_foundations/"
  r"satellite_embedding/"
)
_MIRROR = "/tge-labs/aef/"


def missing_columns(names: frozenset[str] | set[str]) -> list[str]:
  """Returns the columns that the nearer layout lacks; empty: readable."""
  plain = [name for name in _PLAIN if name not in names]
  stac = [
    one for one in _STAC if not any(n in names for n in one.split(" or "))
  ]
  if "assets" in names or "datetime" in names:
    return stac if plain else []
  return plain


def parse_row(
  row: Mapping[str, Any], index: str
) -> tuple[str, int, str, tuple[float, ...], bool]:
  """Returns (path as GDAL opens it, year, CRS, bounds, bounds in degrees).

  Args:
    row: columns by name.
    index: path or URL of the index.

  Raises:
    ValueError: a value that is missing or wrong, without place.
  """
  values = {k: row.get(k) for k in _PLAIN}
  if row.get("assets") is not None:
    values |= {k: v for k, v in _from_stac(row).items() if not values[k]}
  missing = [name for name in _PLAIN if not values[name]]
  if missing:
    raise ValueError(f"no {', '.join(missing)}")
  try:
    year = int(values["year"] or 0)
  except ValueError:
    raise ValueError(f"year {values['year']!r} is not a number") from None
  if not 2000 <= year <= 2200:
    raise ValueError(f"year {year} is not a year of AlphaEarth (from 2017)")
  crs = _crs_text(str(values["crs"]).strip())
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
  path = _located(str(values["path"]).strip(), index)
  return tiles.gdal_path(path), year, crs, bounds, degrees


def stated_degrees(
  row: Mapping[str, Any],
) -> tuple[float, float, float, float] | None:
  """Returns west, south, east, north in degrees, if the row states them."""
  box = row.get("bbox")
  if isinstance(box, Mapping):
    values = [box.get(name) for name in _BOX]
  else:
    values = [row.get(f"wgs84_{edge}") for edge in _EDGES]
  try:
    west, south, east, north = (float(v) for v in values if v is not None)
  except (TypeError, ValueError):
    return None
  # Others touch nothing: `parse_row` reports them.
  if not all(map(math.isfinite, (west, south, east, north))):
    return None
  return west, south, east, north


def _from_stac(row):
  """Returns path, year and crs of a STAC item; None for what it lacks."""
  assets = row["assets"] if isinstance(row["assets"], Mapping) else {}
  data = assets.get("data") or {}
  when = row.get("datetime")
  if isinstance(when, str):
    when = re.match(r"(\d{4})-\d\d-\d\d", when)
    year = when and int(when[1])
  else:
    year = when.year if isinstance(when, datetime.date) else None
  code = row.get("proj:code")
  if not code and row.get("proj:epsg"):
    code = f"EPSG:{row['proj:epsg']}"
  path = data.get("href") if isinstance(data, Mapping) else None
  return {"path": path, "year": year, "crs": code}


def _located(path, index):
  google = _GOOGLE.match(path)
  if google and tiles.is_remote(index) and _MIRROR in index:
    root = index[: index.index(_MIRROR) + len(_MIRROR)]
    return root + path[google.end() :]
  if tiles.is_remote(path) or path.startswith("/vsi"):
    return path
  if tiles.is_remote(index):
    # Without the query, a signature of the index alone.
    return index.split("?")[0].rpartition("/")[0] + "/" + path
  return os.path.join(os.path.dirname(index), path)


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
      if isinstance(box := row.get("bbox"), Mapping):
        names, degrees = [f"bbox.{name}" for name in _BOX], True
        values = [box.get(name) for name in _BOX]
      else:
        raise ValueError(
          "no bounds (a column bounds, or utm_west, utm_south, utm_east,"
          " utm_north, or wgs84_west, ..., or bbox with xmin, ymin, xmax, ymax)"
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


@functools.lru_cache(maxsize=512)
def _crs_text(text):
  return georeference.crs_text(georeference.parse_crs(text))


@functools.lru_cache(maxsize=512)
def _is_projected(crs):
  return georeference.parse_crs(crs).is_projected
