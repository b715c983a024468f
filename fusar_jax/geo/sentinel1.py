"""Files of a Sentinel-1 product (.SAFE): folder, zip, manifest, measurement.

  NAME.SAFE/measurement/s1b-iw-grd-vv-...-001.tiff      one per polarisation
  NAME.SAFE/annotation/s1b-iw-grd-vv-...-001.xml        geolocation grid
  NAME.SAFE/annotation/calibration/calibration-....xml  look-up tables

The layout of AWS has iw-vv.tiff and calibration-iw-vv.xml. Files are found by
their names inside the product; the manifest is never followed, since it may
name any file. A zip is read where it is.

Axes: V calibration vectors, K pixels of a vector.
"""

import bisect
import dataclasses
import functools
import lzma
import re
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from xml.etree import ElementTree

import numpy as np

from fusar_jax.io.untrusted_xml import parse_xml

# Calibration files of a full swath have about 1 MB, annotations 2 MB.
MAX_XML_BYTES = 1 << 25
# Annotations have 210. A spline through 2000 took over 100 s, and memory grows
# with the square of their number.
MAX_POINTS = 2000
# A product has about 40 files.
MAX_FILES = 10_000
# Kind of backscatter -> element of a calibration vector.
TABLES = {"sigma0": "sigmaNought", "beta0": "betaNought", "gamma0": "gamma"}
_MEASUREMENT = re.compile(
  r"(?:^|/)measurement/((?:s1[a-d]-)?([a-z0-9]+?)(?:-(?:grd|slc))?"
  r"-(hh|hv|vh|vv)(?:-[0-9a-z-]+)?)\.tiff?$"
)
_ZIPPED = (
  re.compile(r"zip:/+(.*?\.zip)!/*(.*)$", re.I | re.S),
  re.compile(r"/vsizip/+\{?(.*?\.zip)\}?(?:/(.*))?$", re.I | re.S),
)
# The band shown by default is the co-polarised one.
_ORDER = ("vv", "hh", "vh", "hv")
_DAMAGE = (
  zipfile.BadZipFile,
  zlib.error,
  lzma.LZMAError,
  OSError,
  EOFError,
  RuntimeError,
  NotImplementedError,
)


@dataclasses.dataclass(frozen=True)
class Measurement:
  """One image of a product.

  Attributes:
    product: the files.
    name: of the TIFF inside the product.
    swath: "IW", "IW1", ...
    polarisation: "VV", "VH", "HH" or "HV".
  """

  product: "Product"
  name: str
  swath: str
  polarisation: str

  @property
  def path(self) -> Path:
    """Of the TIFF: local, or GDAL's /vsizip/ path."""
    return self.product.path_of(self.name)

  def control_points(self) -> tuple[tuple[float, ...], ...]:
    """Returns ((row, col, lon, lat, height), ...) of the geolocation grid.

    Empty without an annotation.

    Raises:
      ValueError: a damaged annotation; the message names it.
    """
    name = self._beside("annotation", "")
    if name is None:
      return ()
    names = ("line", "pixel", "longitude", "latitude", "height")
    points = []
    for point in self.product.xml(name).iter("geolocationGridPoint"):
      if len(points) == MAX_POINTS:
        raise ValueError(
          f"{self.product.path_of(name)}: more than {MAX_POINTS} points of the"
          " geolocation grid; fetch the product again."
        )
      points.append(tuple(self._number(name, point, each) for each in names))
    return tuple(points)

  def calibration(self, kind: str) -> "LookUpTable":
    """Returns the look-up table of "sigma0", "beta0" or "gamma0".

    Raises:
      ValueError: the product has none, or a damaged one.
    """
    name = self._beside("annotation/calibration", "calibration-")
    if name is None:
      stem = PurePosixPath(self.name).stem
      raise ValueError(
        f"{self.path}: no calibration-{stem}.xml in annotation/calibration of"
        " its product, so it cannot be calibrated; get the complete product, or"
        " leave it uncalibrated."
      )
    vectors = []
    for vector in self.product.xml(name).iter("calibrationVector"):
      line = self._number(name, vector, "line")
      pixels, values = (
        self._numbers(name, vector, each) for each in ("pixel", TABLES[kind])
      )
      vectors.append((line, pixels, values))
    try:
      return LookUpTable.of(vectors)
    except ValueError as error:
      raise ValueError(f"{self.product.path_of(name)}: {error}") from None

  def _beside(self, folder: str, prefix: str) -> str | None:
    image = PurePosixPath(self.name)
    # Cloud-optimised copies append -cog to the image's name.
    for stem in (image.stem, image.stem.removesuffix("-cog")):
      wanted = str(image.parent.parent / folder / f"{prefix}{stem}.xml")
      if wanted in self.product.names:
        return wanted
    return None

  def _number(self, name, element, tag) -> float:
    numbers = self._numbers(name, element, tag)
    if len(numbers) != 1:
      raise ValueError(
        f"{self.product.path_of(name)}: expected one number as <{tag}>, got"
        f" {len(numbers)}."
      )
    return float(numbers[0])

  def _numbers(self, name, element, tag) -> np.ndarray:
    text = element.findtext(tag) or ""
    try:
      numbers = np.array(text.split(), np.float64)
    except ValueError as error:
      raise ValueError(
        f"{self.product.path_of(name)}: <{tag}>: {error}"
      ) from None
    if not np.isfinite(numbers).all():
      raise ValueError(f"{self.product.path_of(name)}: <{tag}> is not finite.")
    return numbers


