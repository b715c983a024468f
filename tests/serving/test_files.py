"""Uploads over HTTP, and images that a request names by them."""

import io

import numpy as np
import openai
import pytest
from PIL import Image

from fusar_jax.serving.file_store import FileLimits

from .conftest import MINUTES, NAME, QUESTIONS, picture


def _png(pixels: np.ndarray) -> bytes:
  content = io.BytesIO()
  Image.fromarray(pixels).save(content, "png")
  return content.getvalue()


def _named(text: str, url: str) -> dict:
  image = {"type": "image_url", "image_url": {"url": url}}
  return {"role": "user", "content": [{"type": "text", "text": text}, image]}


@pytest.fixture(scope="module")
def running(serving):
  limits = FileLimits(files=2, file_bytes=2**20, total_bytes=2**20)
  with serving(file_limits=limits) as running:
    yield running


@pytest.fixture
def client(running):
  client = openai.OpenAI(
    base_url=f"{running.url}/v1",
    api_key="none",
    max_retries=0,
    timeout=MINUTES,
  )
  yield client
  for file in client.files.list():
    client.files.delete(file.id)
  assert not list(running.files.iterdir())


def test_openais_client_uploads_an_image_and_asks(client, running, assistant):
  image = picture(1)
  file = client.files.create(
    file=("Ship of today.PNG", _png(image)), purpose="vision"
  )
  assert (file.filename, file.bytes) == ("Ship of today.PNG", len(_png(image)))
  assert client.files.retrieve(file.id).id == file.id
  for question in QUESTIONS:
    done = client.chat.completions.create(
      model=NAME, messages=[_named(question, file.id)], max_tokens=8
    )
    expected = assistant.ask(image, question, max_new_tokens=8)
    assert done.choices[0].message.content == expected
  assert client.files.delete(file.id).deleted
  with pytest.raises(openai.NotFoundError, match="Upload it again"):
    client.chat.completions.create(
      model=NAME, messages=[_named(QUESTIONS[0], file.id)]
    )


def test_uploads_are_bounded(client, running):
  """In bytes, in number; nothing is left of what is rejected."""
  with pytest.raises(openai.APIStatusError, match="larger than") as error:
    client.files.create(file=b"x" * (2**20 + 1), purpose="vision")
  assert error.value.status_code == 413
  assert not list(running.files.iterdir())
  client.files.create(file=b"x" * 2**19, purpose="vision")
  with pytest.raises(openai.RateLimitError, match="together"):
    client.files.create(file=b"x" * (2**19 + 1), purpose="vision")
  client.files.create(file=b"x", purpose="vision")
  with pytest.raises(openai.RateLimitError, match="2 files"):
    client.files.create(file=b"x", purpose="vision")
  assert len(list(running.files.iterdir())) == 2


BOUNDARY = "multipart/form-data; boundary=b"
_PART = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n'


@pytest.mark.parametrize(
  ("kind", "body", "message"),
  [
    ("application/json", b"{}", "multipart/form-data"),
    ("multipart/form-data", b"{}", "boundary"),
    (BOUNDARY, b"nothing of this kind", "not multipart"),
    (BOUNDARY, _PART + b"\r\ncut", "is cut"),
    (BOUNDARY, _PART + b"\r\nx\r\n" + _PART + b"\r\nx\r\n--b--", "one file"),
    (
      BOUNDARY,
      _PART.replace(b'"file"', b'"image"') + b"\r\nx\r\n--b--",
      "named file",
    ),
    (
      BOUNDARY,
      b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\nx\r\n--b--',
      "no file",
    ),
    (
      BOUNDARY,
      b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n'
      + b"x" * 2000
      + b"\r\n--b--",
      "more than 1024",
    ),
  ],
)
def test_a_body_that_is_no_upload(client, running, kind, body, message):
  done = running.client.post(
    "/v1/files", content=body, headers={"Content-Type": kind}
  )
  assert done.status_code == 400, done.text
  assert message in done.json()["error"]["message"]
  assert not list(running.files.iterdir())


def test_a_web_page_uploads_nothing(client, running):
  files = {"file": ("a.png", b"x")}
  for origin, status in (("http://evil.example", 403), (running.url, 200)):
    done = running.client.post(
      "/v1/files", files=files, headers={"Origin": origin}
    )
    assert done.status_code == status


def test_what_is_no_image_is_rejected(client):
  """A VRT, which GDAL would open, could name other files."""
  for content in (b"x", b"<VRTDataset rasterXSize='1' rasterYSize='1'/>"):
    file = client.files.create(file=("a.tif", content), purpose="vision")
    with pytest.raises(openai.BadRequestError, match="image_url 0"):
      client.chat.completions.create(
        model=NAME, messages=[_named("a?", file.id)]
      )


def test_the_folder_goes_with_the_server(serving):
  with serving() as running:
    running.client.post("/v1/files", files={"file": ("a.png", b"x")})
    assert len(list(running.files.iterdir())) == 1
  assert not running.files.exists()
