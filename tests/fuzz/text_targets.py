"""Texts: answers, questions and rows of predictions."""

import functools
import json
from pathlib import Path

from target import Target, as_lines, lazy

TEXTS = (
  '[{"bbox_2d": [1, 2, 30, 40], "label": "ship"}]',
  '```json\n[{"bbox_2d": [1, 2, 30, 40], \'label\': "ship"},\n]\n```',
  "There are twenty-one ships, 1,234 in all.",
  "<|box_start|>(1,2),(3,4)<|box_end|> {<1><2><30><40>} [refer]",
  "top-left, center, bottom-right",
  "The terrain is classified as coast. Road presence: some roads.",
  "What is in [1, 2, 3, 4]? Choose from: cargo ship, fishing ship.",
  "None",
  "What is shown? A. a lake   B. a port\nC. -1,200.5 ships (yes or no)",
)
_ROW = {
  "id": "a",
  "question": "?",
  "gt": TEXTS[0],
  "prediction_text": TEXTS[1],
  "coordinate_size": [56, 56],
  "boxes": [[1, 2, 30, 40]],
  "labels": ["ship"],
}
_ROWS = (
  _ROW | {"task": "detection"},
  _ROW | {"id": "b", "task": "counting", "gt": "3", "prediction_text": "two"},
  _ROW | {"id": "c", "task": "grounding", "gt": "top", "truncated": True},
  _ROW | {"id": "d", "task": "classification", "gt": "cargo ship",
          "question": TEXTS[6], "prediction_text": "fishing ship"},
  _ROW | {"id": "e", "task": "captioning", "gt": TEXTS[5],
          "prediction_text": TEXTS[5]},
  _ROW | {"id": "f", "task": "vqa", "gt": "B", "question": TEXTS[8],
          "prediction_text": "a port", "question_type": "scene"},
  _ROW | {"id": "g", "task": "free-captioning", "gt": "A  sea .",
          "references": ["A  sea .", "Sea."], "prediction_text": "The sea"},
)  # fmt: skip


_TRUTHS = [
  {"id": row["id"], "image": "a.png", "task": row["task"], "answer": row["gt"],
   "question": row["question"], "coordinate_size": [112, 56]}
  for row in _ROWS
]  # fmt: skip


def texts(folder: Path) -> list[bytes]:
  return [text.encode() for text in TEXTS]


def _parse_all(text: str) -> None:
  from fusar_jax.tasks import (
    boxes,
    captioning,
    classification,
    counting,
    grounding,
    official_answers,
    predictions,
    sarchat,
    vqa,
  )

  counting.parse(text)
  boxes.parse_complete(text, 1)
  grounding.parse(text)
  captioning.parse(text)
  classification.parse(text, ("cargo ship", "fishing ship"))
  classification.choices(text)
  official_answers.official_error(text)
  predictions.guess_task(text)
  vqa.kind_of(text, text)
  listed = vqa.options(text)
  for kind in vqa.KINDS:
    vqa.parse(text, kind, listed)
  for subtask in sarchat.SUBTASKS:
    sarchat.parse(text, subtask)


def _questions(text: str) -> None:
  from fusar_jax.metrics.baselines import questions

  questions.words(text)
  questions.box(text)


def _prompts(text: str) -> None:
  """Ids of a prompt and its answer; no control token comes from the text."""
  from fusar_jax.data import prompts

  words = _tokenizer()
  ids, _ = prompts.encode_example(words, text, text, [2])
  special = words.special_tokens()
  assert ids.count(special.image) == 2
  assert ids.count(special.end_of_turn) == 3
  words.decode(ids)


@functools.cache
def _tokenizer():
  from fusar_jax.data.tokenizer import load_tokenizer
  from fusar_jax.hf.folders import TINY_BASE, resolve

  return load_tokenizer(resolve(TINY_BASE))


def _scores(path: Path) -> None:
  from fusar_jax.report.scoring import evaluate_predictions

  json.dumps(evaluate_predictions(path), allow_nan=False)


def _read_predictions(path: Path) -> None:
  from fusar_jax.report.scoring import read_rows

  read_rows(path)


def _predictions(folder: Path) -> None:
  rows = "".join(json.dumps(row) + "\n" for row in _ROWS)
  (folder / "predictions.jsonl").write_text(rows)


def _scores_by_manifest(path: Path) -> None:
  from fusar_jax.report.scoring import evaluate_predictions

  evaluate_predictions(path.with_name("predictions.jsonl"), path)


def _chat_request(text: str) -> None:
  """The body of a request, its images and its anchors."""
  import numpy as np

  from fusar_jax.geo.georeference import Georeference
  from fusar_jax.serving.anchors import read_field
  from fusar_jax.serving.chat_request import read_request
  from fusar_jax.serving.conversation import check_turns
  from fusar_jax.serving.limits import Limits, RequestError
  from fusar_jax.serving.sources import Sources
  from fusar_jax.serving.uploads import Upload, read_upload

  place = Georeference("affine", "EPSG:4326", (0.1, 0, 10, 0, -0.1, 50))
  try:
    request = read_request(text.encode("utf-8", "surrogatepass"))
    check_turns(request.messages)
    for url in request.messages[0].images:
      read_upload(Sources().read(url, "image_url"), Limits())
    image = Upload(np.zeros((28, 28, 3), np.uint8), place)
    if request.bbox is not None:
      image = image.crop(request.bbox)
    read_field(request.anchors, image, None, request.year)
  except RequestError as error:
    raise ValueError(str(error)) from None


