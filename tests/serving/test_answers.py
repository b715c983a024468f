"""Answers over HTTP are those of `Assistant.ask`, whole and in pieces."""

import base64
import dataclasses
import io

import numpy as np
import openai
import pytest
import rasterio
from rasterio.transform import from_origin

from fusar_jax.geo.anchors import Anchors
from fusar_jax.tasks import detection

from .conftest import NAME, QUESTIONS, data_url, picture, user

DETECT = detection.question("ship")


@pytest.fixture(scope="module")
def client(server):
  return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none")


@pytest.fixture(scope="module")
def anchors():
  rng = np.random.default_rng(0)
  features = rng.normal(size=(5, 64))
  features /= np.linalg.norm(features, axis=1, keepdims=True)
  return Anchors(
    features.astype(np.float32), rng.uniform(size=(5, 2)).astype(np.float32)
  )


def _text(done) -> str:
  assert done.status_code == 200, done.text
  return done.json()["choices"][0]["message"]["content"]


@pytest.mark.parametrize("question", [*QUESTIONS, DETECT])
def test_openais_client_gets_the_answers_of_ask(client, assistant, question):
  """Boxes in them are in pixels of the image that was sent."""
  image = picture(3)
  expected = assistant.ask(image, question, max_new_tokens=64)
  options = {
    "model": NAME,
    "messages": [user(question, image)],
    "max_completion_tokens": 64,
  }
  whole = client.chat.completions.create(**options)
  [choice] = whole.choices
  assert choice.message.content == expected
  assert choice.finish_reason == "stop"
  *chunks, last = client.chat.completions.create(
    **options, stream=True, stream_options={"include_usage": True}
  )
  pieces = [chunk.choices[0].delta.content or "" for chunk in chunks]
  assert "".join(pieces) == expected
  assert chunks[-1].choices[0].finish_reason == "stop"
  assert last.usage == whole.usage
  assert whole.usage.prompt_tokens > 36  # Visual tokens are counted.
  assert len({chunk.id for chunk in [*chunks, last]}) == 1


def test_long_answers_arrive_in_pieces_and_end_at_the_limit(client, assistant):
  image = picture(4)
  options = {"model": NAME, "messages": [user(QUESTIONS[1], image)]}
  chunks = [
    chunk.choices[0]
    for chunk in client.chat.completions.create(
      **options, max_tokens=12, temperature=1.5, seed=7, stream=True
    )
  ]
  text = "".join(choice.delta.content or "" for choice in chunks)
  assert text == assistant.ask(
    image, QUESTIONS[1], max_new_tokens=12, temperature=1.5, seed=7
  )
  assert chunks[-1].finish_reason == "length"
  assert sum(bool(choice.delta.content) for choice in chunks) > 1


def test_anchors_change_the_answer_as_those_of_ask(server, assistant, anchors):
  """An .npz, the same as JSON, and none."""
  image, question = picture(5), QUESTIONS[1]
  content = io.BytesIO()
  np.savez(content, features=anchors.features, positions=anchors.positions)
  encoded = base64.b64encode(content.getvalue()).decode()
  listed = {
    "features": anchors.features.tolist(),
    "positions": anchors.positions.tolist(),
  }
  expected, plain = (
    assistant.ask(image, question, given, max_new_tokens=32)
    for given in (anchors, None)
  )
  assert expected != plain
  for value in (encoded, f"data:application/x-npz;base64,{encoded}", listed):
    done = server.ask(user(question, image), max_tokens=32, anchors=value)
    assert _text(done) == expected
    notes = done.json()["fusar"]["anchors"]
    assert notes == {"used": 5, "outside": 0, "year": None}
  assert _text(server.ask(user(question, image), max_tokens=32)) == plain


