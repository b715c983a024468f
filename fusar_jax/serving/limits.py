"""What one request, and all of them together, may take; and how it is rejected.

Everything is checked before it is decoded or queued, so that a request that is
too large costs no more than its reading.
"""

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class Limits:
  """Limits of the server.

  Attributes:
    body_bytes: of a request's body; 413 beyond.
    pixels: of an image before its crop, height times width; 413 beyond.
    images: in one conversation; 400 beyond.
    prompt_tokens: visual tokens included; 413 beyond.
    new_tokens: of an answer, and the default of `max_tokens`; 400 beyond.
    queue: requests that wait for a slot; 429 beyond.
    seconds: from the request's first byte to the answer's last; 504 beyond.
    cache_bytes: of visual tokens and prefixes, kept for further questions.

  Raises:
    ValueError: a limit is not above 0.
  """

  body_bytes: int = 32 * 2**20
  pixels: int = 2**24
  images: int = 4
  prompt_tokens: int = 4096
  new_tokens: int = 2048
  queue: int = 128
  seconds: float = 120.0
  cache_bytes: int = 2**29

  def __post_init__(self):
    check_positive(self)


def check_positive(limits: Any) -> None:
  """Raises ValueError if a field of a dataclass of limits is not above 0."""
  for field in dataclasses.fields(limits):
    value = getattr(limits, field.name)
    if not value > 0:
      raise ValueError(f"limit {field.name} {value}: expected above 0.")


class RequestError(Exception):
  """A request that gets no answer.

  Attributes:
    status: HTTP status.
    parameter: field of the request at fault, or None.
  """

  def __init__(self, status: int, message: str, parameter: str | None = None):
    super().__init__(message)
    self.status, self.parameter = status, parameter

  def as_json(self) -> dict:
    """Returns the error object of OpenAI's interface."""
    kind = "invalid_request_error" if self.status < 500 else "server_error"
    if self.status == 429:
      kind = "rate_limit_error"
    return {
      "error": {
        "message": str(self),
        "type": kind,
        "param": self.parameter,
        "code": self.status,
      }
    }
