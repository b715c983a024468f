"""Requests that are rejected, and what is left after them."""

import asyncio
import base64
import contextlib
import struct
import threading
import time
import zlib

import httpx
import numpy as np
import pytest

from fusar_jax import serve
from fusar_jax.serving.engine import Engine
from fusar_jax.serving.limits import Limits
from fusar_jax.serving.server import make_server

from .conftest import MINUTES, QUESTIONS, data_url, picture, user

SMALL = picture(0, (28, 28))


def _image(url):
  part = {"type": "image_url", "image_url": {"url": url}}
  text = {"type": "text", "text": "what?"}
  return {"role": "user", "content": [part, text]}


def _bomb(side: int) -> str:
  """A PNG that claims to be so large."""
  header = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
  content = b"\x89PNG\r\n\x1a\n"
  for size, chunk in ((13, header), (0, b"IDAT"), (0, b"IEND")):
    content += struct.pack(">I", size) + chunk
    content += struct.pack(">I", zlib.crc32(chunk))
  return f"data:image/png;base64,{base64.b64encode(content).decode()}"


REJECTED = [
  # status, what the message says, body
  (400, "not JSON", "{"),
  (400, "not JSON", '{"messages": [], "messages": []}'),
  (400, "nested too deeply", '{"a":' + "[" * 200 + "]" * 200 + "}"),
  (422, "messages", {}),
  (422, "tools", {"messages": [user("a")], "tools": []}),
  (422, "temperature", {"messages": [user("a")], "temperature": -1}),
  (422, "n", {"messages": [user("a")], "n": 2}),
  (422, "stream_options", {"messages": [user("a")], "stream_options": {}}),
  (422, "stop", {"messages": [user("a")], "stop": [""]}),
  (
    422,
    "content",
    {"messages": [{"role": "user", "content": [{"type": "x"}]}]},
  ),
  (404, "gpt-4o", {"messages": [user("a")], "model": "gpt-4o"}),
  (400, "max_tokens 301", {"messages": [user("a")], "max_tokens": 301}),
  (400, "no text", {"messages": [user(" ", SMALL)]}),
  (400, "user's", {"messages": [{"role": "system", "content": "a"}]}),
  (400, "expected assistant", {"messages": [user("a"), user("b")]}),
  (400, "at most 2", {"messages": [user("a", SMALL, SMALL, SMALL)]}),
  (400, "opens no addresses", {"messages": [_image("/etc/hostname")]}),
  (400, "opens no addresses", {"messages": [_image("file:///etc/hostname")]}),
  (400, "opens no addresses", {"messages": [_image("http://127.0.0.1/a.png")]}),
  (400, "not base64", {"messages": [_image("data:image/png;base64,%%%")]}),
  (400, "not a readable image", {"messages": [_image("data:;base64,AAAA")]}),
  (400, "image_url 0", {"messages": [_image("data:;base64,SUkqAAAAAAA=")]}),
  (413, "pixels", {"messages": [_image(_bomb(9_000))]}),
  (400, "pixels", {"messages": [_image(_bomb(60_000))]}),
  (413, "pixels", {"messages": [user("a", picture(0, (201, 200)))]}),
  (413, "tokens", {"messages": [user("word " * 5000)]}),
  (413, "larger", {"messages": [user("a" * 2**20)]}),
  (400, "bbox", {"messages": [user("a", SMALL)], "bbox": [0, 0, 29, 28]}),
  (400, "bbox", {"messages": [user("a", SMALL)], "bbox": [5, 0, 5, 28]}),
  (400, "no image", {"messages": [user("a")], "bbox": [0, 0, 1, 1]}),
  (400, "anchors", {"messages": [user("a", SMALL)], "anchors": 3}),
  (400, "anchors", {"messages": [user("a", SMALL)], "anchors": "/etc/a.npz"}),
  (400, "not an .npz", {"messages": [user("a", SMALL)], "anchors": "AAAA"}),
  (400, "no AlphaEarth", {"messages": [user("a", SMALL)], "anchors": "aef"}),
  (400, "year", {"messages": [user("a", SMALL)], "year": 2024}),
  (
    422,
    "georeference.crs",
    {
      "messages": [user("a", SMALL)],
      "georeference": {
        "crs": "+proj=longlat +nadgrids=/etc/hostname",
        "transform": [1, 0, 0, 0, -1, 0],
      },
    },
  ),
  (
    400,
    "features",
    {
      "messages": [user("a", SMALL)],
      "anchors": {"features": [[1, 2]], "positions": [[0, 0]]},
    },
  ),
  (
    400,
    "georeference",
    {
      "messages": [user("a", SMALL)],
      "anchors": {"features": [[0] * 64], "lon": [0], "lat": [0]},
    },
  ),
]


