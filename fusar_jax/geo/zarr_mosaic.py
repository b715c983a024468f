"""The global AlphaEarth mosaic as a Zarr v3 group.

One int8 array `embeddings` (time, band, y, x) in degrees, in shards of chunks
of all bands, so a pixel costs 1/16 of what it costs from the published tiles.
Its pixels are resampled from those. `time` holds the years; bands are A00..A63
in this order. Read with TensorStore, which Orbax installs: GDAL 3.10.3, as in
rasterio 1.4, opens no shards ("Unsupported codec: sharding_indexed").
"""

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rasterio.crs import CRS
from rasterio.transform import Affine

from fusar_jax.geo import georeference
from fusar_jax.geo.gdal_files import without_secrets
from fusar_jax.geo.remote_errors import explain
from fusar_jax.geo.remote_file import https_url, open_remote

_ARRAY, _TIME = "embeddings", "time"
_DIMENSIONS = ["time", "band", "y", "x"]
_BANDS = 64
_YEARS = 200  # At most.
_METADATA = "zarr.json"
_METADATA_BYTES = 1 << 20
_CHUNK_BYTES = 1 << 26
_ENDINGS = (".zarr", "/aef-mosaic")
_CACHE = {"cache_pool": {"total_bytes_limit": 1 << 27}}


def is_mosaic(source: str) -> bool:
  """Returns whether a folder or URL is a mosaic, or GROUP#YEAR of one."""
  name = source.partition("#")[0].rstrip("/")
  if "://" in name or name.startswith("/vsi"):
    return name.endswith(_ENDINGS)
  return (Path(name) / _METADATA).is_file()


def years_of(source: str) -> list[int]:
  """Returns the years, in order of the array.

  Raises:
    PermissionError, ConnectionError, FileNotFoundError: as `open_remote`.
    ValueError: not such a group.
  """
  root = source.rstrip("/")
  array = _open(root, _TIME)
  chunk = array.chunk_layout.read_chunk.shape
  years = []
  if array.ndim == 1 and array.shape[0] <= _YEARS and math.prod(chunk) <= 4096:
    values = _read(root, array, slice(None))
    years = values.tolist() if values.dtype.kind in "iu" else []
  if not years or not all(2000 <= year <= 2200 for year in years):
    raise ValueError(
      f"{_shown(root)}: expected years in its array {_TIME}, found"
      f" {array.dtype.name} {list(array.shape)} {years[:9]}."
    )
  return years


class MosaicYear:
  """One year, with the attributes of a rasterio dataset.

  Args:
    path: the group, then # and the year.

  Raises:
    PermissionError, ConnectionError, FileNotFoundError: as `open_remote`.
    ValueError: not such a group, or a year that it lacks.
  """

  def __init__(self, path: str):
    self._root, _, year = path.rpartition("#")
    years = years_of(self._root)
    if year not in map(str, years):
      raise ValueError(
        f"{_shown(self._root)}: no year {year!r}; it has {years}."
      )
    self._time = years.index(int(year))
    self._array = _open(self._root, _ARRAY)
    attributes = _attributes(self._root, "") | _attributes(
      self._root, f"{_ARRAY}/"
    )
    shown = _shown(self._root)
    self.crs, self.transform = _place(shown, attributes)
    _check(shown, self._array)
    self.count, self.height, self.width = self._array.shape[1:]
    self.dtypes = ["int8"] * self.count
    self.descriptions = (None,) * self.count
    self.nodata = -128.0
    chunk = self._array.chunk_layout.read_chunk.shape
    self.block_shapes = [chunk[2:]] * self.count

  def read(self, bands: Sequence[int], window: Any) -> np.ndarray:
    """Returns int8[len(bands), h, w]; bands are counted from 1."""
    rows, cols = window.toranges()
    at = self._time, slice(None), slice(*rows), slice(*cols)
    values = _read(self._root, self._array, at)
    return values[[band - 1 for band in bands]]

  def close(self) -> None:
    """Holds no file open."""


def _shown(root):
  return without_secrets(root)


def _open(root, name) -> Any:
  import tensorstore

  url = https_url(root)
  if "://" in url:
    store = {"driver": "http", "base_url": url, "path": name}
  else:
    store = {"driver": "file", "path": str(Path(url).absolute() / name)}
  spec = {"driver": "zarr3", "kvstore": store, "context": _CACHE}
  try:
    return tensorstore.open(spec, open=True, read=True).result()
  except Exception as error:
    raise _known(root, error) from None


def _read(root, array, at) -> np.ndarray:
  try:
    return np.asarray(array[at].read().result())
  except Exception as error:
    raise _known(root, error) from None


def _known(root, error):
  """Returns what an error of TensorStore means; its types are arbitrary."""
  text = str(error).split(" [tensorstore_spec=")[0].split(" [source ")[0]
  text = text.replace(https_url(root), _shown(root))
  known = explain(_shown(root), text) if "://" in https_url(root) else None
  return known or ValueError(
    f"{_shown(root)}: not an AlphaEarth mosaic in Zarr v3, or damaged ({text})."
  )


def _attributes(root, below) -> dict[str, Any]:
  path = f"{root}/{below}{_METADATA}"
  if "://" in https_url(root):
    with open_remote(path).buffered() as file:
      content = file.read(_METADATA_BYTES + 1)
  else:
    with open(path, "rb") as file:
      content = file.read(_METADATA_BYTES + 1)
  try:
    if len(content) > _METADATA_BYTES:
      raise ValueError("more than 1 MiB")
    found = json.loads(content).get("attributes", {})
    if not isinstance(found, dict):
      raise ValueError("attributes are no object")
    return found
  except (ValueError, AttributeError, RecursionError) as error:
    raise ValueError(f"{_shown(path)}: not metadata of Zarr: {error}") from None


def _place(shown, attributes) -> tuple[CRS, Affine]:
  code, six = attributes.get("proj:code"), attributes.get("spatial:transform")
  numbers = isinstance(six, list) and all(
    isinstance(v, int | float) and abs(v) < 1e9 for v in six
  )
  known = isinstance(code, str) and re.fullmatch(r"EPSG:\d{4,6}", code)
  if not known or not numbers or len(six or ()) != 6:
    raise ValueError(
      f"{shown}: expected attributes proj:code (EPSG:...) and"
      f" spatial:transform (six numbers), found {code!r:.80} and {six!r:.200}."
    )
  try:
    return georeference.parse_crs(code), Affine(*six)
  except ValueError as error:
    raise ValueError(f"{shown}: {error}") from None


def _check(shown, array) -> None:
  chunk = array.chunk_layout.read_chunk.shape
  names = list(array.domain.labels)
  if (
    array.dtype.name != "int8"
    or array.ndim != 4
    or array.shape[1] != _BANDS
    or (any(names) and names != _DIMENSIONS)
    or math.prod(chunk) > _CHUNK_BYTES
  ):
    raise ValueError(
      f"{shown}: expected int8 {_ARRAY} ({', '.join(_DIMENSIONS)}) of {_BANDS}"
      f" bands in chunks of at most 64 MiB, found {array.dtype.name}"
      f" {list(array.shape)} ({', '.join(names)}), chunks {list(chunk)}."
    )
