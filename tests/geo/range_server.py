"""A server of byte ranges on the loopback that counts what is asked of it."""

import contextlib
import functools
import http.server
import os
import threading
from collections.abc import Iterator
from pathlib import Path


class RangeServer(http.server.ThreadingHTTPServer):
  """Serves a folder as object stores do.

  Attributes:
    folder: the folder served.
    ranges: the Range header of each GET, None for a whole file.
    sent: bytes of all answers.
    headers: of each request, names in lower case.
    faults: statuses answered first, one a request; "cut" ends an answer early,
      "whole" ignores the range.
    denied: answer 403 to all requests.
  """

  daemon_threads = True

  def __init__(self, folder: Path):
    handler = functools.partial(_Handler, directory=str(folder))
    super().__init__(("127.0.0.1", 0), handler)
    self.folder = folder
    self.ranges: list[str | None] = []
    self.sent = 0
    self.headers: list[dict[str, str]] = []
    self.faults: list[int | str] = []
    self.denied = False

  @property
  def root(self) -> str:
    return f"http://127.0.0.1:{self.server_address[1]}"

  def reset(self) -> None:
    self.ranges, self.headers, self.sent = [], [], 0

  def handle_error(self, request, client_address) -> None:
    """Clients may close early."""


class _Handler(http.server.SimpleHTTPRequestHandler):
  protocol_version = "HTTP/1.1"
  disable_nagle_algorithm = True
  server: RangeServer

  def do_HEAD(self):
    self._answer(body=False)

  def do_GET(self):
    self.server.ranges.append(self.headers.get("Range"))
    self._answer(body=True)

  def _answer(self, body):
    server = self.server
    server.headers.append({k.lower(): v for k, v in self.headers.items()})
    fault = server.faults.pop(0) if server.faults else None
    if server.denied:
      fault = 403
    path = self.translate_path(self.path)
    if fault is None and not os.path.isfile(path):
      fault = 404
    if isinstance(fault, int):
      text = b"<?xml version='1.0'?><Error><Code>%s</Code></Error>" % (
        b"AccessDenied" if fault == 403 else b"NoSuchKey"
      )
      self.send_response(fault)
      self.send_header("Content-Type", "application/xml")
      self.send_header("Content-Length", str(len(text)))
      self.end_headers()
      if body:
        self.wfile.write(text)
      return
    size = os.path.getsize(path)
    first, last, status = 0, size - 1, 200
    wanted = self.headers.get("Range")
    if wanted and fault != "whole":
      low, high = wanted.removeprefix("bytes=").split("-")
      first, status = int(low) if low else size - int(high), 206
      last = min(int(high), size - 1) if low and high else size - 1
    self.send_response(status)
    self.send_header("Accept-Ranges", "bytes")
    self.send_header("Content-Length", str(last - first + 1))
    if status == 206:
      self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
    self.end_headers()
    if body:
      with open(path, "rb") as file:
        file.seek(first)
        data = file.read(last - first + 1)
      if fault == "cut":
        data, self.close_connection = data[: len(data) // 2], True
      server.sent += len(data)
      self.wfile.write(data)

  def log_message(self, *_):
    pass


@contextlib.contextmanager
def serve(folder: Path) -> Iterator[RangeServer]:
  folder.mkdir(parents=True, exist_ok=True)
  with RangeServer(folder) as server:
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
