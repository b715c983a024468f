"""The HTTP interface: OpenAI's chat completions, models, health and metrics.

Reading a request (images, anchors, token ids) happens in a few threads, the
answer comes from the engine's thread, and this one only passes text on. A
client that goes away cancels its job.
"""

import asyncio
import contextlib
import dataclasses
import logging
import time
import uuid
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse
from starlette.responses import Response

from fusar_jax.serving.access import check_access, expect_type
from fusar_jax.serving.answers import Answer, failure, late
from fusar_jax.serving.chat_request import ChatRequest, read_request
from fusar_jax.serving.engine import Engine
from fusar_jax.serving.event_stream import EventStream, event
from fusar_jax.serving.file_routes import add_file_routes
from fusar_jax.serving.file_store import FileStore
from fusar_jax.serving.limits import Limits, RequestError
from fusar_jax.serving.metrics import CONTENT_TYPE
from fusar_jax.serving.page import Page
from fusar_jax.serving.questions import Question, Reader
from fusar_jax.serving.request_body import GONE, read_body

# Requests that are decoded at a time: each may hold an image of `pixels`.
_READERS = 2


@dataclasses.dataclass(frozen=True)
class Service:
  """What the endpoints need.

  Attributes:
    name: of the model, as clients see it.
    engine: computes answers.
    reader: reads requests.
    limits: of the server.
    files: that clients upload.
    token: clients must send it as a bearer; None: none.
    hosts: names in the Host header; None: any. Where no token is required, a
      web page could otherwise reach the server under a name of its own.
    page: for people, at `/`; None: only the interface for programs.
  """

  name: str
  engine: Engine
  reader: Reader
  limits: Limits
  files: FileStore
  token: str | None = None
  hosts: tuple[str, ...] | None = None
  page: Page | None = None


def make_app(service: Service) -> FastAPI:
  """Returns the application."""

  async def check(http: Request) -> None:
    check_access(http, service.hosts, service.token)

  app = FastAPI(
    title="fusar_jax",
    openapi_url=None,
    dependencies=[Depends(check)],
  )
  readers = ThreadPoolExecutor(_READERS, thread_name_prefix="reader")
  started = int(time.time())  # noqa: TID251  OpenAI's `created` is a date.

  @app.exception_handler(RequestError)
  async def reject(_: Request, error: RequestError) -> JSONResponse:
    return _error_answer(error, service)

  @app.get("/health")
  async def health() -> JSONResponse:
    waiting, running = service.engine.load
    draining = service.engine.draining
    return JSONResponse(
      {
        "status": "draining" if draining else "ok",
        "waiting": waiting,
        "running": running,
      },
      503 if draining else 200,
    )

  @app.get("/metrics")
  async def metrics() -> PlainTextResponse:
    engine = service.engine
    text = engine.metrics.text(*engine.load, engine.slots)
    return PlainTextResponse(text, media_type=CONTENT_TYPE)

  @app.get("/v1/models")
  async def models() -> dict:
    model = {
      "id": service.name,
      "object": "model",
      "created": started,
      "owned_by": "fusar_jax",
    }
    return {"object": "list", "data": [model]}

  add_file_routes(app, service.files, service.engine.check_draining)

  @app.post("/v1/chat/completions")
  async def chat(http: Request) -> Response:
    arrived = time.monotonic()
    try:
      async with asyncio.timeout_at(
        asyncio.get_running_loop().time() + service.limits.seconds
      ):
        service.engine.check()
        expect_type(http, "application/json")
        body = await read_body(http, service.limits.body_bytes)
        request = read_request(body)
        _check_model(request, service)
        question = await asyncio.get_running_loop().run_in_executor(
          readers, service.reader.read, request
        )
      answer = _ChatAnswer(service, request, question, arrived)
      answer.submit()
    except TimeoutError:
      raise late(service.limits) from None
    if request.stream:
      return EventStream(answer.stream(), answer.cancel)
    return await _whole(answer, http, service)

  if service.page is not None:
    service.page.add_routes(app)
  return app


