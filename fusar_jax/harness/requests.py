"""Requests of evaluation harnesses, answered as `predict` answers rows.

A request becomes a manifest row and goes the way of `inference.prediction`:
the same prompt, image size, anchor condition and continuous batch. Its answer
is therefore `prediction_text` of the same row in predictions.jsonl.
"""

import dataclasses
import itertools
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fusar_jax.data.examples import as_pixels
from fusar_jax.data.manifest_row import Triplet, parse_row
from fusar_jax.data.prompts import SYSTEM
from fusar_jax.geo.anchors import Anchors, write_anchors
from fusar_jax.hf.folders import local_model
from fusar_jax.inference.load import load
from fusar_jax.inference.options import PredictionOptions
from fusar_jax.inference.prediction import (
  prepare_rows,
  recorded_condition,
  without_anchors,
)

# Tokens of an answer if the harness names no limit.
MAX_NEW_TOKENS = 1024


@dataclasses.dataclass(frozen=True)
class Request:
  """One question.

  Attributes:
    images: paths or PIL images, at least one; they precede the text.
    question: text of the user's last turn.
    anchors: one for all images, or a list with one per image: the path of an
      anchor file, {"features": float[S, 64], "positions": float[S, 2]}, or
      None.
    history: earlier turns, {"question", "answer"} each.
  """

  images: Sequence[Any]
  question: str
  anchors: Any = None
  history: Sequence[Mapping[str, str]] = ()


class Responder:
  """A loaded model that answers requests.

  Args:
    model: run folder, Hugging Face folder or hub id.
    root: folder of relative paths of images and anchors.
    options: of the model and of decoding; `max_new_tokens` is that of each
      call.

  Raises:
    ValueError, FileNotFoundError: the model cannot be loaded, or has the
      anchor condition "shuffled".
  """

  def __init__(
    self,
    model: str,
    root: str | Path = ".",
    options: PredictionOptions | None = None,
  ):
    self._options = options or PredictionOptions()
    folder = local_model(model)
    self._condition = recorded_condition(folder)
    if self._options.anchors is not None:
      self._condition = dataclasses.replace(
        self._condition, name=self._options.anchors
      )
    if self._condition.name == "shuffled":
      raise ValueError(
        'anchors "shuffled" exchanges the files of an entire data set, which a'
        " harness does not show at once; use predict and evaluate."
      )
    self.assistant = load(folder, **self._options.model_arguments())
    self._root = Path(root)

  def generate(
    self,
    requests: Sequence[Request],
    max_new_tokens: int = MAX_NEW_TOKENS,
    until: Sequence[str] = (),
    repetition_penalty: float | None = None,
  ) -> list[str]:
    """Returns the greedy answers; boxes are in pixels of the first image.

    Args:
      requests: answered in continuous batches of `options.batch_size`.
      max_new_tokens: most tokens of an answer.
      until: texts that end an answer; they are not part of it.
      repetition_penalty: None: that of the options.

    Raises:
      ValueError, FileNotFoundError: a request cannot be answered; lists all.
    """
    changes: dict[str, Any] = {"max_new_tokens": max_new_tokens}
    if repetition_penalty is not None:
      changes["repetition_penalty"] = repetition_penalty
    rows = self._answer(requests, {}, **changes)
    answers = [row["prediction_text"] for row in rows]
    for stop in filter(None, until):
      answers = [text.partition(stop)[0] for text in answers]
    return answers

  def complete(
    self, requests: Sequence[Request], max_new_tokens: int
  ) -> list[str | None]:
    """Returns the greedy answers that end within the limit, None for others."""
    rows = self._answer(requests, {}, max_new_tokens=max_new_tokens)
    return [None if r["truncated"] else r["prediction_text"] for r in rows]

  def log_likelihoods(
    self, requests: Sequence[Request], candidates: Sequence[Sequence[str]]
  ) -> list[list[float]]:
    """Returns natural logarithms, per request one for each candidate answer.

    They include the end token: how likely the answer is just this.
    """
    offered = {row: tuple(texts) for row, texts in enumerate(candidates)}
    rows = self._answer(requests, offered)
    return [
      [row["scores"][text] for text in texts]
      for row, texts in zip(rows, candidates, strict=True)
    ]

  def _answer(
    self,
    requests: Sequence[Request],
    offered: Mapping[int, tuple[str, ...]],
    **changes: Any,
  ) -> list[dict]:
    if not requests:
      return []
    options = dataclasses.replace(self._options, choices=False, **changes)
    with tempfile.TemporaryDirectory(prefix="fusar_jax_harness_") as folder:
      triplets = [
        self._triplet(request, number, Path(folder))
        for number, request in enumerate(requests, start=1)
      ]
      triplets = self._condition.arrange(triplets)
      if self.assistant.config.tlm is None:
        triplets = without_anchors(triplets, self._options.anchors)
      answerer, work = prepare_rows(
        self.assistant, triplets, "requests", self._condition, options, offered
      )
      rows: dict[int, dict] = {}
      for group in work:
        for answered in answerer.answer(group):
          rows |= answered
    return [rows[number] for number in range(len(requests))]

  def _triplet(self, request: Request, number: int, folder: Path) -> Triplet:
    if not request.images:
      raise ValueError(
        f"request {number} ({request.question!r:.60}) has no image; the model"
        " answers questions about images."
      )
    anchors = request.anchors
    if anchors is not None and not isinstance(anchors, list):
      anchors = [anchors]
    names = itertools.count()

    def locate(value: Any) -> Path:
      if isinstance(value, (str, Path)):
        return (self._root / value).absolute()
      file = folder / f"{number}-{next(names)}"
      if isinstance(value, Mapping):
        file = file.with_suffix(".npz")
        write_anchors(file, _anchors(value))
        return file
      # Lossless, so the pixels are those of the harness.
      file = file.with_suffix(".png")
      pixels = as_pixels(value)
      Image.fromarray(pixels).save(file, compress_level=1)
      return file

    row = {
      "image": list(request.images),
      "aef": anchors,
      "question": request.question,
      "history": [dict(turn) for turn in request.history] or None,
    }
    try:
      return parse_row(row, number, Path("requests"), locate)
    except ValueError as error:
      raise ValueError(f"request {number}: {error}") from None


