"""Bodies of requests, as they arrive: limited in size, and in silence."""

import asyncio
from collections.abc import AsyncIterator

from fastapi import Request

from fusar_jax.serving.limits import RequestError

# Status, in counters and logs, of a client that closed its connection.
GONE = 499
# A client that sends nothing for so many seconds is gone.
_SILENCE = 60.0


async def body_chunks(http: Request) -> AsyncIterator[bytes]:
  """Yields the parts of a body; none is empty.

  Raises:
    RequestError: 408, nothing came for a minute; GONE, the client closed the
      connection.
  """
  more = True
  while more:
    try:
      async with asyncio.timeout(_SILENCE):
        message = await http.receive()
    except TimeoutError:
      raise RequestError(
        408, f"nothing was received for {_SILENCE:g} seconds."
      ) from None
    if message["type"] == "http.disconnect":
      raise RequestError(GONE, "the client closed the connection.")
    if chunk := message.get("body", b""):
      yield chunk
    more = message.get("more_body", False)


async def read_body(http: Request, most: int) -> bytes:
  """Returns a body of at most so many bytes.

  Raises:
    RequestError: 413, it is larger; or as `body_chunks`.
  """
  check_stated_length(http, most, "the body")
  body = bytearray()
  async for chunk in body_chunks(http):
    body += chunk
    if len(body) > most:
      raise _large("the body", most)
  return bytes(body)


def check_stated_length(
  http: Request, most: int, what: str, around: int = 0
) -> None:
  """Raises RequestError, 413, if a body says that it is larger.

  Args:
    http: its Content-Length is looked at, if there is one.
    most: bytes of what is sent.
    what: is sent, for the message.
    around: bytes of the body beside it.
  """
  stated = http.headers.get("content-length", "0")
  if stated.isdecimal() and int(stated[:20]) > most + around:
    raise _large(what, most)


def _large(what: str, most: int) -> RequestError:
  return RequestError(413, f"{what} is larger than {most:,} bytes.")
