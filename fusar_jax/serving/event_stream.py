"""Server-sent events whose source ends when the client goes away."""

import json
from collections.abc import AsyncGenerator, Callable
from typing import Any

from fastapi.responses import StreamingResponse


class EventStream(StreamingResponse):
  """Events of a generator, each as `event` returns it.

  Args:
    events: closed with the connection, however it ends.
    on_close: called then.
  """

  def __init__(
    self,
    events: AsyncGenerator[str, None],
    on_close: Callable[[], Any] = lambda: None,
  ):
    self._events, self._on_close = events, on_close
    super().__init__(events, media_type="text/event-stream")

  async def __call__(self, scope, receive, send) -> None:
    try:
      await super().__call__(scope, receive, send)
    finally:
      # The client may have left while nothing was asked of the generator.
      await self._events.aclose()
      self._on_close()


def event(value: dict) -> str:
  """Returns a value as one event."""
  return f"data: {json.dumps(value, ensure_ascii=False)}\n\n"
