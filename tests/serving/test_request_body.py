"""Bodies that stop, or whose client closes the connection."""

import re
import socket
import time
from urllib.parse import urlsplit

import pytest

from fusar_jax.serving import request_body

from .conftest import MINUTES

BODIES = [
  ("/v1/chat/completions", "application/json", b'{"messages": ['),
  (
    "/v1/files",
    "multipart/form-data; boundary=x",
    b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    b"first bytes",
  ),
  ("/scenes", "application/octet-stream", b"\x89PNG\r\n\x1a\n and more"),
]


def _begin(server, path: str, kind: str, start: bytes) -> socket.socket:
  """Sends the head of a request, and the first of its 1000 bytes."""
  address = urlsplit(server.url)
  sender = socket.create_connection(
    (address.hostname, address.port), timeout=MINUTES
  )
  head = (
    f"POST {path} HTTP/1.1\r\nHost: {address.netloc}\r\n"
    f"Content-Type: {kind}\r\nContent-Length: 1000\r\n\r\n"
  )
  sender.sendall(head.encode() + start)
  return sender


@pytest.mark.parametrize("body", BODIES, ids=[body[0] for body in BODIES])
def test_a_body_that_stops_is_a_timeout(server, body, monkeypatch):
  monkeypatch.setattr(request_body, "_SILENCE", 0.2)
  with _begin(server, *body) as sender:
    received = b"".join(iter(lambda: sender.recv(4096), b""))
  assert received.startswith(b"HTTP/1.1 408 ")
  assert b"nothing was received for 0.2 seconds" in received


def test_a_client_that_leaves_amid_its_body_is_counted(server):
  def gone() -> int:
    text = server.client.get("/metrics").text
    found = re.search(r'requests_total{status="499"} (\d+)', text)
    return int(found[1]) if found else 0

  before = gone()
  for body in BODIES:
    _begin(server, *body).close()
  deadline = time.monotonic() + 120
  while gone() < before + len(BODIES) and time.monotonic() < deadline:
    time.sleep(0.05)
  assert gone() == before + len(BODIES)
