"""XML of annotation files, which are untrusted."""

import os
import xml.etree.ElementTree as ET
from pathlib import Path


def read_xml(path: str | os.PathLike) -> ET.Element:
  """Returns the root element.

  Raises:
    FileNotFoundError: no such file.
    ValueError: not XML in UTF-8, or with a document type.
  """
  path = Path(path)
  if not path.is_file():
    raise FileNotFoundError(f"annotation not found: {path}")
  text = path.read_bytes()
  if b"\0" in text:  # UTF-16 would hide what is looked for below.
    raise ValueError(f"{path}: expected XML in UTF-8")
  if b"<!DOCTYPE" in text or b"<!ENTITY" in text:
    # Nested entities unpack to gigabytes; no annotation needs one.
    raise ValueError(f"{path}: document types and entities are rejected")
  # Files of OpenSARShip's GRD products end with a backslash for a slash.
  text = text.replace(b"<\\ShipList>", b"</ShipList>")
  try:
    return ET.fromstring(text)
  except (ET.ParseError, ValueError, LookupError) as error:
    raise ValueError(f"{path}: {error}") from None
