"""Files at https://, gs:// and s3:// as readable, seekable Python files.

For tables that are read by Python, such as the published indexes; rasters are
read by GDAL. Only ranges of bytes are requested, so a Parquet file of 70 MB is
read in part and a CSV of 800 MB is streamed. Buckets are read without an
account. CPL_GS_ENDPOINT, AWS_S3_ENDPOINT, AWS_HTTPS and AWS_REGION are those of
GDAL.
"""

import http.client
import io
import os
import re
import time
import urllib.error
import urllib.parse
import urllib.request

from fusar_jax.geo.gdal_files import without_secrets
from fusar_jax.geo.gdal_options import gdal_options
from fusar_jax.geo.remote_errors import denied, unreachable

_RETRIES = 4
_RETRY_STATUS = (408, 429, 500, 502, 503, 504)
_TIMEOUT = 60  # Seconds without a byte.
# Content networks reject the default name of urllib.
AGENT = "fusar-jax"
# Of errors whose own text repeats the address, secrets included.
INVALID = (
  "not a valid address; write spaces as %20, and give no user or password"
)
_BUFFER = 4 << 20
_VSI = {"/vsicurl/": "", "/vsigs/": "gs://", "/vsis3/": "s3://"}


def open_remote(url: str) -> "RemoteFile":
  """Opens a file at a URL; nothing of its content is read yet.

  Raises:
    FileNotFoundError: no such file.
    PermissionError: the server denies access.
    ConnectionError: the server does not answer, after retries.
    ValueError: the server does not state the size, or gives no ranges.
  """
  return RemoteFile(url)


def https_url(url: str) -> str:
  """Returns the https form of gs://BUCKET/KEY and s3://BUCKET/KEY.

  GDAL's forms, /vsigs/ and the like, are understood, too.

  Example:
    >>> https_url("gs://alphaearth_foundations/a.csv")
    'https://storage.googleapis.com/alphaearth_foundations/a.csv'
  """
  for prefix, scheme in _VSI.items():
    if url.startswith(prefix):
      url = scheme + url.removeprefix(prefix)
  scheme, _, rest = url.partition("://")
  if scheme == "gs":
    end = os.environ.get("CPL_GS_ENDPOINT", "https://storage.googleapis.com/")
    return end.rstrip("/") + "/" + urllib.parse.quote(rest)
  if scheme == "s3":
    region = os.environ.get("AWS_REGION") or os.environ.get(
      "AWS_DEFAULT_REGION", str(gdal_options().get("AWS_REGION"))
    )
    end = os.environ.get("AWS_S3_ENDPOINT", f"s3.{region}.amazonaws.com")
    plain = os.environ.get("AWS_HTTPS", "YES").upper() in ("NO", "FALSE", "OFF")
    return f"http{'' if plain else 's'}://{end}/{urllib.parse.quote(rest)}"
  return url


class RemoteFile(io.RawIOBase):
  """A file at a URL; not thread-safe.

  Attributes:
    size: bytes.
  """

  def __init__(self, url: str):
    self._shown = without_secrets(url)
    self._url = https_url(url)
    self._at = 0
    with self._request(0, 1) as answer:
      self.size = self._check_range(answer, 0)

  def readable(self) -> bool:
    return True

  def seekable(self) -> bool:
    return True

  def tell(self) -> int:
    return self._at

  def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
    base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size}
    self._at = max(0, base[whence] + offset)
    return self._at

  def readinto(self, buffer) -> int:
    wanted = min(len(buffer), self.size - self._at)
    if wanted <= 0:
      return 0
    data = self._fetch(self._at, wanted)
    buffer[: len(data)] = data
    self._at += len(data)
    return len(data)

  def buffered(self) -> io.BufferedReader:
    """Returns a reader of 4 MiB at a time."""
    return io.BufferedReader(self, _BUFFER)

  def _fetch(self, first, count):
    """Returns exactly count bytes; asks again for what a fault cut off."""
    data = b""
    for attempt in range(_RETRIES + 1):
      try:
        start = first + len(data)
        with self._request(start, count - len(data)) as answer:
          self._check_range(answer, start)
          data += answer.read(count - len(data))
      except http.client.IncompleteRead as error:
        data += error.partial
      except OSError as error:
        if isinstance(error, PermissionError | FileNotFoundError):
          raise
        _pause(attempt, self._shown, error)
        continue
      if len(data) == count:
        return data
      _pause(attempt, self._shown, "the answer ended early")
    raise AssertionError("unreachable: _pause raises at the last attempt")

  def _check_range(self, answer, first) -> int:
    """Returns the file's size; raises ValueError for other bytes."""
    sent = answer.headers.get("Content-Range", "")
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", sent)
    if answer.status != 206 or not found or int(found[1]) != first:
      raise ValueError(
        f"{self._shown}: expected a server of byte ranges, got status"
        f" {answer.status} and {sent or 'no'!r} range for bytes from {first};"
        " download the file once."
      )
    return int(found[2])

  def _request(self, first, count):
    """Returns the open answer to a request for a range."""
    last = first + count - 1
    headers = {"Range": f"bytes={first}-{last}", "User-Agent": AGENT}
    request = urllib.request.Request(self._url, headers=headers)
    for attempt in range(_RETRIES + 1):
      try:
        return urllib.request.urlopen(request, timeout=_TIMEOUT)
      except urllib.error.HTTPError as error:
        error.close()
        if error.code in (401, 403):
          raise PermissionError(denied(self._shown)) from None
        if error.code == 404:
          raise FileNotFoundError(f"{self._shown}: not found (404).") from None
        if error.code not in _RETRY_STATUS:
          raise ValueError(
            f"{self._shown}: the server answers {error.code} {error.reason}."
          ) from None
        _pause(attempt, self._shown, f"status {error.code}")
      except http.client.InvalidURL:
        raise ValueError(f"{self._shown}: {INVALID}.") from None
      except (OSError, http.client.HTTPException) as error:
        _pause(attempt, self._shown, getattr(error, "reason", error))
    raise AssertionError("unreachable: _pause raises at the last attempt")


def _pause(attempt, shown, cause):
  """Waits before the next attempt; raises after the last one."""
  if attempt >= _RETRIES:
    raise ConnectionError(unreachable(shown, cause))
  delay = gdal_options().get("GDAL_HTTP_RETRY_DELAY")
  delay = delay or os.environ["GDAL_HTTP_RETRY_DELAY"]
  time.sleep(float(delay) * 2**attempt)
