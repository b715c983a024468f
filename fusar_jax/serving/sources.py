"""Where the images of a request come from.

A data URL and an uploaded file are the client's own. Paths and addresses are
read for the client by this machine, so each needs the operator's leave: a
folder (`--allow-folder`), a host (`--allow-host`).
"""

import dataclasses
import os
import re
import stat
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from fusar_jax.serving.file_store import PREFIX, FileStore
from fusar_jax.serving.limits import RequestError
from fusar_jax.serving.uploads import read_data_url

_ID = re.compile(PREFIX + "[0-9a-f]{32}")
_CONNECT = 10.0
_CHUNK = 2**20


@dataclasses.dataclass(frozen=True)
class Sources:
  """Reads what an `image_url` names; safe for threads.

  Attributes:
    store: uploaded files, or None.
    folders: whose files may be named, resolved.
    hosts: "NAME" or "NAME:PORT", whose https addresses are fetched.
    max_bytes: of a file or an answer, at most.
    seconds: until an answer is complete, at most.
  """

  store: FileStore | None = None
  folders: Sequence[Path] = ()
  hosts: Sequence[str] = ()
  max_bytes: int = 256 * 2**20
  seconds: float = 120.0

  def read(self, url: str, field: str) -> bytes:
    """Returns the content.

    Args:
      url: data URL, id of an uploaded file, path or https address.
      field: of the request, for messages.

    Raises:
      RequestError: 400, nothing that may be read; 404, no such upload; 413, too
        large.
    """
    if url.startswith("data:"):
      return read_data_url(url, field)
    if self.store is not None and _ID.fullmatch(url):
      with self.store.reading(url) as path:
        return path.read_bytes()
    if self.hosts and url.startswith("https://"):
      return self._fetch(url, field)
    if self.folders and "://" not in url.removeprefix("file://"):
      return self._read_path(url, field)
    ways = ["a data URL, data:image/png;base64,..."]
    if self.store is not None:
      ways.append("the id of an uploaded file")
    if self.folders:
      ways.append("a path in the server's folders")
    if self.hosts:
      ways.append(f"an https URL of {', '.join(self.hosts)}")
    raise RequestError(
      400,
      f"{field}: expected {', or '.join(ways)}; got {url[:40]!r}. This server"
      " opens no addresses and no files but these.",
      field,
    )

  def _read_path(self, url: str, field: str) -> bytes:
    # One message for all: it says nothing of what else this machine has.
    unknown = RequestError(
      400, f"{field}: {url[:80]!r} is no file in the server's folders.", field
    )
    path = unquote(urlsplit(url).path) if url.startswith("file://") else url
    for folder in self.folders:
      try:
        file = (folder / path).resolve(strict=True)
        if not file.is_relative_to(folder):
          continue
        # Of a pipe or a device, opening alone could wait for ever.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
        with os.fdopen(os.open(file, flags), "rb") as opened:
          if not stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
            continue
          content = opened.read(self.max_bytes + 1)
      except (OSError, RuntimeError, ValueError):
        continue
      self._check(len(content), field)
      return content
    raise unknown

  def _fetch(self, url: str, field: str) -> bytes:
    end = time.monotonic() + self.seconds
    opener = urllib.request.build_opener(_Redirects(self, field))
    self.check_host(url, field)
    content = bytearray()
    try:
      with opener.open(url, timeout=_CONNECT) as answer:
        while chunk := answer.read1(_CHUNK):
          content += chunk
          self._check(len(content), field)
          if time.monotonic() > end:
            raise TimeoutError("it took too long")
    except urllib.error.HTTPError as error:
      error.close()
      reason = f"its server answered {error.code}"
    except (OSError, ValueError) as error:
      reason = str(error) or type(error).__name__
    else:
      return bytes(content)
    raise RequestError(
      400, f"{field}: {url[:80]!r} was not read: {reason}.", field
    )

  def check_host(self, url: str, field: str) -> None:
    """Raises RequestError, 400, if this address may not be fetched."""
    try:
      parts = urlsplit(url)
      port = parts.port or 443
    except ValueError as error:
      raise RequestError(400, f"{field}: {error}.", field) from None
    host = (parts.hostname or "").lower()
    names = {f"{host}:{port}", *([host] if port == 443 else [])}
    allowed = {name.lower() for name in self.hosts}
    plain = parts.username is None and parts.password is None
    if parts.scheme != "https" or not plain or not names & allowed:
      raise RequestError(
        400,
        f"{field}: {url[:80]!r} is no https address of"
        f" {', '.join(self.hosts)}.",
        field,
      )

  def _check(self, size: int, field: str) -> None:
    if size > self.max_bytes:
      raise RequestError(
        413, f"{field}: larger than {self.max_bytes:,} bytes.", field
      )


class _Redirects(urllib.request.HTTPRedirectHandler):
  """Follows redirects to allowed addresses alone."""

  def __init__(self, sources: Sources, field: str):
    self._sources, self._field = sources, field

  def redirect_request(self, req, fp, code, msg, headers, newurl):
    self._sources.check_host(newurl, self._field)
    return super().redirect_request(req, fp, code, msg, headers, newurl)
