"""SAR metadata from product names and tags: sensor, date, polarisation.

Ambiguous patterns give None: a wrong year would select the wrong vectors. The
TIFF date tag is never used: it contains the time of processing, hours or years
after acquisition.
"""

import dataclasses
import datetime
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# In order; {0} is the pattern's first group. Matched in upper case.
_SENSORS = (
  (r"\bS1([A-D])\b", "Sentinel-1{0}"),
  (r"SENTINEL-1([A-D])\b", "Sentinel-1{0}"),
  (r"\bGF-?3([BC]?)[_-]", "Gaofen-3{0}"),
  (r"\bUMBRA-?(\d+)", "Umbra-{0}"),
  (r"\bCAPELLA_C(\d+)_", "Capella-{0}"),
  (r"\bICEYE_?(X\d+)?", "ICEYE"),
  (r"\b(?:TSX1?|TERRASAR-?X)\b", "TerraSAR-X"),
  (r"\b(?:TDX1?|TANDEM-?X)\b", "TanDEM-X"),
  (r"\b(?:RS2|RADARSAT-?2)\b", "RADARSAT-2"),
  (r"\bRCM([123])\b", "RCM-{0}"),
  (r"\bALOS-?2", "ALOS-2"),
  (r"\bCSKS?\d\b|\bCOSMO-?SKYMED", "COSMO-SkyMed"),
)
_POLARISATION = re.compile(r"(?<![A-Z0-9])(HH|HV|VH|VV)(?![A-Z0-9])")
# Sentinel-1's product code, as in ..._1SDV_...
_CODES = {"SH": ("HH",), "SV": ("VV",), "DH": ("HH", "HV"), "DV": ("VV", "VH")}
_CODE = re.compile(r"_[012][SA](SH|SV|DH|DV)_")
# A time may follow without a separator: 20240709040329.
_DATE = re.compile(
  r"(?<!\d)((?:19|20)\d\d)([-_]?)(\d\d)\2(\d\d)"
  r"(?:(?:[01]\d|2[0-3])[0-5]\d[0-5]\d)?(?!\d)"
)
# Parent folders that may have the product's name (measurement/).
_PARENTS = 4


@dataclasses.dataclass(frozen=True)
class Metadata:
  """Metadata of an image; None if unknown.

  Attributes:
    sensor: "Sentinel-1A".
    polarisations: ("VV", "VH"); in band order if the bands are named.
    date: of acquisition (its start), "2023-08-09".
    ground_sampling_distance: metres per (row, column), at the centre.
  """

  sensor: str | None = None
  polarisations: tuple[str, ...] | None = None
  date: str | None = None
  ground_sampling_distance: tuple[float, float] | None = None

  def to_json(self) -> dict[str, Any]:
    """Returns JSON values; unknown ones are None."""
    return dataclasses.asdict(self)


def find_polarisations(names: tuple[str, ...]) -> tuple[str, ...] | None:
  """Returns one polarisation for each name, or None if one has none.

  Example:
    >>> find_polarisations(("Sigma0_VV_db", "Sigma0_VH_db"))
    ('VV', 'VH')
  """
  found = [_POLARISATION.findall(_spaced(name)) for name in names]
  if not all(len(set(each)) == 1 for each in found):
    return None
  each = tuple(each[0] for each in found)
  return each if len(set(each)) == len(each) else None


def find_metadata(
  path: Path, tags: Mapping[str, str], names: tuple[str, ...]
) -> Metadata:
  """Returns the metadata in a file's name, its folders and its tags.

  Args:
    path: of the raster; of folders above it only one that names a sensor
      counts, as a product's own folder does.
    tags: of the raster, GDAL's IMAGERY domain among them.
    names: of its bands.

  Example:
    >>> find_metadata(Path("s1a-iw1-slc-hh-20220414t102211-20220414t102236"
    ...                    "-042768-051aa4-001.tiff"), {}, ("1",))
    Metadata(sensor='Sentinel-1A', polarisations=('HH',), date='2022-04-14', \
ground_sampling_distance=None)
  """
  parents = [parent.name for parent in path.absolute().parents][:_PARENTS]
  products = [name for name in parents if _sensor(name)]
  texts = [path.stem, *products]
  sensor = next(filter(None, map(_sensor, texts)), None)
  if sensor is None:
    sensor = _sensor(tags.get("SATELLITEID", ""))
  if sensor is None:
    sensor = _sensor(tags.get("TIFFTAG_IMAGEDESCRIPTION", ""))
  date = _date(tags.get("ACQUISITIONDATETIME", ""))
  date = date or next(filter(None, map(_date, texts)), None)
  polarisations = (
    find_polarisations(names)
    or (len(names) == 1 and find_polarisations((path.stem,)))
    or next(filter(None, (_coded(n, len(names)) for n in texts)), None)
  )
  return Metadata(sensor, polarisations or None, date)


def _spaced(name):
  # An underscore is a word's end here, unlike in \b.
  return name.upper().replace("_", " ")


def _sensor(name):
  for pattern, sensor in _SENSORS:
    for text in (name.upper(), _spaced(name)):
      if found := re.search(pattern, text):
        return sensor.format(*(g or "" for g in found.groups()))
  return None


def _date(name):
  dates = []
  for year, _, month, day in _DATE.findall(name):
    try:
      dates.append(datetime.date(int(year), int(month), int(day)).isoformat())
    except ValueError:
      continue
  # A product gives start and stop, in this order. Elsewhere two dates may be
  # a composite's range, or an acquisition and a processing.
  if dates and (_sensor(name) or len(set(dates)) == 1):
    return dates[0]
  return None


def _coded(name, bands):
  found = _CODE.search(name.upper())
  polarisations = _CODES[found[1]] if found else ()
  return polarisations if len(polarisations) == bands else None