@dataclasses.dataclass(frozen=True)
class LookUpTable:
  """Calibration constants A on a grid; backscatter = |DN|^2 / A^2.

  Attributes:
    lines: float64[V], rising.
    pixels: V arrays float64[K], rising.
    values: V arrays float64[K] of A, above 0.
  """

  lines: tuple[float, ...]
  pixels: tuple[np.ndarray, ...]
  values: tuple[np.ndarray, ...]

  @classmethod
  def of(cls, vectors) -> "LookUpTable":
    """Returns the table of (line, pixels, values) in any order of lines.

    Raises:
      ValueError: no vector, unequal lengths, pixels that do not rise, or a
        value that is not above 0.
    """
    if not vectors:
      raise ValueError("no <calibrationVector>; fetch the product again.")
    vectors = sorted(vectors, key=lambda vector: vector[0])
    for line, pixels, values in vectors:
      if not len(pixels) or len(pixels) != len(values):
        raise ValueError(
          f"calibration vector of line {line:g}: {len(pixels)} pixels,"
          f" {len(values)} values; expected as many."
        )
      if (np.diff(pixels) <= 0).any() or (values <= 0).any():
        raise ValueError(
          f"calibration vector of line {line:g}: expected rising pixels and"
          " values above 0."
        )
    return cls(*map(tuple, zip(*vectors)))

  def factors(self, rows: tuple[int, int], cols: tuple[int, int]) -> np.ndarray:
    """Returns float32[h, w], 1 / A^2 of a window, bilinear in line and pixel.

    Beyond the first and last vector or pixel, A is that of the nearest.

    Args:
      rows, cols: (start, stop).
    """
    first = max(bisect.bisect_right(self.lines, rows[0]) - 1, 0)
    last = min(bisect.bisect_left(self.lines, rows[1]), len(self.lines) - 1)
    last = max(first, last)
    across = np.arange(*cols, dtype=np.float64)
    near = np.stack(
      [
        np.interp(across, self.pixels[v], self.values[v])
        for v in range(first, last + 1)
      ]
    )
    down = np.arange(*rows, dtype=np.float64)
    at = np.interp(
      down, self.lines[first : last + 1], np.arange(last - first + 1)
    )
    below = np.minimum(at.astype(int) + 1, last - first)
    above = at.astype(int)
    share = (at - above)[:, None]
    constants = near[above] * (1 - share) + near[below] * share
    return (1 / np.square(constants)).astype(np.float32)


class Product:
  """Names and contents of a product's files, in a folder or in a zip.

  Attributes:
    path: of the .SAFE folder, inside the zip if it is zipped.
    local: the folder or the zip.
    names: of all files, "/" between folders, relative to the folder or zip.
  """

  def __init__(self, path: Path, local: Path, names: frozenset[str]):
    self.path, self.local, self.names = path, local, names

  @property
  def measurements(self) -> list[Measurement]:
    """Returns all images, co-polarised ones first within a swath."""
    found = []
    for name in self.names:
      if match := _MEASUREMENT.search(name.lower()):
        swath, polarisation = match[2], match[3]
        key = (swath, _ORDER.index(polarisation), name)
        found.append(
          (key, Measurement(self, name, swath.upper(), polarisation.upper()))
        )
    return [measurement for _, measurement in sorted(found, key=lambda x: x[0])]

  def path_of(self, name: str) -> Path:
    """Returns the local path, or GDAL's path into a zip."""
    if self.local.is_dir():
      return self.local / name
    # Braces: a folder above the zip may itself end in .zip.
    return Path(f"/vsizip/{{{self.local.absolute()}}}/{name}")

  def xml(self, name: str) -> ElementTree.Element:
    """Returns the root of an XML file.

    Raises:
      ValueError: too large, or no XML; the message names the file.
    """
    where = self.path_of(name)
    try:
      if self.local.is_dir():
        with where.open("rb") as file:
          text = file.read(MAX_XML_BYTES + 1)
      else:
        with zipfile.ZipFile(self.local) as archive, archive.open(name) as file:
          text = file.read(MAX_XML_BYTES + 1)
      if len(text) > MAX_XML_BYTES:
        raise ValueError(f"more than {MAX_XML_BYTES:,} bytes")
      return parse_xml(text)
    except (ValueError, *_DAMAGE) as error:
      raise ValueError(
        f"{where}: not a readable annotation: {error}."
      ) from None