def of_messages(messages: Sequence[Mapping], anchors: Any = None) -> Request:
  """Returns the request of a chat.

  Args:
    messages: {"role", "content"}; content is a text or a list of {"type":
      "text", "text"} and {"type": "image", "url"}.
    anchors: see `Request`.

  Raises:
    ValueError: another type of content, another system prompt than the
      model's, or no user turn at the end.
  """
  images: list[Any] = []
  turns: list[tuple[str, str]] = []
  for message in messages:
    content = message["content"]
    if isinstance(content, str):
      content = [{"type": "text", "text": content}]
    texts = []
    for part in content:
      if part["type"] == "text":
        texts.append(part["text"])
      elif part["type"] == "image":
        images.append(part["url"])
      else:
        raise ValueError(
          f"a message holds {part['type']!r}; expected text and images."
        )
    text = "\n".join(filter(None, texts))
    if message["role"] != "system":
      turns.append((message["role"], text))
    elif text != SYSTEM:
      raise ValueError(
        f"the system prompt is {text!r:.60}; the model was trained with"
        f" {SYSTEM!r} only. Put instructions into the user's turn."
      )
  roles = [role for role, _ in turns]
  if roles != ["user", "assistant"] * (len(turns) // 2) + ["user"]:
    raise ValueError(
      f"turns of {', '.join(roles) or 'nobody'}; expected user and assistant in"
      " turn, the user last."
    )
  texts = [text for _, text in turns]
  history = [
    {"question": question, "answer": answer}
    for question, answer in zip(texts[:-1:2], texts[1::2])
  ]
  return Request(images, texts[-1], anchors, history)


def _anchors(value: Mapping) -> Anchors:
  try:
    return Anchors(
      np.asarray(value["features"], np.float32),
      np.asarray(value["positions"], np.float32),
    )
  except (KeyError, TypeError) as error:
    raise ValueError(
      'anchors need "features", float[S, 64], and "positions", float[S, 2];'
      f" got {', '.join(map(str, value))} ({error!r})"
    ) from None