@pytest.mark.parametrize(("status", "message", "body"), REJECTED)
def test_what_is_rejected_and_why(server, status, message, body):
  """In OpenAI's form, without a path of this machine."""
  if isinstance(body, str):
    headers = {"Content-Type": "application/json"}
    done = server.client.post(
      "/v1/chat/completions", content=body, headers=headers
    )
  else:
    done = server.client.post("/v1/chat/completions", json=body)
  error = done.json()["error"]
  assert (done.status_code, error["code"]) == (status, status), error
  assert message in error["message"]
  assert "/tmp" not in error["message"]


def test_a_body_without_a_length_is_read_up_to_the_limit(server):
  taken = 0

  def chunks():
    nonlocal taken
    for _ in range(1000):
      taken += 2**16
      yield b" " * 2**16

  headers = {"Content-Type": "application/json"}
  with contextlib.suppress(httpx.TransportError):
    done = server.client.post(
      "/v1/chat/completions", content=chunks(), headers=headers
    )
    assert done.status_code == 413
  assert taken < 2**25


def test_a_web_page_reaches_nothing(server):
  """A page may post plain text anywhere, and name a server as it likes."""
  page = server.client.post(
    "/v1/chat/completions",
    content=b"{}",
    headers={"Content-Type": "text/plain"},
  )
  assert page.status_code == 400
  other = server.client.get("/v1/models", headers={"Host": "evil.example"})
  assert other.status_code == 403


@pytest.fixture
def gate(monkeypatch):
  """No step is decoded while this event is cleared."""
  gate, step = threading.Event(), Engine._step
  gate.set()

  def gated(engine):
    if gate.wait(0.005):
      step(engine)

  monkeypatch.setattr(Engine, "_step", gated)
  yield gate
  gate.set()


def _until(condition, seconds=MINUTES):
  end = time.monotonic() + seconds
  while not condition():
    assert time.monotonic() < end
    time.sleep(0.01)


def _post_all(running, bodies):
  """Returns tasks that post each body, in threads."""
  results: list = [None] * len(bodies)

  def post(i, body):
    results[i] = running.client.post("/v1/chat/completions", json=body)

  threads = [
    threading.Thread(target=post, args=pair) for pair in enumerate(bodies)
  ]
  for thread in threads:
    thread.start()
  return results, threads


def test_a_full_queue_a_late_answer_and_a_drain(serving, gate, assistant):
  """Four slots and two places in the queue: the seventh request gets 429. Those
  that are accepted are answered, also while the server stops."""
  image = picture(0)
  body = {"messages": [user(QUESTIONS[0], image)], "max_tokens": 8}
  limits = Limits(queue=2, new_tokens=300, seconds=MINUTES)
  with serving(limits=limits) as running:
    gate.clear()
    results, threads = _post_all(running, [body] * 4)
    _until(lambda: running.engine.load == (0, 4))
    more = _post_all(running, [body] * 2)
    _until(lambda: running.engine.load == (2, 4))
    rejected = running.client.post("/v1/chat/completions", json=body)
    assert rejected.status_code == 429
    assert rejected.headers["Retry-After"]
    running.server.handle_exit(15, None)
    rejected = running.client.post("/v1/chat/completions", json=body)
    assert rejected.status_code == 503
    assert running.client.get("/health").json()["status"] == "draining"
    gate.set()
    for thread in [*threads, *more[1]]:
      thread.join()
    expected = assistant.ask(image, QUESTIONS[0], max_new_tokens=8)
    for done in [*results, *more[0]]:
      assert done.json()["choices"][0]["message"]["content"] == expected
    running.thread.join(MINUTES)
    assert not running.thread.is_alive()


