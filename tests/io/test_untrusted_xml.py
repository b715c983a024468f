"""XML of anyone: no entities, whatever the encoding."""

import pytest

from fusar_jax.io.untrusted_xml import parse_xml

_ENTITIES = '<!DOCTYPE a [<!ENTITY b "bbbb">]><a>&b;</a>'


@pytest.mark.parametrize("text", ["<a>é</a>", "<a>é</a>".encode()])
def test_text_and_bytes(text):
  assert parse_xml(text).text == "é"


@pytest.mark.parametrize(
  ("text", "message"),
  [
    (_ENTITIES, "document types"),
    (_ENTITIES.encode(), "document types"),
    (_ENTITIES.encode("utf-16"), "UTF-8"),
    ("<a>", "no element found"),
    (b'<?xml version="1.0" encoding="none"?><a/>', "unknown encoding"),
  ],
)
def test_rejected(text, message):
  with pytest.raises(ValueError, match=message):
    parse_xml(text)
