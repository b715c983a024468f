"""Checks the content of a vector file before GDAL opens it.

GDAL chooses its driver by content. A file named .gpkg may be an OGR VRT, which
reads any file or URL that it names, and does so when its layers are listed:
the driver that GDAL reports afterwards comes too late.
"""

import re
from pathlib import Path

# Suffix -> how its files begin; KML may have a prolog.
_BEGINS = {
  ".gpkg": rb"SQLite format 3\0",
  ".shp": rb"\0\0\x27\x0a",
  ".fgb": rb"fgb\x03fgb",
  ".kml": rb"(?s)(?:\xef\xbb\xbf)?\s*<.{0,4096}?<?\bkml\b",
  ".tab": rb"(?i)\s*!table",
  ".mif": rb"(?i)\s*version",
  ".geojsonl": rb"(?:\xef\xbb\xbf)?[\s\x1e]*\{",
  ".geojsons": rb"(?:\xef\xbb\xbf)?[\s\x1e]*\{",
}
# Documents of drivers that follow names: OGRVRTDataSource, OGRWFSDataSource.
_FOLLOWS = b"<OGR"
_HEAD = 1 << 20


def check(path: Path) -> None:
  """Raises ValueError unless a file begins as its suffix promises.

  Args:
    path: file with a suffix of `_BEGINS`; any case.

  Raises:
    ValueError: another content; the message names the file and the fix.
    OSError: the file cannot be read.
  """
  suffix = path.suffix.lower()
  with path.open("rb") as file:
    head = file.read(_HEAD)
  if not re.match(_BEGINS[suffix], head) or _FOLLOWS in head:
    raise ValueError(
      f"{path}: cannot be read: its content is not that of a {suffix} file, it"
      f" begins with {head[:16]!r}; save it again in that format."
    )
