"""A server with the shipped base, to which a random TLM is added."""

import base64
import contextlib
import dataclasses
import io
import os
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import jax
import numpy as np
import pytest
from PIL import Image

from fusar_jax.config import preset
from fusar_jax.inference.assistant import Assistant
from fusar_jax.inference.load import load
from fusar_jax.model.fusar_gpt import init_params
from fusar_jax.serving.engine import Engine
from fusar_jax.serving.limits import Limits
from fusar_jax.serving.scenes import SceneLimits
from fusar_jax.serving.server import make_server

NAME = "tiny-base"
# Seconds for which a test waits: longer than the busiest machine needs.
MINUTES = 600.0
QUESTIONS = ("How many ships are in the image?", "Describe the image.")


@pytest.fixture(scope="session")
def assistant() -> Assistant:
  base = load(NAME)
  config = dataclasses.replace(base.config, tlm=preset("tiny").tlm)
  init = jax.jit(init_params, static_argnums=0)
  tlm = init(config, jax.random.key(0))["tlm"]
  leaves, shape = jax.tree.flatten(tlm)
  keys = jax.random.split(jax.random.key(1), len(leaves))
  tlm = shape.unflatten(
    leaf + jax.random.normal(key, leaf.shape)
    for key, leaf in zip(keys, leaves, strict=True)
  )
  return Assistant(
    config,
    base.params | {"tlm": tlm},
    base.tokenizer,
    generation=base.generation,
  )


@dataclasses.dataclass
class Running:
  """A server in a thread of this process."""

  url: str
  server: object
  engine: Engine
  client: httpx.Client
  thread: threading.Thread
  files: Path

  def ask(self, *messages, **fields) -> httpx.Response:
    """Posts messages, or a body."""
    body = {"messages": list(messages)} | fields
    return self.client.post("/v1/chat/completions", json=body)


@pytest.fixture(scope="session")
def serving(assistant):
  """serving(**options) -> context of a `Running` server."""

  @contextlib.contextmanager
  def serving(*, headers=None, **options):
    options = {"slots": 4} | options
    with make_server(assistant, NAME, **options) as (server, listening):
      thread = threading.Thread(target=server.run, args=([listening],))
      thread.start()
      url = f"http://127.0.0.1:{listening.getsockname()[1]}"
      try:
        with httpx.Client(
          base_url=url, timeout=MINUTES, headers=headers, trust_env=False
        ) as client:
          yield Running(
            url,
            server,
            server._engine,
            client,
            thread,
            server._files._folder,
          )
      finally:
        server.should_exit = True
        thread.join()

  return serving


@pytest.fixture(scope="session")
def server(serving):
  """One for tests that leave it as it was."""
  limits = Limits(
    body_bytes=2**20,
    pixels=40_000,
    images=2,
    prompt_tokens=128,
    new_tokens=300,
    seconds=MINUTES,
  )
  with serving(limits=limits) as running:
    yield running


@contextlib.contextmanager
def serve_alone(*options: str):
  """Yields (process, address) of the command."""
  root = Path(__file__).parents[2]
  command = [sys.executable, "-m", "fusar_jax.serve", "--model", NAME]
  with subprocess.Popen(
    [*command, "--port=0", *options],
    stdout=subprocess.PIPE,
    text=True,
    cwd=root,
    env=os.environ
    | {
      "PYTHONPATH": os.pathsep.join(
        [str(root), os.environ.get("PYTHONPATH", "")]
      )
    },
  ) as process:
    try:
      assert process.stdout is not None
      address = process.stdout.readline().split()[-1]
      yield process, address.removesuffix("/v1")
    finally:
      process.kill()


def picture(seed: int, size=(90, 120)) -> np.ndarray:
  """uint8[h, w, 3]: noise and a bright square."""
  rng = np.random.default_rng(seed)
  image = rng.integers(0, 60, size, np.uint8)
  y, x = rng.integers(0, 60, 2)
  image[y : y + 12, x : x + 12] = 255
  return np.repeat(image[..., None], 3, axis=-1)


def data_url(pixels: np.ndarray, kind="png") -> str:
  content = io.BytesIO()
  Image.fromarray(pixels).save(content, kind)
  encoded = base64.b64encode(content.getvalue()).decode()
  return f"data:image/{kind};base64,{encoded}"


def user(text: str, *pixels: np.ndarray) -> dict:
  """A message of the user; the text comes first, as many clients send it."""
  images = [
    {"type": "image_url", "image_url": {"url": data_url(image)}}
    for image in pixels
  ]
  return {"role": "user", "content": [{"type": "text", "text": text}, *images]}


@pytest.fixture(scope="session")
def page(serving):
  with serving(
    limits=Limits(new_tokens=300, seconds=MINUTES),
    scene_bytes=2**24,
    scene_limits=SceneLimits(scenes=12, pixels=2**29, tiles=6, answers=4),
  ) as running:
    yield running.client


@pytest.fixture
def opened(page):
  """opened(content, name) -> scene, which is closed after the test."""
  ids = []

  def opened(content, name="a.tif"):
    from tests.serving.scene_helpers import upload

    scene = upload(page, content, name)
    ids.append(scene["id"])
    return scene

  yield opened
  for id in ids:
    page.delete(f"/scenes/{id}")