def find_product(path: Path) -> tuple[Product, str | None] | None:
  """Returns (product, name of the measurement that was given, or None).

  Args:
    path: a folder with measurement/, a zip that contains one, a manifest.safe,
      a file in measurement/ of a product with annotations, or the path of one
      of these inside a zip: /vsizip/A.zip/NAME.SAFE, zip://A.zip!NAME.SAFE.

  Returns:
    None if the path is none of these.

  Raises:
    ValueError: a damaged zip, or one of several products.
  """
  if zipped := _in_zip(path):
    return _zipped(*zipped)
  if path.name.lower() == "manifest.safe" and path.is_file():
    path = path.absolute().parent
  if path.is_dir():
    if not (path / "measurement").is_dir():
      return None
    return Product(path, path, _listed(path)), None
  folder = path.absolute().parent
  if folder.name == "measurement" and (folder.parent / "annotation").is_dir():
    root = folder.parent
    name = f"measurement/{path.name}"
    if path.is_file() and _MEASUREMENT.search(name.lower()):
      return Product(root, root, _listed(root)), name
  return None


def local_path(path: Path) -> Path:
  """Returns the zip that a path leads into, else the path itself."""
  zipped = _in_zip(path)
  return zipped[0] if zipped else path


def _listed(folder: Path) -> frozenset[str]:
  # Only where files are looked for: a folder may hold anything else.
  names = set()
  for part in ("measurement", "annotation", "annotation/calibration"):
    for count, file in enumerate(sorted((folder / part).glob("*"))):
      if count >= MAX_FILES:
        raise ValueError(f"{folder / part}: more than {MAX_FILES} files.")
      if file.is_file():
        names.add(f"{part}/{file.name}")
  return frozenset(names)


def _in_zip(path: Path) -> tuple[Path, str] | None:
  """Returns (local zip, path inside) of the ways to name a zip's content."""
  text = str(path)
  for pattern in _ZIPPED:
    if found := pattern.match(text):
      local = Path(found[1])
      # Path() removes a slash of zip:///a.zip and of /vsizip//a.zip.
      rooted = Path("/", found[1])
      return (rooted if rooted.is_file() else local), found[2] or ""
  if path.suffix.lower() == ".zip" and path.is_file():
    return path, ""
  return None


def _zipped(local: Path, inside: str) -> tuple[Product, str | None]:
  names = _zip_names(local)
  inside = re.sub(r"/?manifest\.safe$", "", inside.strip("/"), flags=re.I)
  if _MEASUREMENT.search(f"/{inside}".lower()) and inside in names:
    root = str(PurePosixPath(inside).parent.parent)
    return Product(_shown(local, root), local, names), inside
  within = frozenset(
    n for n in names if not inside or n.startswith(f"{inside}/")
  )
  roots = {
    str(PurePosixPath(name).parent.parent)
    for name in within
    if _MEASUREMENT.search(f"/{name}".lower())
  }
  if len(roots) != 1:
    raise ValueError(
      f"{local}: expected one Sentinel-1 product with measurement/*.tiff"
      f"{f' in {inside}' if inside else ''}, found {len(roots)}; name the .SAFE"
      " folder inside it: /vsizip/A.zip/NAME.SAFE."
    )
  return Product(_shown(local, roots.pop()), local, within), None


def _shown(local: Path, root: str) -> Path:
  return local if root == "." else local / root


@functools.lru_cache(maxsize=8)
def _zip_names_of(local: Path, _stamp) -> frozenset[str]:
  try:
    with zipfile.ZipFile(local) as archive:
      names = [
        info.filename for info in archive.infolist() if not info.is_dir()
      ]
  except (*_DAMAGE, ValueError) as error:
    raise ValueError(
      f"{local}: not a readable zip: {error}; fetch it again."
    ) from None
  if len(names) > MAX_FILES:
    raise ValueError(
      f"{local}: {len(names)} files; at most {MAX_FILES} are read."
    )
  return frozenset(names)


def _zip_names(local: Path) -> frozenset[str]:
  if not local.is_file():
    raise FileNotFoundError(f"raster not found: {local}")
  stat = local.stat()
  return _zip_names_of(local, (stat.st_size, stat.st_mtime_ns))
