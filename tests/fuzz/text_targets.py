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


TARGETS = {
  "answers": Target(_parse_all, texts),
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
