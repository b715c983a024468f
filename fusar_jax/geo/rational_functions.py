"""Rational polynomial coefficients (RPC): pixels from lon, lat and height.

The inverse needs a height: all points of one range and azimuth fall on one
pixel. GDAL finds coefficients in a file's tags, in NITF's TRE, and beside it in
NAME.RPB or NAME_RPC.TXT; NAME.rpc and NAME.rpb of Gaofen-3 are read here:

  lineOffset = 3200.5;
  lineNumCoef = (
    1.0e-03,
    ... 20 values);
"""

import functools
import math
import re
from pathlib import Path

from rasterio import rpc
from rasterio._err import CPLE_BaseError
from rasterio.transform import RPCTransformer

MAX_BYTES = 1 << 16
# Order of `flat`: ten numbers, then four lists of 20.
_NUMBERS = (
  "line_off", "samp_off", "lat_off", "long_off", "height_off",
  "line_scale", "samp_scale", "lat_scale", "long_scale", "height_scale",
)  # fmt: skip
_LISTS = (
  "line_num_coeff", "line_den_coeff", "samp_num_coeff", "samp_den_coeff",
)  # fmt: skip
KEYS = {
  "lineOffset": "line_off", "sampOffset": "samp_off", "latOffset": "lat_off",
  "longOffset": "long_off", "heightOffset": "height_off",
  "lineScale": "line_scale", "sampScale": "samp_scale", "latScale": "lat_scale",
  "longScale": "long_scale", "heightScale": "height_scale",
  "lineNumCoef": "line_num_coeff", "lineDenCoef": "line_den_coeff",
  "sampNumCoef": "samp_num_coeff", "sampDenCoef": "samp_den_coeff",
  "errBias": "err_bias", "errRand": "err_rand",
}  # fmt: skip
# No part runs past the next of its delimiters, so that matching is linear.
_ASSIGNED = re.compile(r"\b(\w{1,40})\s*=\s*(?:\(([^()=;]*)\)|([^()=;]*));")
COUNT = len(_NUMBERS) + 20 * len(_LISTS)


def find_rpc(path: Path, dataset) -> rpc.RPC | None:
  """Returns the coefficients of a raster, or None.

  Args:
    path: of the raster.
    dataset: rasterio's.

  Raises:
    ValueError: a damaged file beside the raster; the message names it.
  """
  try:
    found = dataset.rpcs
  except (KeyError, ValueError, TypeError, IndexError, CPLE_BaseError) as error:
    raise ValueError(
      f"{path}: damaged RPC in its metadata: {error!r}"
    ) from None
  if found is not None:
    return found
  for suffix in (".rpc", ".rpb"):
    beside = path.with_suffix(suffix)
    if beside.is_file():
      return _read(beside)
  return None


def flat(values: rpc.RPC) -> tuple[float, ...]:
  """Returns 90 numbers, from which `transformer` restores the coefficients.

  Raises:
    ValueError: too few, not finite, or a scale of 0.
  """
  try:
    numbers = [float(getattr(values, name)) for name in _NUMBERS]
    for name in _LISTS:
      numbers += map(float, getattr(values, name))
  except (TypeError, ValueError) as error:
    raise ValueError(f"RPC: {error}") from None
  if len(numbers) != COUNT or not all(map(math.isfinite, numbers)):
    raise ValueError(
      f"RPC: expected {COUNT} finite numbers, got {len(numbers)}."
    )
  if min(numbers[5:10]) <= 0:
    raise ValueError("RPC: expected scales above 0.")
  return tuple(numbers)


@functools.lru_cache(maxsize=16)
def transformer(numbers: tuple[float, ...]) -> RPCTransformer:
  """Returns GDAL's transformer of `flat` numbers.

  Raises:
    ValueError: they have no inverse.
  """
  lists = [list(numbers[10 + 20 * i : 30 + 20 * i]) for i in range(len(_LISTS))]
  values = rpc.RPC(**dict(zip(_NUMBERS, numbers)), **dict(zip(_LISTS, lists)))
  try:
    return RPCTransformer(values)
  except CPLE_BaseError as error:
    raise ValueError(f"RPC: {error}") from None


def longitude(numbers: tuple[float, ...]) -> float:
  """Returns the longitude at the centre of `flat` numbers."""
  return numbers[_NUMBERS.index("long_off")]


def _read(path: Path) -> rpc.RPC:
  with path.open("rb") as file:
    content = file.read(MAX_BYTES + 1)
  if len(content) > MAX_BYTES:
    raise ValueError(f"{path}: more than {MAX_BYTES} bytes; expected an RPC.")
  text = content.decode("latin-1")
  values: dict = {"err_bias": None, "err_rand": None}
  for key, group, one in _ASSIGNED.findall(text):
    if key not in KEYS:
      continue
    try:
      values[KEYS[key]] = (
        [float(v) for v in group.split(",")] if group else float(one)
      )
    except ValueError as error:
      raise ValueError(f"{path}: {key}: {error}") from None
  if absent := [k for k, v in KEYS.items() if v not in values]:
    raise ValueError(f"{path}: no {', '.join(absent)}; expected an RPC.")
  return rpc.RPC(**values)
