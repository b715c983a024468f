"""One answer on its way from the engine's thread to a client."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Sequence

from fusar_jax.serving.answer_text import AnswerText
from fusar_jax.serving.engine import Engine, Event, Job
from fusar_jax.serving.limits import Limits, RequestError
from fusar_jax.serving.questions import Question, Reader
from fusar_jax.serving.request_body import GONE


class Answer:
  """The text of one question's answer, in pieces.

  Created in the event loop, whose engine answers in another thread.

  Attributes:
    question: that is answered.
    text: so far.
    finish: "stop" or "length" once the answer has ended, else None.
  """

  def __init__(
    self,
    engine: Engine,
    reader: Reader,
    question: Question,
    stops: Sequence[str],
    arrived: float,
  ):
    """See the class.

    Args:
      engine: computes the answer.
      reader: that has read the question.
      question: see `Question`.
      stops: texts that end the answer.
      arrived: `time.monotonic()` of the request.
    """
    self.question = question
    self._engine, self._reader = engine, reader
    loop = asyncio.get_running_loop()
    self._deadline = (
      loop.time() + reader.limits.seconds - (time.monotonic() - arrived)
    )
    self._events: asyncio.Queue[Event] = asyncio.Queue()
    self._text = AnswerText(
      reader.assistant.need_tokenizer(), question.sizes, stops
    )
    self.finish: str | None = None

    def emit(event: Event) -> None:
      with contextlib.suppress(RuntimeError):  # The loop has ended.
        loop.call_soon_threadsafe(self._events.put_nowait, event)

    self._job = Job(
      question.example,
      question.options,
      emit,
      question.image_key,
      arrived,
    )

  @property
  def text(self) -> str:
    """All that `pieces` has yielded."""
    return self._text.text

  def submit(self) -> None:
    """Queues the job; raises RequestError."""
    self._engine.submit(self._job)

  def cancel(self) -> None:
    """Drops the job, if it has not ended."""
    self._engine.cancel(self._job)

  async def pieces(self) -> AsyncGenerator[str, None]:
    """Yields the text in pieces; sets `finish`. Cancels the job on any exit.

    Raises:
      RequestError: 503 or 504. Other errors of the engine as they are.
    """
    metrics = self._engine.metrics
    status = GONE
    try:
      while self.finish is None:
        try:
          async with asyncio.timeout_at(self._deadline):
            event = await self._events.get()
        except TimeoutError:
          raise late(self._reader.limits) from None
        if event.error is not None:
          raise event.error
        piece = self._text.add(event.tokens, last=event.last)
        if self._text.stopped:
          self.finish = "stop"
        elif event.last:
          cut = self._reader.assistant.truncated(self._text.tokens)
          self.finish = "length" if cut else "stop"
        if piece:
          yield piece
      status = 200
    except RequestError as error:
      status = error.status
      raise
    except Exception:
      status = 500
      raise
    finally:
      self.cancel()
      metrics.count_request(status)
      metrics.duration.observe(time.monotonic() - self._job.arrived)

  def usage(self) -> dict:
    """Returns the counts of tokens."""
    prompt = len(self.question.example.input_ids)
    new = len(self._text.tokens)
    return {
      "prompt_tokens": prompt,
      "completion_tokens": new,
      "total_tokens": prompt + new,
    }


def late(limits: Limits) -> RequestError:
  """Returns the error of a request that takes too long."""
  return RequestError(504, f"no answer within {limits.seconds:g} seconds.")


def failure() -> RequestError:
  """Returns the error of a request that the engine could not compute."""
  return RequestError(500, "the answer failed; the server's log says why.")