def test_time_is_up(serving, gate):
  """A request that takes too long gives its slot to the next."""
  body = {"messages": [user(QUESTIONS[0], picture(0))], "max_tokens": 8}
  limits = Limits(new_tokens=300, seconds=1)
  with serving(limits=limits) as running:
    gate.clear()
    done = running.client.post("/v1/chat/completions", json=body)
    assert done.status_code == 504
    stream = running.client.post(
      "/v1/chat/completions", json=body | {"stream": True}
    )
    assert '"code": 504' in stream.text
    _until(lambda: running.engine.load == (0, 0))
    gate.set()
    # A busy machine may take longer than a second for this one.
    object.__setattr__(limits, "seconds", MINUTES)
    done = running.client.post("/v1/chat/completions", json=body)
    assert done.status_code == 200


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_away_frees_its_slot(server, gate, stream):
  body = {
    "messages": [user(QUESTIONS[1], picture(1))],
    "max_tokens": 300,
    "stream": stream,
  }

  async def leave():
    async with httpx.AsyncClient(trust_env=False, timeout=None) as client:
      post = asyncio.ensure_future(
        client.post(f"{server.url}/v1/chat/completions", json=body)
      )
      while server.engine.load != (0, 1):
        assert not post.done()
        await asyncio.sleep(0.01)
      post.cancel()
      with contextlib.suppress(asyncio.CancelledError):
        await post

  def gone():
    return (
      'fusar_requests_total{status="499"}' in server.client.get("/metrics").text
    )

  gate.clear()
  asyncio.run(leave())
  # No step is decoded: this is not the end of the answer.
  _until(lambda: server.engine.load == (0, 0))
  _until(gone)
  _until(lambda: server.engine._batch.free == 4)


def test_an_error_of_the_device_is_survived(server, monkeypatch):
  """The request gets 500 without details; the next is answered."""
  body = {"messages": [user(QUESTIONS[0], picture(2))], "max_tokens": 4}

  def broken(*_):
    raise RuntimeError("out of memory at /secret")

  with monkeypatch.context() as patch:
    patch.setattr(server.engine._batch, "run", broken)
    done = server.client.post("/v1/chat/completions", json=body)
  assert done.status_code == 500
  assert "secret" not in done.text
  done = server.client.post("/v1/chat/completions", json=body)
  assert done.status_code == 200


def test_a_token_is_asked_for(serving):
  token = "a long token"
  with serving(token=token) as running:
    for headers, status in (
      ({}, 401),
      ({"Authorization": "Bearer another"}, 401),
      ({"Authorization": f"Bearer {token}"}, 200),
    ):
      done = running.client.get("/v1/models", headers=headers)
      assert done.status_code == status
    assert running.client.get("/health").status_code == 200


def test_no_address_of_others_without_a_token(assistant):
  with (
    pytest.raises(ValueError, match="set --token, or FUSAR_SERVE_TOKEN"),
    make_server(assistant, "a", host="0.0.0.0"),
  ):
    pass


def test_limits_are_above_zero():
  with pytest.raises(ValueError, match="limit queue 0"):
    Limits(queue=0)
  assert np.isfinite(Limits().seconds)
  assert data_url(SMALL).startswith("data:image/png")


@pytest.mark.parametrize(
  ("options", "message"),
  [
    (["--year", "2024"], "--year without --aef"),
    (["--slots", "0"], "at least 1"),
    (["--bands", "VV,"], "expected one band, two, or three"),
    (["--bands", "1,2,3,4"], "expected one band, two, or three"),
  ],
)
def test_options_that_make_no_sense(options, message, call):
  done = call(serve.main, "--model", "tiny-base", *options)
  assert done.code == 2
  assert message in done.err
