"""Opens files with GDAL so that nothing but the file itself is read.

GDAL chooses its driver by content. A file named .tif may be a VRT, which reads
any file or URL that it names, or the description of a web service. So drivers
are listed, those whose pixels are in the file. GDAL also opens overviews and
masks beside a raster with any driver; they must be TIFF.

`FUSAR_ALLOW_VRT=1` in the environment also allows VRT files, for those that the
user has made.
"""

import os
import re
from pathlib import Path

import rasterio
from rasterio.errors import RasterioError

from fusar_jax.geo.remote_errors import explain

# JPEG and PNG: quicklooks. NITF: SICD. COSAR: TerraSAR-X.
DRIVERS = ("GTiff", "ENVI", "NITF", "COSAR", "PNG", "JPEG")
ALLOW_VRT = "FUSAR_ALLOW_VRT"
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_BESIDE = (".ovr", ".OVR", ".msk", ".MSK")
# Where a driver names a file of overviews, which may be anywhere.
_OVERVIEWS = ("OVERVIEWS", "OVERVIEW_FILE")


# https://user:password@host/tile.tif?signature=... Path() merges its slashes.
_SECRETS = re.compile(r"(\b\w+:/+)[^/@\s]*@|\?\S*")
_ADDRESS = re.compile(r"\w:/|^/vsi")


def without_secrets(path: str) -> str:
  """Returns a path or URL without user, password and query, to be shown.

  Example:
    >>> without_secrets("/vsicurl/https://me:key@host/a.tif?sig=1")
    '/vsicurl/https://host/a.tif'
  """
  return _SECRETS.sub(r"\1", path) if _ADDRESS.search(path) else path


def open_dataset(path: str | os.PathLike) -> rasterio.DatasetReader:
  """Opens a raster of a listed driver; the caller closes it.

  Args:
    path: a local file, or a /vsi... path of GDAL.

  Raises:
    PermissionError, ConnectionError: a remote file that is denied, or whose
      server does not answer.
    ValueError: another kind of file, or one that refers to further files; the
      message names the file and the fix.
  """
  drivers = DRIVERS
  if str(path).startswith("/vsi"):
    drivers = DRIVERS[:1]  # Each attempt at a remote file is a request.
  else:
    _check_beside(path)
    if os.environ.get(ALLOW_VRT) == "1":
      drivers = (*DRIVERS, "VRT")
  dataset, errors = None, []
  for driver in drivers:
    try:
      dataset = rasterio.open(path, driver=driver)
      break
    # ValueError: of a driver that fits, for text or a reference system in it.
    except (RasterioError, ValueError) as error:
      errors.append(error)
  if dataset is None:
    if str(path).startswith("/vsi") and (
      known := remote_error(path, errors[0])
    ):
      raise known
    known = [e for e in errors if not isinstance(e, RasterioError)]
    raise ValueError(_reason(path, (known or errors)[0]))
  domain, key = _OVERVIEWS
  if key in dataset.tags(ns=domain):
    dataset.close()
    raise ValueError(
      f"{path}: its metadata names a file of overviews ({key}), which is not"
      " opened. Write the raster anew with gdal_translate."
    )
  return dataset


def remote_error(path: str | os.PathLike, error: Exception) -> OSError | None:
  """Returns what GDAL's error of a remote file means, see `remote_errors`."""
  shown = without_secrets(str(path))
  return explain(shown, _cause(path, error))


def _cause(path, error) -> str:
  # rasterio's "Read failed. See previous exception" omits the cause.
  cause = error.__cause__ or error.__context__ or error
  return str(cause).replace(str(path), without_secrets(str(path)))


def _check_beside(path) -> None:
  for suffix in _BESIDE:
    beside = Path(f"{path}{suffix}")
    if beside.is_file():
      with beside.open("rb") as file:
        start = file.read(4)
      if start not in _TIFF:
        raise ValueError(
          f"{beside}: expected a TIFF beside {path}, found {start!r}. Remove"
          " it, or make it with gdaladdo."
        )


def _reason(path, error) -> str:
  shown = without_secrets(str(path))
  text = (
    f"{shown}: not a raster that GDAL {rasterio.__gdal_version__} reads"
    f" ({_cause(path, error)}); expected the content of one of"
    f" {', '.join(DRIVERS)}, or a .npy array."
  )
  if Path(path).is_file():
    with open(path, "rb") as file:
      if b"<VRTDataset" in file.read(4096):
        text = (
          f"{path}: a VRT, which reads any file or URL that it names. If you"
          f" made it, set {ALLOW_VRT}=1 in the environment. Of AlphaEarth's"
          " mirror, name the .tiff."
        )
  return text