def _chat_bodies(folder: Path) -> list[bytes]:
  import base64
  import io

  import numpy as np
  from geo_targets import anchors, write_raster
  from PIL import Image

  picture = io.BytesIO()
  Image.fromarray(np.zeros((9, 9), np.uint8)).save(picture, "png")
  write_raster(folder / "a.tif")
  contents = [
    ("png", picture.getvalue()),
    ("tiff", (folder / "a.tif").read_bytes()),
  ]
  vectors = base64.b64encode(anchors(folder)[0]).decode()
  point = {"features": [[0.1] * 64], "positions": [[0.5, 0.5]]}
  place = {"features": [[0.1] * 64], "lon": [10.5], "lat": [49.5]}
  bodies = []
  for (kind, content), given in zip(
    contents * 2, (vectors, point, place, None)
  ):
    url = f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
    parts = [
      {"type": "text", "text": "what?"},
      {"type": "image_url", "image_url": {"url": url}},
    ]
    body = {
      "messages": [{"role": "user", "content": parts}],
      "max_tokens": 9,
      "stop": ["a"],
      "bbox": [0, 0, 8, 8],
      "anchors": given,
    }
    bodies.append(json.dumps(body).encode())
  return bodies


def _scene_question(text: str) -> None:
  """The body of a question of the page, and its text as the model's answer."""
  from fusar_jax.serving.limits import RequestError
  from fusar_jax.serving.scene_questions import conclude, plan, read_ask

  try:
    ask = read_ask(text.encode("utf-8", "surrogatepass"))
    asked = plan(ask, (300, 400), 168, 9)
  except RequestError as error:
    raise ValueError(str(error)) from None
  answer = conclude(asked, ask, [text] * len(asked.parts), (300, 400))
  json.dumps(answer.to_json(), allow_nan=False)


def _scene_questions(folder: Path) -> list[bytes]:
  window = {"window": [0, 0, 400, 300], "anchors": "aligned", "others": ["a"]}
  return [
    json.dumps(window | fields).encode()
    for fields in (
      {"task": "detection", "classes": ["ship"]},
      {"task": "counting", "classes": ["plane"], "tiles": False},
      {"task": "grounding", "classes": ["ship"], "window": [5, 6, 70, 80]},
      {"task": "classification", "classes": ["a", "b"], "window": [1, 2, 9, 9]},
      {"question": "Detect [1, 2, 30, 40].", "year": 2024},
    )
  ]


def _upload_form(text: str) -> None:
  """The body of an upload; nothing is left of one that is rejected."""
  import tempfile

  from fusar_jax.serving.file_store import FileStore
  from fusar_jax.serving.limits import RequestError
  from fusar_jax.serving.upload_form import UploadForm

  with tempfile.TemporaryDirectory() as folder:
    form = UploadForm(_FORM, FileStore(Path(folder)))
    body = text.encode("utf-8", "surrogatepass")
    try:
      for start in range(0, len(body), 50):
        form.write(body[start : start + 50])
      form.finish()
    except RequestError as error:
      form.abort()
      assert not list(Path(folder).iterdir())
      raise ValueError(str(error)) from None
    assert len(list(Path(folder).iterdir())) == 1


_FORM = "multipart/form-data; boundary=xyz"
_UPLOAD = (
  '--xyz\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nvision\r\n'
  '--xyz\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n'
  "Content-Type: image/png\r\n\r\n" + "pixels\r\n" * 20 + "\r\n--xyz--\r\n"
)


TARGETS = {
  "answers": Target(_parse_all, texts),
  "chat request": Target(_chat_request, _chat_bodies),
  "scene question": Target(_scene_question, _scene_questions),
  "upload form": Target(_upload_form, lambda folder: [_UPLOAD.encode()]),
  "predictions": Target(_read_predictions, as_lines(*_ROWS), ".jsonl"),
  "prompts": Target(_prompts, texts),
  "questions": Target(_questions, texts),
  "sarchat boxes": Target(
    lazy("datasets.importers.sarchat", "read_boxes"),
    lambda folder: [b"There are 2. {<1><2><30><40>} {<5><6><7.5><8>}"],
  ),
  "scores": Target(_scores, as_lines(*_ROWS), ".jsonl"),
  "scores by manifest": Target(
    _scores_by_manifest, as_lines(*_TRUTHS), ".jsonl", _predictions
  ),
  "scored rows": Target(
    lambda path: lazy("report.scoring", "read_samples")(path.parent),
    as_lines({"id": "a", "task": "counting", "correct": True}),
    "samples.jsonl",
  ),
}