class _ChatAnswer(Answer):
  """An answer in the form of OpenAI's interface."""

  def __init__(
    self, service, request: ChatRequest, question: Question, arrived
  ):
    super().__init__(
      service.engine, service.reader, question, request.stops, arrived
    )
    self._service, self._request = service, request
    self._id = f"chatcmpl-{uuid.uuid4().hex}"
    self._created = int(time.time())  # noqa: TID251  A date.

  def as_json(self, kind: str, **fields: Any) -> dict:
    """Returns an object of the answer."""
    return {
      "id": self._id,
      "object": kind,
      "created": self._created,
      "model": self._service.name,
      **fields,
    }

  def notes(self) -> dict:
    """Returns our field of the answer: what became of image and anchors."""
    question = self.question
    notes: dict[str, Any] = {}
    if question.sizes is not None:
      notes["model_size"], notes["image_size"] = question.sizes
    found = question.anchors
    if found is not None and self._request.anchors is not None:
      notes["anchors"] = {
        "used": len(found.anchors) if found.anchors else 0,
        "outside": found.outside,
        "year": found.year,
      }
    return {"fusar": notes}

  async def stream(self) -> AsyncGenerator[str, None]:
    """Yields server-sent events."""
    kind = "chat.completion.chunk"

    def chunk(delta, finish=None, **fields):
      choice = {"index": 0, "delta": delta, "finish_reason": finish}
      return event(self.as_json(kind, choices=[choice], **fields))

    options = self._request.stream_options
    try:
      # Closed with this generator: the job ends when the client goes away.
      async with contextlib.aclosing(self.pieces()) as pieces:
        yield chunk({"role": "assistant", "content": ""}, **self.notes())
        async for piece in pieces:
          yield chunk({"content": piece})
      yield chunk({}, self.finish)
      if options is not None and options.include_usage:
        yield event(self.as_json(kind, choices=[], usage=self.usage()))
    except RequestError as error:
      yield event(error.as_json())
    except Exception:
      logging.getLogger(__name__).exception("an answer failed")
      yield event(failure().as_json())
    yield "data: [DONE]\n\n"

  async def whole(self) -> dict:
    """Returns the answer as one object."""
    async with contextlib.aclosing(self.pieces()) as pieces:
      text = "".join([piece async for piece in pieces])
    choice = {
      "index": 0,
      "message": {"role": "assistant", "content": text},
      "finish_reason": self.finish,
    }
    return self.as_json(
      "chat.completion", choices=[choice], usage=self.usage(), **self.notes()
    )


async def _whole(answer: _ChatAnswer, http: Request, service) -> Response:
  """Returns the answer, unless the client goes away before."""
  work = asyncio.ensure_future(answer.whole())
  gone = asyncio.ensure_future(_disconnected(http))
  try:
    await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
    if not work.done():
      return Response(status_code=GONE)
    return JSONResponse(work.result())
  except RequestError as error:
    return _error_answer(error, service, counted=True)
  except Exception:
    logging.getLogger(__name__).exception("an answer failed")
    return _error_answer(failure(), service, counted=True)
  finally:
    for task in (work, gone):
      task.cancel()
    await asyncio.gather(work, gone, return_exceptions=True)


async def _disconnected(http: Request) -> None:
  while (await http.receive())["type"] != "http.disconnect":
    pass


def _check_model(request: ChatRequest, service: Service) -> None:
  if request.model not in (None, service.name):
    raise RequestError(
      404, f"model {request.model!r}: this one is {service.name!r}.", "model"
    )


def _error_answer(
  error: RequestError, service: Service, *, counted: bool = False
) -> JSONResponse:
  if not counted:
    service.engine.metrics.count_request(error.status)
  headers = {"Retry-After": "1"} if error.status in (429, 503) else {}
  if error.status in (408, 413, 504):
    headers["Connection"] = "close"  # The rest of the body is not read.
  if error.status == 401:
    headers["WWW-Authenticate"] = "Bearer"
  return JSONResponse(error.as_json(), error.status, headers)
