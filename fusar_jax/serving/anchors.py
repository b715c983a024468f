"""Anchors of a request: sent by the client, or looked up by the server.

The field `anchors` of a request is one of
  "data:application/x-npz;base64,..."  an .npz as `prepare` writes it, or base64
  {"features": [[64]...], "positions": [[y, x]...]}  in [0, 1] of the window
  {"features": [[64]...], "lon": [...], "lat": [...]}  of a located image
  "aef"                                vectors of the server's `--aef`

S anchors, E = 64 embedding bands.
"""

import dataclasses
import threading
import warnings
from typing import Any

import numpy as np

from fusar_jax.geo.alphaearth import Archive
from fusar_jax.geo.anchors import (
  BANDS,
  MAX_ANCHORS,
  Anchors,
  check_unit,
  read_anchors,
)
from fusar_jax.geo.georeference import Georeference
from fusar_jax.geo.grid_points import make_anchors
from fusar_jax.serving.limits import RequestError
from fusar_jax.serving.uploads import (
  Upload,
  decode_base64,
  in_memory,
  read_data_url,
)

_FIELD = "anchors"
_LOOK_UP = "aef"
_NPZ = b"PK"


@dataclasses.dataclass(frozen=True, eq=False)
class Found:
  """Anchors of an image.

  Attributes:
    anchors: those in the window, or None.
    outside: number of points outside the window, which have no effect.
    year: of vectors that the server looked up, else None.
  """

  anchors: Anchors | None
  outside: int = 0
  year: int | None = None


class AlphaEarth:
  """AlphaEarth vectors of the server's archive, for one thread at a time.

  Args:
    archive: see `alphaearth.open_archive`.
    year: of requests that name none; None: the latest of the archive.
  """

  def __init__(self, archive: Archive, year: int | None = None):
    self._archive, self._lock = archive, threading.Lock()
    self._year = archive.years[-1] if year is None else year

  @property
  def years(self) -> tuple[int, ...]:
    """Years of the archive, in ascending order."""
    return self._archive.years

  def look_up(
    self, place: Georeference, size: tuple[int, int], year: int | None
  ) -> Found:
    """Returns the vectors of a grid over an image.

    Raises:
      ValueError: no tiles of this place or year.
    """
    year = self._year if year is None else year
    with self._lock, warnings.catch_warnings():
      warnings.simplefilter("ignore")  # The answer says how many were found.
      grid = make_anchors(place, size, self._archive, year)
    return Found(grid.anchors, grid.outside, year)


def read_field(
  value: Any, image: Upload, alphaearth: AlphaEarth | None, year: int | None
) -> Found:
  """Returns the anchors that a request asks for.

  Args:
    value: the field `anchors`; None: none.
    image: the window that the model sees.
    alphaearth: archive of the server, or None.
    year: the field `year`.

  Raises:
    RequestError: 400, the message says what is wrong.
  """
  if year is not None and value != _LOOK_UP:
    raise RequestError(400, 'year: needs "anchors": "aef".', "year")
  if value is None:
    return Found(None)
  try:
    if value == _LOOK_UP:
      return _look_up(image, alphaearth, year)
    if isinstance(value, str):
      return Found(_read_npz(value))
    if isinstance(value, dict):
      return _read_object(value, image)
  except ValueError as error:
    raise RequestError(400, f"anchors: {error}", _FIELD) from None
  raise RequestError(
    400,
    'anchors: expected a data URL of an .npz, "aef", or an object with'
    f" features and positions or lon and lat; got {type(value).__name__}.",
    _FIELD,
  )


def _look_up(image, alphaearth, year) -> Found:
  if alphaearth is None:
    raise ValueError("this server has no AlphaEarth archive (--aef).")
  if image.place is None:
    raise ValueError(
      '"aef" needs the place of the image: send a GeoTIFF, or georeference.'
    )
  return alphaearth.look_up(image.place, image.size, year)


def _read_npz(text: str) -> Anchors:
  if text.startswith("data:"):
    content = read_data_url(text, _FIELD)
  else:
    content = decode_base64(text, _FIELD)
  if not content.startswith(_NPZ):
    raise ValueError("not an .npz with features [S, 64] and positions [S, 2].")
  return read_anchors(in_memory(content, "anchors.npz"))


def _read_object(value: dict, image: Upload) -> Found:
  keys = set(value)
  if keys == {"features", "positions"}:
    anchors = Anchors(
      _numbers(value["features"], "features", BANDS),
      _numbers(value["positions"], "positions", 2),
    )
    check_unit(anchors.features)
    return Found(anchors)
  if keys != {"features", "lon", "lat"}:
    raise ValueError(
      "expected the keys features and positions, or features, lon and lat;"
      f" got {', '.join(sorted(map(str, keys))[:6]) or 'none'}."
    )
  if image.place is None:
    raise ValueError(
      "lon and lat need the place of the image: send a GeoTIFF, or"
      " georeference."
    )
  features = _numbers(value["features"], "features", BANDS)
  lon, lat = (_numbers(value[name], name, None) for name in ("lon", "lat"))
  if not len(features) == len(lon) == len(lat) > 0:
    raise ValueError(
      f"{len(features)} features, {len(lon)} lon and {len(lat)} lat; one each."
    )
  check_unit(features)
  rows, cols = image.place.to_pixel(lon, lat)
  positions = np.stack([rows, cols], axis=-1) / image.size
  inside = ((positions >= 0) & (positions <= 1)).all(axis=1)
  outside = int((~inside).sum())
  if not inside.any():
    raise ValueError(
      f"none of {outside} points lies in the image; lon and lat are degrees."
    )
  return Found(Anchors(features[inside], positions[inside]), outside)


def _numbers(value: Any, name: str, columns: int | None) -> np.ndarray:
  shape = "[S]" if columns is None else f"[S, {columns}]"
  if not isinstance(value, list) or len(value) > MAX_ANCHORS:
    raise ValueError(f"{name}: expected {shape}, S at most {MAX_ANCHORS}.")
  try:
    array = np.asarray(value, np.float64)
  except (ValueError, TypeError):
    raise ValueError(f"{name}: expected numbers {shape}.") from None
  good = array.ndim == 1 if columns is None else array.ndim == 2
  if not good or (columns is not None and array.shape[1] != columns):
    raise ValueError(f"{name}: expected {shape}, got {list(array.shape)}.")
  return array
