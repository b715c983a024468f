"""What the pixels of a product measure, by its name and its own metadata.

Products state their units in names (HyP3's letters), in their documentation
(OPERA, Planetary Computer, Indigo, xView3), in a tag (Capella) or in a file
beside the image (ICEYE, Gaofen-3). Files of a product that hold no backscatter
(angles, masks, elevations) are rejected by name.

Factors are of power: backscatter = |DN|^2 * factor. Sources: the providers'
format descriptions; for Gaofen-3
  amplitude = DN * QualifyValue / (full scale * 10^(CalibrationConst / 20)).
"""

import dataclasses
import math
import re
from collections.abc import Mapping
from pathlib import Path

from fusar_jax.geo.quantities import AMPLITUDE, BACKSCATTER, DB, INTENSITY
from fusar_jax.io.strict_json import parse
from fusar_jax.io.untrusted_xml import parse_xml

MAX_SIDECAR_BYTES = 1 << 23

_HYP3 = re.compile(
  r"^S1[A-D]_[A-Z0-9]{2}_\d{8}T\d{6}_[A-Z]{3}_RTC\d+_[A-Z]_([gs])([pda])[a-z]{4}"
  r"_[0-9A-F]{4}_(\w+)$"
)
_LETTERS = {
  "g": "gamma0", "s": "sigma0", "p": INTENSITY, "d": DB, "a": AMPLITUDE,
}  # fmt: skip
_OPERA = re.compile(r"^OPERA_L2_RTC-S1_.*_v[\d.]+_([A-Za-z]+)$")
_PLANETARY = re.compile(r"^(iw|ew|s[1-6])-(hh|hv|vh|vv)\.rtc$", re.I)
_XVIEW3 = re.compile(r"^(HH|HV|VH|VV)_dB$")
_POLARISATIONS = ("HH", "HV", "VH", "VV")
# Files beside the backscatter of products whose folder names them.
_OTHER = re.compile(
  r"^(local_incident_angle|bathymetry|owi(Mask|WindDirection|WindQuality"
  r"|WindSpeed))$",
  re.I,
)
_ICEYE_SLC = re.compile(r"(^|_)ICEYE_.*_SLC(_|$)", re.I)
_ICEYE = re.compile(r"(^|_)ICEYE_", re.I)
_GAOFEN = re.compile(r"^GF3.*_L1[AB]_(HH|HV|VH|VV)_(L\d+)$", re.I)
_DESCRIPTION = "TIFFTAG_IMAGEDESCRIPTION"
_SICD_PHASE = b"AMP8I_PHS8I"


@dataclasses.dataclass(frozen=True)
class Units:
  """Units of a product's file.

  Attributes:
    reason: how they are known, for the record.
    quantity: of the stored values; None: as guessed from them.
    backscatter: "sigma0", "beta0" or "gamma0", if the stored values are it.
    factors: by kind, of the power of the stored values.
    amplitude_only: the second band is a phase, and not read.
    problem: why the metadata beside the file, which only a calibration needs,
      cannot be used, or "".
  """

  reason: str
  quantity: str | None = None
  backscatter: str | None = None
  factors: Mapping[str, float] = dataclasses.field(default_factory=dict)
  amplitude_only: bool = False
  problem: str = ""


@dataclasses.dataclass(frozen=True)
class Constant:
  """A calibration that is the same for all pixels; as `LookUpTable`."""

  factor: float

  def factors(self, rows, cols) -> float:
    return self.factor


def find_units(
  path: Path, tags: Mapping[str, str], dtype: str, count: int
) -> Units | None:
  """Returns the units of a known product's file, else None.

  Args:
    path: of the file.
    tags: of the file.
    dtype, count: type and number of its bands.

  Raises:
    ValueError: a file of a product that holds no backscatter, or values that
      cannot be read as such; the message names it.
  """
  stem = path.stem
  if _OTHER.match(stem):
    raise _no_backscatter(path, stem)
  if found := _HYP3.match(stem):
    return _hyp3(path, found)
  if found := _OPERA.match(stem):
    if found[1] not in _POLARISATIONS:
      raise _no_backscatter(path, found[1])
    return Units("OPERA RTC-S1: power", INTENSITY, "gamma0")
  if _PLANETARY.match(stem):
    reason = "Planetary Computer's Sentinel-1 RTC: power"
    return Units(reason, INTENSITY, "gamma0")
  if _XVIEW3.match(stem):
    return Units("xView3: dB", DB)
  if found := re.match(r"^(Sigma|Beta|Gamma)0_(HH|HV|VH|VV)$", stem, re.I):
    kind = f"{found[1].lower()}0"
    return Units(f"named {stem!r}: backscatter, linear", INTENSITY, kind)
  if "CAPELLA" in stem.upper() or "capella" in tags.get(_DESCRIPTION, ""):
    return _capella(path, tags)
  if _ICEYE.search(stem):
    return _iceye(path, dtype, count)
  if found := _GAOFEN.match(stem):
    return _gaofen(path, found[1].upper(), found[2])
  if path.suffix.lower() in (".nitf", ".ntf"):
    _check_sicd(path)
  return None


