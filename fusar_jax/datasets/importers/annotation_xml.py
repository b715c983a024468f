"""XML of annotation files, which are untrusted."""

import os
import xml.etree.ElementTree as ET
from pathlib import Path

from fusar_jax.io.untrusted_xml import parse_xml


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
  # Files of OpenSARShip's GRD products end with a backslash for a slash.
  text = text.replace(b"<\\ShipList>", b"</ShipList>")
  try:
    return parse_xml(text)
  except ValueError as error:
    raise ValueError(f"{path}: {error}") from None
