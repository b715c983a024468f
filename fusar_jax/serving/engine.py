"""The thread that computes answers: requests come and go between its steps.

One thread owns the device. It moves waiting requests to empty slots of a
`ContinuousBatch`, decodes a few steps, hands out the new tokens, and looks at
the queue again.
"""

import collections
import dataclasses
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from fusar_jax.data.examples import Example
from fusar_jax.inference.assistant import Assistant
from fusar_jax.inference.continuous import RowOptions
from fusar_jax.serving.limits import Limits, RequestError
from fusar_jax.serving.metrics import Metrics
from fusar_jax.serving.prompt_cache import PromptCache

# Decoding steps between two looks at the queue: tokens are sent so many at a
# time, and a request waits at most so long for an empty slot.
STEPS = 8


@dataclasses.dataclass(frozen=True)
class Event:
  """News of a job.

  Attributes:
    tokens: new ones.
    last: the answer has ended.
    error: what went wrong, or None; `last` is True then.
  """

  tokens: list[int] = dataclasses.field(default_factory=list)
  last: bool = False
  error: Exception | None = None


@dataclasses.dataclass(eq=False)
class Job:
  """One answer to compute.

  Attributes:
    example: the prompt.
    options: limit, temperature and seed.
    emit: takes events, in the engine's thread; must not wait.
    image_key: equal for equal images.
    arrived: `time.monotonic()`.
    sent: number of tokens that were emitted.
  """

  example: Example
  options: RowOptions
  emit: Callable[[Event], Any]
  image_key: bytes = b""
  arrived: float = dataclasses.field(default_factory=time.monotonic)
  sent: int = 0


class Engine:
  """Computes answers in a thread of its own; a context manager.

  Methods may be called from any thread.

  Attributes:
    slots: answers that decode together.
    metrics: counters.
  """

  def __init__(
    self,
    assistant: Assistant,
    slots: int,
    limits: Limits,
    metrics: Metrics | None = None,
  ):
    """See the attributes.

    Args:
      assistant: the model.
      limits: `queue` jobs at most beyond those that have a slot, or will as
        soon as the thread comes to them; `new_tokens` and `cache_bytes`.
    """
    self.slots, self.metrics = slots, metrics or Metrics()
    self._assistant, self._limits = assistant, limits
    self._batch = assistant.continuous_batch(slots, limits.new_tokens)
    self._counted = dataclasses.replace(self._batch.usage)
    self._waiting: collections.deque[Job] = collections.deque()
    self._running: set[Job] = set()
    self._cancelled: set[Job] = set()
    self._prompts = PromptCache(assistant, self.metrics, limits.cache_bytes)
    self._changed = threading.Condition()
    self._draining = self._closed = False
    self._thread = threading.Thread(
      target=self._work, name="engine", daemon=True
    )

  def __enter__(self) -> "Engine":
    self._thread.start()
    return self

  def __exit__(self, *_) -> None:
    with self._changed:
      self._closed = True
      self._changed.notify()
    self._thread.join()

  @property
  def load(self) -> tuple[int, int]:
    """(jobs without a slot, jobs with one)."""
    with self._changed:
      return len(self._waiting), len(self._running)

  @property
  def draining(self) -> bool:
    """Whether new jobs are rejected."""
    return self._draining

  def drain(self) -> None:
    """Rejects new jobs; those that were accepted are finished."""
    with self._changed:
      self._draining = True

  def submit(self, job: Job) -> None:
    """Queues a job.

    Raises:
      RequestError: 429, too many wait; 503, the engine drains.
    """
    with self._changed:
      self.check()
      self._waiting.append(job)
      self._changed.notify()

  def check_draining(self) -> None:
    """Raises RequestError, 503, if new jobs are rejected."""
    if self._draining or self._closed:
      raise RequestError(503, "the server is stopping; ask another one.")

  def check(self) -> None:
    """Raises RequestError as `submit` would."""
    with self._changed:
      self.check_draining()
      # Of those that wait, some may have an empty slot ahead.
      held = len(self._waiting) + len(self._running)
      if held >= self._limits.queue + self.slots:
        raise RequestError(
          429, f"{len(self._waiting)} requests wait already; try again later."
        )

  def cancel(self, job: Job) -> None:
    """Drops a job that nobody waits for; its slot is free after this step."""
    with self._changed:
      if job in self._waiting:
        self._waiting.remove(job)
      elif job in self._running:
        self._cancelled.add(job)
        self._changed.notify()

  def _work(self) -> None:
    while True:
      with self._changed:
        while not (self._waiting or self._running or self._closed):
          self._changed.wait()
        if self._closed:
          return self._fail_all(RequestError(503, "the server has stopped."))
        cancelled, self._cancelled = self._cancelled, set()
        self._running -= cancelled
      try:
        for job in cancelled:
          self._batch.cancel(job)
        self._fill()
        self._step()
      except Exception as error:
        logging.getLogger(__name__).exception("decoding failed")
        with self._changed:
          self._fail_all(error)
        # Its arrays may be gone: a program takes their memory.
        self._batch = self._assistant.continuous_batch(
          self.slots, self._limits.new_tokens
        )
        self._counted = dataclasses.replace(self._batch.usage)

  def _fail_all(self, error: Exception) -> None:
    jobs = [*self._running]
    self._running.clear()
    self._cancelled.clear()
    if self._closed:
      jobs += self._waiting
      self._waiting.clear()
    for job in jobs:
      job.emit(Event(last=True, error=error))

  def _fill(self) -> None:
    """Gives empty slots to waiting jobs, first come, first served."""
    while self._batch.free:
      with self._changed:
        if not self._waiting:
          return
        job = self._waiting.popleft()
        self._running.add(job)
      batch, cached = self._prompts.prompt(
        job.example, job.image_key, self._batch.read_prefix
      )
      self._batch.add([job], batch, None, [job.options], cached)
      self.metrics.add("prompt_tokens", len(job.example.input_ids))

  def _step(self) -> None:
    busy = self.slots - self._batch.free
    if not busy:
      return
    self.metrics.batch.observe(busy)
    ended = self._batch.run(self._batch.free + 1, STEPS)
    going = self._batch.so_far()
    usage = self._batch.usage
    self.metrics.add("slot_steps", usage.slot_steps - self._counted.slot_steps)
    self._counted = dataclasses.replace(usage)
    with self._changed:
      self._running -= ended.keys()
      dropped = set(self._cancelled)
    for answers, last in ((ended, True), (going, False)):
      for job, tokens in answers.items():
        assert isinstance(job, Job)
        if job in dropped:
          continue
        if not job.sent:
          self.metrics.first_token.observe(time.monotonic() - job.arrived)
        self.metrics.add("new_tokens", len(tokens) - job.sent)
        job.emit(Event(tokens[job.sent :], last))
        job.sent = len(tokens)
