"""Class tables of land-cover products: code in the raster -> land cover.

  worldcover     ESA WorldCover 10 m (2020 v100, 2021 v200)
  dynamic-world  Dynamic World, band "label"
  esri           Esri 10 m annual land use and land cover (2017 on)
  corine         CORINE Land Cover, level 3 (111..523) or raster codes (1..44)

Any other product needs a CSV with the columns code and cover, one line a class;
"unmapped" marks codes without land cover, such as clouds.

A class that mixes covers has the one that its definition names first, or is
unmapped if there is none. CORINE also names the kind of water.
"""

import csv
import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from fusar_jax.tasks.description.ground import (
  BARE,
  BUILT,
  COVERS,
  CROPS,
  FLOODED,
  GRASS,
  MOSS,
  RANGELAND,
  SHRUB,
  SNOW,
  TREES,
  UNMAPPED,
  URBAN_GREEN,
  WATER,
)

# Codes are at most 16 bits, so that one lookup table translates them.
MAX_CODE = 1 << 16
_MAX_BYTES = 1 << 20
_NO_COVER = "unmapped"

_WORLDCOVER = {
  **{0: UNMAPPED, 10: TREES, 20: SHRUB, 30: GRASS, 40: CROPS, 50: BUILT},
  **{60: BARE, 70: SNOW, 80: WATER, 90: FLOODED, 95: FLOODED, 100: MOSS},
}
_DYNAMIC_WORLD = {
  **{0: WATER, 1: TREES, 2: GRASS, 3: FLOODED, 4: CROPS, 5: SHRUB, 6: BUILT},
  **{7: BARE, 8: SNOW},
}
# 3 (grass) and 6 (scrub) were merged into 11 after the first release.
_ESRI = {
  **{0: UNMAPPED, 1: WATER, 2: TREES, 3: GRASS, 4: FLOODED, 5: CROPS},
  **{6: SHRUB, 7: BUILT, 8: BARE, 9: SNOW, 10: UNMAPPED, 11: RANGELAND},
}
# In the order of the raster codes, which begin at 1.
_CORINE_LEVEL_3 = {
  **dict.fromkeys((111, 112, 121, 122, 123, 124), BUILT),
  **dict.fromkeys((131, 132, 133), BARE),
  **dict.fromkeys((141, 142), URBAN_GREEN),
  **dict.fromkeys((211, 212, 213, 221, 222, 223), CROPS),
  231: GRASS,
  **dict.fromkeys((241, 242, 243, 244), CROPS),
  **dict.fromkeys((311, 312, 313), TREES),
  321: GRASS,
  **dict.fromkeys((322, 323, 324), SHRUB),
  **dict.fromkeys((331, 332, 333, 334), BARE),
  335: SNOW,
  **dict.fromkeys((411, 412, 421, 422, 423), FLOODED),
  **dict.fromkeys((511, 512, 521, 522, 523), WATER),
}
_CORINE = {
  **_CORINE_LEVEL_3,
  **dict(enumerate(_CORINE_LEVEL_3.values(), 1)),
  # No data, unclassified land, unclassified water: raster codes, then level 3.
  **{48: UNMAPPED, 49: UNMAPPED, 50: WATER},
  **{990: UNMAPPED, 995: WATER, 999: UNMAPPED},
}
TABLES = {
  "worldcover": _WORLDCOVER,
  "dynamic-world": _DYNAMIC_WORLD,
  "esri": _ESRI,
  "corine": _CORINE,
}
# Product names in file names, with the year.
_NAMES = {
  "worldcover": r"ESA_WorldCover_10m_(?P<year>20\d\d)_v\d+",
  "dynamic-world": r"dynamic_?world(?:.*?(?P<year>20[12]\d))?",
  "esri": r"(?:^|_)\d\d[C-X]_(?P<year>20\d\d)\d{4}-20\d{6}",
  "corine": r"CLC_?(?P<year>(?:19|20)\d\d)",
}


@dataclasses.dataclass(frozen=True)
class ClassTable:
  """Codes of one product.

  Attributes:
    name: of TABLES, or the file's.
    covers: code -> index into COVERS, or UNMAPPED.
  """

  name: str
  covers: Mapping[int, int]

  def lookup(self) -> tuple[np.ndarray, np.ndarray]:
    """Returns uint8[MAX_CODE] covers, and bool[MAX_CODE] which are listed."""
    covers = np.full(MAX_CODE, UNMAPPED, np.uint8)
    listed = np.zeros(MAX_CODE, bool)
    codes = np.fromiter(self.covers, np.int64)
    covers[codes] = list(self.covers.values())
    listed[codes] = True
    return covers, listed


def recognise(path: Path) -> tuple[str | None, int | None]:
  """Returns (name of the table, year) from a product's file name, or None.

  Example:
    >>> recognise(Path("ESA_WorldCover_10m_2021_v200_N36W123_Map.tif"))
    ('worldcover', 2021)
  """
  for name, pattern in _NAMES.items():
    if found := re.search(pattern, path.stem, re.IGNORECASE):
      return name, int(found["year"]) if found["year"] else None
  return None, None


def read_table(name: str) -> ClassTable:
  """Returns one of TABLES, or the table of a CSV file.

  Raises:
    ValueError: neither, or a bad line of the file; all are listed.
  """
  if name in TABLES:
    return ClassTable(name, TABLES[name])
  path = Path(name)
  if not path.is_file():
    raise ValueError(
      f"land-cover table {name!r}: expected one of {', '.join(TABLES)}, or a"
      " CSV file with the columns code and cover."
    )
  if path.stat().st_size > _MAX_BYTES:
    raise ValueError(
      f"{path}: {path.stat().st_size:,} bytes; a table of classes has at most"
      f" {_MAX_BYTES:,}."
    )
  with path.open(newline="", encoding="utf-8-sig") as file:
    try:
      reader = csv.DictReader(file, skipinitialspace=True)
      columns = reader.fieldnames or ()
      rows = [(reader.line_num, row) for row in reader]
    except (ValueError, csv.Error) as error:
      raise ValueError(f"{path}: not a CSV file: {error}") from None
  if missing := [name for name in ("code", "cover") if name not in columns]:
    raise ValueError(
      f"{path}: expected the columns code and cover in its first line; missing"
      f" {', '.join(missing)}."
    )
  covers, problems = {}, []
  for line, row in rows:
    try:
      code, cover = _entry(row)
      if code in covers:
        raise ValueError(f"code {code} occurs twice")
      covers[code] = cover
    except ValueError as error:
      problems.append(f"{path} line {line}: {error}")
  if problems or not covers:
    raise ValueError("\n".join(problems) or f"{path}: it lists no class.")
  return ClassTable(path.name, covers)


def _entry(row) -> tuple[int, int]:
  text, cover = ((row[key] or "").strip() for key in ("code", "cover"))
  if not re.fullmatch(r"\d{1,5}", text) or int(text) >= MAX_CODE:
    raise ValueError(
      f"code {text!r:.40} is not an integer in 0..{MAX_CODE - 1}"
    )
  if cover == _NO_COVER:
    return int(text), UNMAPPED
  if cover not in COVERS:
    raise ValueError(
      f"cover {cover!r:.40} is none of {', '.join(COVERS)}, {_NO_COVER}"
    )
  return int(text), COVERS.index(cover)
