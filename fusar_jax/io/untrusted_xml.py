"""XML of files that may come from anyone."""

from xml.etree import ElementTree


def parse_xml(text: bytes | str) -> ElementTree.Element:
  """Returns the root element.

  Args:
    text: of a file; of a string, the encoding that it declares does not count.

  Raises:
    ValueError: not XML in UTF-8, or with a document type.
  """
  content = text.encode() if isinstance(text, str) else text
  if b"\0" in content:  # UTF-16 would hide what is looked for below.
    raise ValueError("expected XML in UTF-8")
  if b"<!DOCTYPE" in content or b"<!ENTITY" in content:
    # Nested entities unpack to gigabytes; no file that is read needs one.
    raise ValueError("document types and entities are rejected")
  try:
    return ElementTree.fromstring(text)
  except (ElementTree.ParseError, LookupError) as error:
    raise ValueError(str(error)) from None
