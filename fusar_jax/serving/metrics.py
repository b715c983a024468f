"""Counters of the server in Prometheus's text format, version 0.0.4.

Rates are Prometheus's to compute: `rate(fusar_new_tokens_total[1m])` is tokens
a second.
"""

import threading
from collections import Counter
from collections.abc import Iterable, Sequence

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
_BATCH = (1, 2, 4, 8, 16, 32, 64, 128)


class Histogram:
  """Counts of values up to each bound; safe for threads."""

  def __init__(self, bounds: Sequence[float]):
    self._bounds = tuple(bounds)
    self._lock = threading.Lock()
    self._counts = [0] * (len(bounds) + 1)
    self._sum = 0.0

  def observe(self, value: float) -> None:
    """Counts one value."""
    place = sum(value > bound for bound in self._bounds)
    with self._lock:
      self._counts[place] += 1
      self._sum += value

  def lines(self, name: str, about: str) -> Iterable[str]:
    """Yields the lines of /metrics."""
    with self._lock:
      counts, total = list(self._counts), self._sum
    yield f"# HELP {name} {about}"
    yield f"# TYPE {name} histogram"
    below = 0
    for bound, count in zip((*self._bounds, "+Inf"), counts):
      below += count
      yield f'{name}_bucket{{le="{bound}"}} {below}'
    yield f"{name}_sum {total}"
    yield f"{name}_count {below}"


class Metrics:
  """What the server has done since it started; safe for threads.

  Attributes:
    first_token: seconds from a request's arrival to its first token.
    duration: seconds from arrival to end.
    batch: slots that hold an answer, per run of decoding steps.
  """

  def __init__(self):
    self.first_token = Histogram(_SECONDS)
    self.duration = Histogram(_SECONDS)
    self.batch = Histogram(_BATCH)
    self._lock = threading.Lock()
    self._requests: Counter[int] = Counter()
    self._totals: Counter[str] = Counter()

  def count_request(self, status: int) -> None:
    """Counts a request by its HTTP status; 499: the client went away."""
    with self._lock:
      self._requests[status] += 1

  def add(self, name: str, value: int) -> None:
    """Adds to a counter of `_COUNTERS`."""
    with self._lock:
      self._totals[name] += value

  def text(self, waiting: int, running: int, slots: int) -> str:
    """Returns the page; the arguments are of this moment."""
    lines = []
    for name, about, value in (
      ("fusar_requests_waiting", "Requests without a slot.", waiting),
      ("fusar_requests_running", "Requests that have a slot.", running),
      ("fusar_slots", "Slots that decode together.", slots),
    ):
      lines += [f"# HELP {name} {about}", f"# TYPE {name} gauge"]
      lines.append(f"{name} {value}")
    with self._lock:
      requests, totals = dict(self._requests), dict(self._totals)
    name = "fusar_requests_total"
    lines += [
      f"# HELP {name} Requests by HTTP status.",
      f"# TYPE {name} counter",
    ]
    lines += [
      f'{name}{{status="{status}"}} {count}'
      for status, count in sorted(requests.items())
    ]
    for key, about in _COUNTERS.items():
      name = f"fusar_{key}_total"
      lines += [f"# HELP {name} {about}", f"# TYPE {name} counter"]
      lines.append(f"{name} {totals.get(key, 0)}")
    lines += self.first_token.lines(
      "fusar_first_token_seconds", "From arrival to the first token."
    )
    lines += self.duration.lines(
      "fusar_request_seconds", "From arrival to the end of the answer."
    )
    lines += self.batch.lines("fusar_batch_size", "Answers decoded together.")
    return "\n".join(lines) + "\n"


_COUNTERS = {
  "prompt_tokens": "Tokens of prompts, visual ones included.",
  "new_tokens": "Tokens of answers.",
  "slot_steps": "Positions computed for them.",
  "images_encoded": "Prompts whose images went through the vision tower.",
  "images_reused": "Prompts whose images an earlier one had.",
  "prefixes_read": "Prompts up to their last image, read by the decoder.",
  "prefixes_reused": "Prompts that begin as an earlier one, image included.",
}
