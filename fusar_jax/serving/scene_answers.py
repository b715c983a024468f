"""Answers to a question about a scene, streamed tile by tile.

Tiles of a window are questions of their own: a few of them are with the engine
at a time, so that other users' questions come between.
"""

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import AsyncGenerator, Sequence
from concurrent.futures import Executor
from typing import Any

from fusar_jax.inference.continuous import RowOptions
from fusar_jax.serving.anchors import Found
from fusar_jax.serving.answers import Answer
from fusar_jax.serving.chat_request import (
  ImagePart,
  ImageUrl,
  Message,
  TextPart,
)
from fusar_jax.serving.engine import Engine
from fusar_jax.serving.limits import RequestError
from fusar_jax.serving.questions import Question, Reader
from fusar_jax.serving.scene_anchors import NoAnchorsError, window_anchors
from fusar_jax.serving.scene_questions import (
  Ask,
  Plan,
  conclude,
  plan,
  read_part,
)
from fusar_jax.serving.scenes import Scene, SceneLimits
from fusar_jax.serving.uploads import Upload

# Tiles of one question that are with the engine at a time.
_TOGETHER = 4
# Side of a tile if the model records no image size, as in `interpret`.
_SIDE = 504


@dataclasses.dataclass(frozen=True)
class SceneAsker:
  """Asks about scenes.

  Attributes:
    engine, reader: of the server.
    threads: in which pixels are read.
    limits: of scenes.
  """

  engine: Engine
  reader: Reader
  threads: Executor
  limits: SceneLimits

  @property
  def side(self) -> int:
    """Side of a tile, pixels."""
    return max(self.reader.assistant.config.image_size or (_SIDE,))

  def plan(self, scene: Scene, ask: Ask) -> Plan:
    """Returns the tiles of a question; raises RequestError, 400, 429 or 503."""
    self.engine.check()
    if self.reader.assistant.config.tlm is None and ask.anchors != "none":
      raise RequestError(
        400, "anchors: the model has no TLM to use them.", "anchors"
      )
    return plan(ask, scene.size, self.side, self.limits.tiles)

  def read(
    self,
    scene: Scene,
    ask: Ask,
    asked: Plan,
    number: int,
    others: Sequence[Scene] = (),
  ) -> Question:
    """Returns the prompt of a tile; raises RequestError."""
    part = asked.parts[number]
    shape = part.shape
    try:
      pixels = scene.pixels(part.window, shape)
    except ValueError as error:
      raise RequestError(
        400, str(error).replace(str(scene.path), scene.name), "scene"
      ) from None
    upload = Upload(pixels, scene.place_of(part.window, shape))
    try:
      found = window_anchors(
        scene,
        part.window,
        shape,
        ask.anchors,
        self.reader.alphaearth,
        ask.year,
        others,
      )
    except NoAnchorsError:
      if len(asked.parts) == 1:
        raise
      found = Found(None)  # As `predict` does for a tile without any.
    image = ImagePart(type="image_url", image_url=ImageUrl(url=scene.id))
    text = TextPart(type="text", text=part.question)
    message = Message(role="user", content=[image, text])
    options = RowOptions(self.reader.limits.new_tokens, 0.0, 0)
    return self.reader.prompt(
      [message], [upload], found, options, shown=part.size
    )

  async def events(
    self,
    scene: Scene,
    ask: Ask,
    asked: Plan,
    others: Sequence[Scene] = (),
  ) -> AsyncGenerator[dict[str, Any], None]:
    """Yields what becomes of a question; the last event is "end" or "error".

    {"type": "start", "question", "task", "windows"}
    {"type": "text", "tile", "text"}: a further piece of a tile's answer
    {"type": "tile", "tile", "findings", "count", "error", "cut", "anchors"}
    {"type": "end", "answer"}: `SceneAnswer.to_json`, kept with the scene
    {"type": "error", "message"}
    """
    yield {
      "type": "start",
      "question": asked.parts[0].question,
      "task": asked.task,
      "windows": [part.window for part in asked.parts],
    }
    news: asyncio.Queue[dict[str, Any] | Exception] = asyncio.Queue()
    room = asyncio.Semaphore(_TOGETHER)
    texts = [""] * len(asked.parts)

    async def one(number: int) -> None:
      try:
        async with room:
          async for event in self._tile(scene, ask, asked, number, others):
            if event["type"] == "text":
              texts[number] += event["text"]
            news.put_nowait(event)
      except Exception as error:
        news.put_nowait(error)

    tasks = [asyncio.ensure_future(one(i)) for i in range(len(texts))]
    left = len(tasks)
    try:
      while left:
        event = await news.get()
        if isinstance(event, Exception):
          raise event
        left -= event["type"] == "tile"
        yield event
      answer = conclude(asked, ask, texts, scene.size)
      answer = scene.keep(answer, self.limits.answers)
      yield {"type": "end", "answer": answer.to_json()}
    except RequestError as error:
      yield {"type": "error", "message": str(error), "status": error.status}
    finally:
      for task in tasks:
        task.cancel()
      await asyncio.gather(*tasks, return_exceptions=True)

  async def _tile(self, scene, ask, asked, number, others):
    arrived = time.monotonic()
    loop = asyncio.get_running_loop()
    question = await loop.run_in_executor(
      self.threads, self.read, scene, ask, asked, number, others
    )
    answer = Answer(self.engine, self.reader, question, (), arrived)
    answer.submit()
    async with contextlib.aclosing(answer.pieces()) as pieces:
      async for piece in pieces:
        yield {"type": "text", "tile": number, "text": piece}
    findings, count, error = read_part(asked, number, answer.text)
    used = question.anchors and question.anchors.anchors
    yield {
      "type": "tile",
      "tile": number,
      "findings": [dataclasses.asdict(finding) for finding in findings],
      "count": count,
      "error": error,
      "cut": answer.finish == "length",
      "anchors": len(used) if used else 0,
    }
