"""Starts the server, and stops it: running requests are finished first."""

import base64
import contextlib
import io
import logging
import queue
import signal
import socket
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType

import uvicorn
from PIL import Image

from fusar_jax.inference.assistant import Assistant
from fusar_jax.serving.anchors import AlphaEarth
from fusar_jax.serving.app import Service, make_app
from fusar_jax.serving.chat_request import ChatRequest
from fusar_jax.serving.engine import STEPS, Engine, Event, Job
from fusar_jax.serving.file_store import FileLimits, FileStore
from fusar_jax.serving.limits import Limits, RequestError
from fusar_jax.serving.page import Page
from fusar_jax.serving.questions import Question, Reader
from fusar_jax.serving.scene_answers import SceneAsker
from fusar_jax.serving.scenes import SceneLimits, Scenes
from fusar_jax.serving.sources import Sources
from fusar_jax.tasks import counting, detection

# Ticks between two looks at idle files.
_SWEEP = 100
# Threads that read pixels for the page.
_THREADS = 2
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Server(uvicorn.Server):
  """Uvicorn that drains: SIGTERM rejects new requests, and ends when the
  running ones have been answered. A second signal ends it at once.
  """

  def __init__(
    self,
    config: uvicorn.Config,
    engine: Engine,
    files: FileStore,
    scenes: Scenes,
    seconds: float,
  ):
    """See the class.

    Args:
      files, scenes: idle ones are deleted.
      seconds: limit of a request; the server waits no longer for one.
    """
    super().__init__(config)
    self._engine, self._seconds = engine, seconds
    self._files, self._scenes = files, scenes
    self._end: float | None = None

  def handle_exit(self, sig: int, frame: FrameType | None) -> None:
    """Takes SIGTERM and SIGINT."""
    if self._engine.draining:
      self.should_exit = self.force_exit = True
      return
    waiting, running = self._engine.load
    logging.getLogger(__name__).warning(
      "%s: draining, %d requests left",
      signal.Signals(sig).name,
      waiting + running,
    )
    self._engine.drain()
    self._end = time.monotonic() + self._seconds

  async def on_tick(self, counter: int) -> bool:
    """Runs ten times a second; returns whether to exit."""
    done = await super().on_tick(counter)
    if counter % _SWEEP == 0:
      self._files.delete_idle()
      self._scenes.drop_idle()
    if self._end is None:
      return done
    idle = not self.server_state.tasks and not any(self._engine.load)
    return done or idle or time.monotonic() > self._end


@contextlib.contextmanager
def make_server(
  assistant: Assistant,
  name: str,
  *,
  host: str = "127.0.0.1",
  port: int = 0,
  slots: int = 16,
  token: str | None = None,
  limits: Limits | None = None,
  alphaearth: AlphaEarth | None = None,
  file_limits: FileLimits | None = None,
  folders: Sequence[str] = (),
  hosts: Sequence[str] = (),
  scene_bytes: int = 2**31,
  scene_limits: SceneLimits | None = None,
  bands: tuple[str, ...] = (),
) -> Iterator[tuple[Server, socket.socket]]:
  """Yields a server whose model is ready, and its listening socket.

  `server.run([socket])` serves until a signal.

  Args:
    assistant: the model, with a tokenizer.
    name: of the model, for clients.
    host, port: address; 0 is any free port.
    slots: answers that decode together.
    token: bearer that clients must send.
    limits: None: the defaults.
    alphaearth: archive for "anchors": "aef".
    file_limits: of uploaded files; None: the defaults.
    folders: whose images clients may name by path.
    hosts: whose images clients may name by https address, "NAME[:PORT]".
    scene_bytes: of an image that is opened on the page.
    scene_limits: of the page; None: the defaults.
    bands: one or three that the page shows at first of a scene that has them.

  Raises:
    NotADirectoryError: of `folders`.
    ValueError: no token for an address that others reach, or no tokenizer.
    OSError: the port is taken.
  """
  check_token(host, token)
  limits = limits or Limits()
  assistant.need_tokenizer()
  resolved = [_folder(name) for name in folders]
  with contextlib.ExitStack() as stack:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = stack.enter_context(
      socket.create_server((host, port), family=family)
    )
    folder = stack.enter_context(
      tempfile.TemporaryDirectory(prefix="fusar-serve-")
    )
    for part in ("files", "page"):
      Path(folder, part).mkdir()
    files = FileStore(Path(folder, "files"), file_limits)
    stack.callback(files.close)
    engine = stack.enter_context(Engine(assistant, slots, limits))
    sources = Sources(
      files, resolved, hosts, files.limits.file_bytes, limits.seconds
    )
    reader = Reader(assistant, limits, alphaearth, sources)
    names = None if token else _LOOPBACK
    threads = stack.enter_context(
      ThreadPoolExecutor(_THREADS, thread_name_prefix="scene")
    )
    asker = SceneAsker(engine, reader, threads, scene_limits or SceneLimits())
    page = Page(Path(folder, "page"), name, asker, scene_bytes, bands)
    stack.callback(page.close)
    service = Service(name, engine, reader, limits, files, token, names, page)
    config = uvicorn.Config(
      make_app(service),
      host=host,
      port=port,
      log_level="warning",
      # Nothing of a proxy's headers is needed.
      proxy_headers=False,
      server_header=False,
      # Of connections whose client reads no more.
      timeout_graceful_shutdown=5,
      # Beyond all that can wait or run, and what is being read.
      limit_concurrency=2 * (limits.queue + slots) + 64,
    )
    _warm(engine, reader)
    server = Server(config, engine, files, page.scenes, limits.seconds)
    yield server, listening


def _folder(name: str) -> Path:
  folder = Path(name).resolve()
  if not folder.is_dir():
    raise NotADirectoryError(f"--allow-folder {name}: no such folder.")
  return folder


def check_token(host: str, token: str | None) -> None:
  """Raises ValueError for an address that others reach, without a token."""
  if token is None and host not in _LOOPBACK:
    raise ValueError(
      f"--host {host} is reached by others: set --token, or FUSAR_SERVE_TOKEN,"
      " or bind to 127.0.0.1."
    )
  if token is not None and (not token.isascii() or len(token) < 8):
    raise ValueError("the token: expected at least 8 ASCII characters.")


def _warm(engine: Engine, reader: Reader) -> None:
  """Answers typical questions, which compiles the programs."""
  side = max(reader.assistant.config.image_size or (504,))
  content = io.BytesIO()
  Image.new("L", (side, side)).save(content, "png")
  encoded = base64.b64encode(content.getvalue()).decode()
  image = {"url": f"data:image/png;base64,{encoded}"}
  for text in (
    counting.question("ship"),
    detection.question("ship"),
    "Describe the image.",
  ):
    parts = [
      {"type": "image_url", "image_url": image},
      {"type": "text", "text": text},
    ]
    request = ChatRequest.model_validate(
      {
        "messages": [{"role": "user", "content": parts}],
        "max_tokens": min(2 * STEPS, reader.limits.new_tokens),
      }
    )
    try:
      question = reader.read(request)
    except RequestError:
      continue  # The limits are lower than this.
    _wait(engine, question)


def _wait(engine: Engine, question: Question) -> None:
  """Answers one question; raises what goes wrong."""
  events: queue.SimpleQueue[Event] = queue.SimpleQueue()
  engine.submit(
    Job(question.example, question.options, events.put, question.image_key)
  )
  event = events.get()
  while not event.last:
    event = events.get()
  if event.error is not None:
    raise event.error
