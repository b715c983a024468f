"""The body of an upload, multipart/form-data as it arrives: nothing is spooled.

Its file goes to the store piece by piece, so that a body which is too large
costs no more disk than the limit.
"""

import logging

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from fusar_jax.serving.file_store import FileStore, Incoming, StoredFile
from fusar_jax.serving.limits import RequestError

# OpenAI's client sends the file and `purpose`.
_FIELDS = 8
_FIELD_BYTES = 1024
# The client learns what is wrong; the log need not, as often as it is sent.
logging.getLogger("python_multipart").setLevel(logging.ERROR)


class UploadForm:
  """Reads one body.

  Attributes:
    fields: texts of the form.
  """

  def __init__(self, content_type: str, store: FileStore):
    """See the class.

    Args:
      content_type: header of the request.
      store: takes the file.

    Raises:
      RequestError: 400, not multipart/form-data.
    """
    kind, options = parse_options_header(content_type)
    if kind != b"multipart/form-data" or b"boundary" not in options:
      raise RequestError(
        400, "Content-Type: expected multipart/form-data with a boundary."
      )
    self.fields: dict[str, str] = {}
    self._store = store
    self._incoming: Incoming | None = None
    self._headers: dict[str, str] = {}
    self._header, self._value = bytearray(), bytearray()
    self._name, self._text = "", bytearray()
    self._parts, self._in_file, self._ended = 0, False, False
    try:
      self._parser = MultipartParser(
        options[b"boundary"],
        {
          "on_part_begin": self._begin_part,
          "on_header_field": self._header_field,
          "on_header_value": self._header_value,
          "on_header_end": self._end_header,
          "on_headers_finished": self._end_headers,
          "on_part_data": self._part_data,
          "on_part_end": self._end_part,
          "on_end": self._end,
        },
      )
    except FormParserError as error:
      raise _broken(error) from None

  def write(self, chunk: bytes) -> None:
    """Takes the next bytes of the body.

    Raises:
      RequestError: 400, not such a form; or see `FileStore.add`.
    """
    try:
      self._parser.write(chunk)
    except FormParserError as error:
      raise _broken(error) from None

  def finish(self) -> StoredFile:
    """Ends the body, and puts the file into the store.

    Raises:
      RequestError: 400, the body is cut, or has no file.
    """
    try:
      self._parser.finalize()
    except FormParserError as error:
      raise _broken(error) from None
    if not self._ended:
      raise RequestError(400, "the body is cut: its last boundary is missing.")
    if self._incoming is None:
      raise RequestError(400, "the form has no file.", "file")
    return self._incoming.finish()

  def abort(self) -> None:
    """Deletes what was written."""
    if self._incoming is not None:
      self._incoming.abort()

  def _begin_part(self) -> None:
    self._headers = {}
    self._text = bytearray()
    self._parts += 1
    if self._parts > _FIELDS:
      raise RequestError(400, f"the form has more than {_FIELDS} fields.")

  def _header_field(self, data: bytes, start: int, end: int) -> None:
    self._header += data[start:end]

  def _header_value(self, data: bytes, start: int, end: int) -> None:
    self._value += data[start:end]

  def _end_header(self) -> None:
    name = self._header.decode("latin-1").lower()
    self._headers[name] = self._value.decode("latin-1")
    self._header, self._value = bytearray(), bytearray()

  def _end_headers(self) -> None:
    _, options = parse_options_header(self._headers.get("content-disposition"))
    self._name = options.get(b"name", b"").decode("utf-8", "replace")
    self._in_file = b"filename" in options
    if not self._in_file:
      return
    if self._name != "file" or self._incoming is not None:
      raise RequestError(
        400, "expected one file, in the field named file.", "file"
      )
    name = options[b"filename"].decode("utf-8", "replace")
    self._incoming = self._store.begin(name)

  def _part_data(self, data: bytes, start: int, end: int) -> None:
    if self._in_file:
      assert self._incoming is not None
      self._incoming.write(data[start:end])
      return
    self._text += data[start:end]
    if len(self._text) > _FIELD_BYTES:
      raise RequestError(
        400,
        f"{self._name[:40]}: a text of more than {_FIELD_BYTES} bytes.",
        self._name[:40],
      )

  def _end(self) -> None:
    self._ended = True

  def _end_part(self) -> None:
    if not self._in_file:
      self.fields[self._name] = self._text.decode("utf-8", "replace")


def _broken(error: FormParserError) -> RequestError:
  return RequestError(400, f"the body is not multipart/form-data: {error}.")