def _hyp3(path, found) -> Units:
  if found[3] not in _POLARISATIONS:
    raise _no_backscatter(path, found[3])
  kind, quantity = _LETTERS[found[1]], _LETTERS[found[2]]
  letters = f"{found[1]}{found[2]}"
  return Units(f"HyP3 RTC: {letters} is {kind}, {quantity}", quantity, kind)


def _capella(path, tags) -> Units | None:
  try:
    image = parse(tags.get(_DESCRIPTION, ""))["collect"]["image"]
    scale, radiometry = image["scale_factor"], image["radiometry"]
  except (ValueError, KeyError, TypeError):
    return None
  kinds = {f"{kind[:-1]}_nought": kind for kind in BACKSCATTER}
  if radiometry not in kinds or not _positive(scale):
    return None
  return Units(
    f"Capella: {radiometry} is (DN * {scale:.6g})^2",
    factors={kinds[radiometry]: float(scale) ** 2},
  )


def _iceye(path, dtype, count) -> Units | None:
  slc = bool(_ICEYE_SLC.search(path.stem))
  phase = slc and count == 2 and dtype.startswith("uint")
  reason = "ICEYE SLC: amplitude, and a phase that is not read"
  factors, problem = {}, ""
  beside = path.with_suffix(".json")
  if beside.is_file():
    try:
      properties = parse(_text(beside)).get("properties", {})
      factor = properties.get("iceye:calibration_factor")
    except (ValueError, AttributeError) as error:
      factor, problem = None, f"{beside}: not ICEYE's metadata: {error}"
    if factor is not None and _positive(factor):
      factors = {"beta0" if slc else "sigma0": float(factor)}
  if not (phase or factors or problem):
    return None
  return Units(
    reason if phase else "ICEYE: amplitude",
    AMPLITUDE if phase else None,
    factors=factors,
    amplitude_only=phase,
    problem=problem,
  )


def _gaofen(path, polarisation, number) -> Units | None:
  beside = sorted(path.absolute().parent.glob(f"*_{number}.meta.xml"))
  if len(beside) != 1:
    return None
  try:
    root = parse_xml(_text(beside[0]))
  except ValueError as error:
    problem = f"{beside[0]}: not Gaofen-3's metadata: {error}"
    return Units("Gaofen-3", problem=problem)
  qualify = _number(root, f".//QualifyValue/{polarisation}")
  constant = _number(root, f".//CalibrationConst/{polarisation}")
  kind = (root.findtext(".//productinfo/productType") or "").strip()
  if qualify is None or constant is None or not kind:
    return None
  full = 32767 if kind == "SLC" else 65535
  factor = (qualify / full) ** 2 / 10 ** (constant / 10)
  if not _positive(factor):
    return None
  return Units(
    f"Gaofen-3: sigma0 is (DN * {qualify:g} / {full})^2 / 10^({constant:g}/10)",
    factors={"sigma0": factor},
  )


def _check_sicd(path: Path) -> None:
  """Raises ValueError for a SICD whose two bands are amplitude and phase."""
  with path.open("rb") as file:
    # The XML follows the image.
    file.seek(max(0, path.stat().st_size - MAX_SIDECAR_BYTES))
    if _SICD_PHASE in file.read(MAX_SIDECAR_BYTES):
      raise ValueError(
        f"{path}: a SICD of pixel type AMP8I_PHS8I, amplitude and phase by a"
        " table, which are not real and imaginary parts; expected RE32F_IM32F"
        " or RE16I_IM16I."
      )


def _no_backscatter(path: Path, layer: str) -> ValueError:
  return ValueError(
    f"{path}: {layer!r} of this product holds no backscatter; expected the file"
    f" of a polarisation ({', '.join(_POLARISATIONS)})."
  )


def _text(path: Path) -> str:
  with path.open("rb") as file:
    content = file.read(MAX_SIDECAR_BYTES + 1)
  if len(content) > MAX_SIDECAR_BYTES:
    raise ValueError(f"more than {MAX_SIDECAR_BYTES:,} bytes")
  return content.decode("utf-8-sig")


def _number(root, where) -> float | None:
  # "NULL" for polarisations that a product lacks.
  try:
    value = float(root.findtext(where) or "nan")
  except ValueError:
    return None
  return value if math.isfinite(value) else None


def _positive(value) -> bool:
  return (
    isinstance(value, int | float)
    and not isinstance(value, bool)
    and 0 < value < math.inf
  )
