"""Rasters of the page: which files are opened, and which bands are shown."""

import contextlib
from collections.abc import Sequence
from pathlib import Path

from fusar_jax.geo.band_stack import open_bands
from fusar_jax.geo.options import LINEAR
from fusar_jax.geo.quantities import AMPLITUDE
from fusar_jax.geo.rasters import Raster, open_raster
from fusar_jax.geo.stretch import Stretch, composite, fit_stretches
from fusar_jax.serving.limits import RequestError
from fusar_jax.serving.uploads import check_crs

# Beginnings of the files that are opened: TIFF, PNG, JPEG, zip.
_KINDS = {
  b"II*\0": ".tif",
  b"MM\0*": ".tif",
  b"II+\0": ".tif",
  b"MM\0+": ".tif",
  b"\x89PNG": ".png",
  b"\xff\xd8\xff": ".jpg",
  b"PK\x03\x04": ".zip",
}
_BYTE = "uint8"


def suffix_of(start: bytes) -> str:
  """Returns the suffix of a file's content.

  Args:
    start: the first 4 bytes or more.

  Raises:
    RequestError: 400, none of the kinds that are opened.
  """
  for magic, suffix in _KINDS.items():
    if start.startswith(magic):
      return suffix
  raise RequestError(
    400,
    "not an image that is opened here: expected a GeoTIFF, PNG or JPEG, or the"
    " zip of a Sentinel-1 .SAFE product.",
    "scene",
  )


def check_file(path: Path, pixels: int) -> None:
  """Checks a file before anything is decoded, or looked up for a CRS.

  Args:
    path: of the file.
    pixels: limit.

  Raises:
    RequestError: 400, another kind of file; 413, too many pixels.
    ValueError, OSError: it cannot be read.
  """
  with path.open("rb") as file:
    suffix_of(file.read(8))
  with contextlib.closing(open_bands(path)) as file:
    if file.height * file.width > pixels:
      raise RequestError(
        413,
        f"{file.width:,} x {file.height:,} pixels, at most {pixels:,} are"
        " opened. Cut a part out of it: gdal_translate -srcwin.",
        "scene",
      )
    if file.dataset is not None:
      check_crs(file.dataset)


def open_shown(path: Path) -> Raster:
  """Opens a raster for the page.

  Raises:
    ValueError, OSError: it cannot be read.
  """
  raster = open_raster(path)
  if raster.dtype != _BYTE:
    return raster
  # A picture, shown as it is: 0 and 255 are shades.
  raster.close()
  return open_raster(path, nodata="none", quantity=AMPLITUDE)


def fit_shown(
  raster: Raster, bands: Sequence[str] | None = None
) -> tuple[Stretch, ...]:
  """Returns the stretches of one band or three; of a picture as it is.

  Args:
    raster: of `open_shown`.
    bands: of `band_choices`; None: the first.

  Raises:
    ValueError: as `fit_stretches`.
  """
  if raster.dtype != _BYTE:
    return fit_stretches(raster, bands)
  shown = raster.bands[:3] if len(raster.bands) >= 3 else raster.bands[:1]
  return tuple(
    Stretch(band, AMPLITUDE, LINEAR, 0.0, 255.0, (0.0, 100.0), 0)
    for band in shown
  )


def band_choices(
  raster: Raster, preferred: Sequence[str] = ()
) -> tuple[tuple[str, ...], ...]:
  """Returns what can be shown, as `prepare --bands` takes it.

  Each band, and a composite: two with their ratio, or the first three; and
  the preferred bands, if the raster has them. A picture has no choice.

  Example: VV and VH give (VV,), (VH,), (VV, VH, VV/VH).
  """
  bands = raster.bands
  if raster.dtype == _BYTE or len(bands) == 1:
    return ()
  choices = [*((band,) for band in bands), composite(bands[:3])]
  parts = {part for band in preferred for part in band.split("/")}
  if parts and parts <= set(bands):
    choices.append(tuple(preferred))
  return tuple(dict.fromkeys(choices))