def test_anchors_by_longitude_and_latitude(server, assistant, anchors):
  """Those outside the window of a GeoTIFF are counted and left out."""
  image = picture(6, (64, 64))
  content = io.BytesIO()
  with rasterio.open(
    content,
    "w",
    driver="GTiff",
    height=64,
    width=64,
    count=3,
    dtype="uint8",
    crs="EPSG:4326",
    transform=from_origin(10.0, 50.0, 0.001, 0.001),
  ) as file:
    file.write(image.transpose(2, 0, 1))
  encoded = base64.b64encode(content.getvalue()).decode()
  message = user(QUESTIONS[1])
  url = f"data:image/tiff;base64,{encoded}"
  message["content"].append({"type": "image_url", "image_url": {"url": url}})
  left, top, right, bottom = bbox = [8, 0, 64, 56]
  rows = anchors.positions[:, 0].astype(float) * 56 + top
  cols = anchors.positions[:, 1].astype(float) * 56 + left
  sent = {
    "features": [*anchors.features.tolist(), anchors.features[0].tolist()],
    "lon": [*(10 + 0.001 * cols), 9.0],
    "lat": [*(50 - 0.001 * rows), 50.0],
  }
  done = server.ask(message, max_tokens=32, anchors=sent, bbox=bbox)
  assert done.json()["fusar"]["anchors"]["used"] == 5
  assert done.json()["fusar"]["anchors"]["outside"] == 1
  window = image[top:bottom, left:right]
  assert _text(done) == assistant.ask(
    window, QUESTIONS[1], anchors, max_new_tokens=32
  )


def test_what_a_first_question_computed_is_kept(server, assistant, anchors):
  """Image and prefix; other anchors are another prefix of the same image."""
  image = picture(7)
  names = ("images_encoded", "prefixes_read", "prefixes_reused")

  def counts():
    text = server.client.get("/metrics").text
    lines = dict(line.rsplit(" ", 1) for line in text.splitlines())
    return np.array([int(lines[f"fusar_{name}_total"]) for name in names])

  other = dataclasses.replace(anchors, features=-anchors.features)
  moved = dataclasses.replace(anchors, positions=1 - anchors.positions)
  before, texts = counts(), set()
  for given, added in (
    (None, [1, 1, 1]),
    (anchors, [0, 1, 1]),
    (other, [0, 1, 1]),
    (moved, [0, 1, 1]),
    (anchors, [0, 0, 2]),
  ):
    for question in QUESTIONS:
      sent = given and {
        "features": given.features.tolist(),
        "positions": given.positions.tolist(),
      }
      done = server.ask(user(question, image), max_tokens=16, anchors=sent)
      answer = assistant.ask(image, question, given, max_new_tokens=16)
      assert _text(done) == answer
      texts.add(answer)
    assert (counts() - before).tolist() == added
    before = counts()
  assert len(texts) > len(QUESTIONS)  # Anchors matter.


def test_a_conversation_goes_on(server):
  """With the first image, its answer, and instructions of one's own."""
  turns = [
    {"role": "system", "content": "Answer in one word."},
    user(QUESTIONS[0], picture(8)),
    {"role": "assistant", "content": "1"},
    user("And planes?"),
  ]
  assert _text(server.ask(*turns, max_tokens=8))
  assert _text(server.ask(user("Which sensors see at night?"), max_tokens=8))


def test_a_stop_text_ends_an_answer_before_it(server, assistant):
  image = picture(3)
  answer = assistant.ask(image, DETECT, max_new_tokens=64)
  assert '", ' not in answer.partition('"label"')[0]
  done = server.ask(user(DETECT, image), max_tokens=64, stop=["nothing", '"l'])
  assert _text(done) == answer.partition('"l')[0]
  assert done.json()["choices"][0]["finish_reason"] == "stop"
  streamed = server.ask(
    user(DETECT, image), max_tokens=64, stop='"l', stream=True
  ).text
  assert '\\"l' not in streamed
  assert '\\", ' not in streamed.partition("[DONE]")[0].partition("bbox")[2]


def test_models_and_health(client, server):
  assert [model.id for model in client.models.list()] == [NAME]
  health = server.client.get("/health").json()
  assert health == {"status": "ok", "waiting": 0, "running": 0}


def test_metrics_count(server):
  before = server.client.get("/metrics").text
  server.ask(user(QUESTIONS[0], picture(9)), max_tokens=4)
  after = server.client.get("/metrics").text

  def value(text, name):
    [line] = [row for row in text.splitlines() if row.startswith(f"{name} ")]
    return float(line.split(" ")[1])

  for name in (
    "fusar_first_token_seconds_count",
    "fusar_request_seconds_count",
  ):
    assert value(after, name) == value(before, name) + 1
  new = value(after, "fusar_new_tokens_total")
  assert 1 <= new - value(before, "fusar_new_tokens_total") <= 4
  assert "fusar_requests_waiting 0\n" in after
  assert 'fusar_batch_size_bucket{le="+Inf"}' in after
  assert data_url(picture(9)) not in after
