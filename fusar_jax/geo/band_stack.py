"""Polarisations in separate files, as one raster file of several bands.

Products keep one file per polarisation: HyP3 NAME_VV.tif and NAME_VH.tif,
OPERA, Gamma0_VV.tif, VV_dB.tif, iw-vv.rtc.tiff, measurement/ of Sentinel-1, and
the assets of STAC items. All of a stack have one grid, one type and one nodata
value.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fusar_jax.geo import gdal_files, raster_files, sentinel1, stac
from fusar_jax.geo.alphaearth_tiles import gdal_path
from fusar_jax.geo.product_names import find_polarisations

_TOKEN = re.compile(r"(?<![A-Za-z0-9])(HH|HV|VH|VV)(?![A-Za-z0-9])", re.I)


class BandStack:
  """Files of one band each; same interface as `GdalFile`.

  Attributes:
    descriptions: the polarisations.
    control_points: ((row, col, lon, lat, height), ...) of the product, or ().
    parts: the local files whose content is read.
    addresses: the URLs that are read.
  """

  def __init__(
    self,
    path: Path,
    files: Sequence[raster_files.GdalFile],
    polarisations: Sequence[str],
    measurements: Sequence[sentinel1.Measurement] = (),
  ):
    self.path = path
    self._files = tuple(files)
    self._measurements = tuple(measurements)
    first = files[0]
    self._check()
    self.height, self.width, self.dtype = first.height, first.width, first.dtype
    self.count = len(files)
    self.dataset, self.tags = first.dataset, first.tags
    self.has_mask = any(file.has_mask for file in files)
    self.descriptions = tuple(polarisations)
    self.units = tuple(file.units[0] for file in files)
    self.declared_nodata = first.declared_nodata
    self.nodata_reason = first.nodata_reason
    self.product = first.product
    self.control_points = ()
    if measurements:
      # Whatever a repackaged file declares.
      self.declared_nodata = 0.0
      self.nodata_reason = "by Sentinel-1's format, for pixels off the swath"
      self.control_points = measurements[0].control_points()
    self.scales = None
    if any(file.scales is not None for file in files):
      plain = np.array([[1.0, 0.0]])
      self.scales = np.concatenate(
        [plain if file.scales is None else file.scales for file in files]
      )
    # A zip is one file, however many of its members are read.
    self.addresses = tuple(a for file in files for a in file.addresses)
    self.parts = tuple(dict.fromkeys(p for file in files for p in file.parts))
    if measurements and measurements[0].product.local.is_file():
      self.parts = (measurements[0].product.local,)

  def _check(self):
    first = self._files[0]
    for file in self._files:
      if file.count != 1:
        raise ValueError(
          f"{file.path}: {file.count} bands; expected one, since it is a"
          f" polarisation of {self.path}."
        )
      for name in ("height", "width", "dtype", "declared_nodata"):
        mine, theirs = getattr(first, name), getattr(file, name)
        if repr(mine) != repr(theirs):
          raise ValueError(
            f"{file.path}: {name.replace('_', ' ')} {theirs}, but"
            f" {first.path} has {mine}; polarisations of one scene must agree."
          )
      if not self._measurements and _place(file) != _place(first):
        raise ValueError(
          f"{file.path}: another georeference than {first.path};"
          " polarisations of one scene must lie on one grid."
        )

  def calibration(self, kind: str) -> list[sentinel1.LookUpTable]:
    """Returns the calibration of each band, as `GdalFile.calibration`."""
    if not self._measurements:
      return [table for f in self._files for table in f.calibration(kind)]
    return [each.calibration(kind) for each in self._measurements]

  def read(self, bands, rows, cols, shape=None) -> np.ndarray:
    parts = [self._files[band].read([0], rows, cols, shape) for band in bands]
    return np.concatenate(parts)

  def mask(self, rows, cols, shape=None) -> np.ndarray:
    return np.logical_and.reduce(
      [file.mask(rows, cols, shape) for file in self._files if file.has_mask]
    )

  def close(self):
    for file in self._files:
      file.close()


def open_bands(
  path: Path, wanted: Sequence[str] = ()
) -> raster_files.GdalFile | raster_files.NumpyFile | BandStack:
  """Opens a raster and, if need be, files of its other polarisations.

  Args:
    path: a raster or its URL, anything of `sentinel1.find_product`, or an item
      of STAC as `stac.expand` gives it.
    wanted: polarisations to open besides the file's own. A product's folder
      gives all of its own.

  Raises:
    FileNotFoundError, ValueError: as `raster_files.open_file`, or no file of a
      wanted polarisation, or files that do not fit together.
  """
  wanted = [n for n in map(str.upper, wanted) if find_polarisations((n,))]
  if stac.is_item(path):
    return _open_item(path, wanted)
  found = None if stac.is_url(path) else sentinel1.find_product(path)
  if found is not None:
    return _open_product(*found, wanted)
  file = _open(path)
  try:
    own = find_polarisations((file.path.stem,))
    others = [name for name in wanted if own and name not in own]
    if not others or file.count != 1 or file.dataset is None:
      return file
    siblings = [find_sibling(path, name) for name in others]
    return _stack(file.path, [file], siblings, [*(own or ()), *others])
  except BaseException:
    file.close()
    raise


def check_exists(path: Path) -> None:
  """Raises FileNotFoundError for a missing raster, or a missing zip of it.

  URLs are not checked.
  """
  local = sentinel1.local_path(path)
  if stac.is_item(path):
    local = Path(str(path).partition("#")[0])
  if not stac.is_url(path) and not local.exists():
    raise FileNotFoundError(f"SAR raster not found: {local}")


def find_sibling(path: Path, polarisation: str) -> Path:
  """Returns the file that has another polarisation in its name.

  Raises:
    ValueError: there is none; the message names what was expected.

  Example: S1A_..._VV.tif and "VH" give S1A_..._VH.tif beside it.
  """
  query = ""
  if stac.is_url(path):
    text, mark, query = stac.restored(path).partition("?")
    path, query = Path(text), mark + query
  last = list(_TOKEN.finditer(path.name))[-1]
  word = polarisation if last[0].isupper() else polarisation.lower()
  name = path.name[: last.start()] + word + path.name[last.end() :]
  exact = path.with_name(name)
  if stac.is_url(path):
    return Path(f"{exact}{query}")
  if exact.is_file():
    return exact
  # Sentinel-1 numbers the images of a product: ...-vv-...-001, ...-vh-...-002.
  pattern = re.escape(name)
  pattern = re.sub(r"\\-\d{3}(?=\\\.tiff?$)", lambda _: r"\-\d{3}", pattern)
  numbered = [
    each
    for each in sorted(path.absolute().parent.glob("*"))
    if re.fullmatch(pattern, each.name)
  ]
  if len(numbered) != 1:
    raise ValueError(
      f"{path}: no file of {polarisation} beside it; expected {name}."
    )
  return path.with_name(numbered[0].name)


def _open(path: Path) -> raster_files.GdalFile | raster_files.NumpyFile:
  if not stac.is_url(path):
    return raster_files.open_file(path)
  url = stac.restored(path)
  shown = Path(gdal_files.without_secrets(url))
  return raster_files.GdalFile(shown, gdal_path(url))


def _open_item(path: Path, wanted: Sequence[str]):
  """The first polarisation of an item and those that are wanted."""
  item = stac.read_item(path)
  names = list(item.hrefs)
  names = [names[0], *(n for n in wanted if n in names[1:])]
  first = Path(item.hrefs[names[0]])
  if not stac.is_url(first) and sentinel1.find_product(first):
    return open_bands(first, wanted)
  if names == [""]:
    file = _open(first)
    file.tags = file.tags | item.tags
    return file
  hrefs = [Path(item.hrefs[name]) for name in names]
  stack = _stack(path.with_name(item.name.replace("/", "_")), [], hrefs, names)
  stack.tags = stack.tags | item.tags
  return stack


def _open_product(product, name, wanted) -> BandStack:
  images = product.measurements
  swaths = sorted({image.swath for image in images})
  if name is not None:
    given = next(image for image in images if image.name == name)
    images = [i for i in images if i.swath == given.swath and i != given]
    images = [given, *(i for i in images if i.polarisation in wanted)]
  elif len(swaths) > 1:
    listed = "\n  ".join(str(image.path) for image in images)
    raise ValueError(
      f"{product.path}: an SLC product of swaths {', '.join(swaths)}, whose"
      f" images overlap; give one of its measurements instead:\n  {listed}"
    )
  if not images:
    raise ValueError(
      f"{product.path}: no measurement/*.tiff of a polarisation in it; expected"
      " a complete Sentinel-1 product."
    )
  names = [image.polarisation for image in images]
  if len(set(names)) < len(names):
    raise ValueError(
      f"{product.path}: several images of one polarisation"
      f" ({', '.join(image.name for image in images)}); give one of them."
    )
  path = product.path if name is None else images[0].path
  if not product.local.is_dir():
    # For names and tables, not to be opened: GDAL's path has braces in it.
    path = product.path if name is None else product.local / name
  return _stack(path, [], [image.path for image in images], names, images)


def _stack(path, files, others, polarisations, measurements=()) -> BandStack:
  files = list(files)
  try:
    for other in others:
      # Those of a product may be in a zip.
      files.append(
        raster_files.GdalFile(other) if measurements else _open(other)
      )
    return BandStack(path, files, polarisations, measurements)
  except BaseException:
    for file in files:
      file.close()
    raise


def _place(file):
  dataset = file.dataset
  gcps = [(g.row, g.col, g.x, g.y) for g in dataset.gcps[0]]
  return dataset.transform, dataset.crs, gcps
