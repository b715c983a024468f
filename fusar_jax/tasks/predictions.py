"""Prediction rows: the model's answer together with the ground truth.

The format is one JSON object per line, as in the official code. A detection row
is {"id", "coordinate_size", "question", "gt", "prediction_text", "detections",
"parse_error"}: "gt" is null where the manifest has no answer, and "detections"
is null if "parse_error" gives a reason. A row of another task has the first
five of these. This package appends "task", "image", "raw_text", "truncated"
(the answer reached the limit of new tokens) and "scores". Every box of a row,
in its texts and in its detections, is in pixels of its `coordinate_size`.

Files are untrusted input: the reader checks every line and reports all bad ones
together, by line number. A model's answer is never a file error: an unparsable
answer is scored as an empty one.
"""

import codecs
import dataclasses
import functools
import json
import pathlib
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, TypeVar

import numpy as np

from fusar_jax.io import strict_json
from fusar_jax.tasks import boxes as boxes_lib
from fusar_jax.tasks import notations
from fusar_jax.tasks.official_answers import official_error

TASKS = ("counting", "grounding", "classification", "captioning", "detection")

# First match wins: SARChat's tags, then phrases of this package's questions,
# then common phrases of other data sets.
_GUESSES = (
  ("sarchat-counting", r"^\s*\[count\]"),
  ("sarchat-grounding", r"^\s*\[grounding\]"),
  ("sarchat-identification", r"^\s*\[identify\]"),
  ("sarchat-referring", r"^\s*\[refer\]"),
  (
    "vqa",
    r"\brespond with (?:the letter of the option|yes or no|a number|a word or"
    r" short phrase) only\b|\busing a single word\b",
  ),
  ("grounding", r"\b3 ?[x×] ?3\b|\bgrid\b"),
  ("detection", r"bbox_2d|\bdetect(?:ed)?\b|\[detection\]"),
  ("counting", r"\bcount\b|\bhow many\b|\bnumber of\b"),
  ("classification", r"\bchoose from\b|\bclassif|\b(?:class|type|kind) of\b"),
  ("captioning", r"\bdescri(?:be|ption)|\bcaption\b"),
)
# Notations that the official code does not define; its rules cover JSON only.
_OTHER_NOTATIONS = {*notations.NOTATIONS} - {"json"}
_SHOWN = 20
_HALF = re.compile("[\ud800-\udfff]")
# Answers are capped long before this. A longer text is not an answer; its first
# _KEPT characters are retained for inspection.
MAX_ANSWER = 200_000
_KEPT = 1000


@dataclasses.dataclass(frozen=True)
class Prediction:
  """One row of a predictions file.

  Attributes:
    id: id of the triplet.
    row: line of the file, from 1.
    task: one of `report.scoring.SCORERS`.
    question, gt, text: the question, the true answer, the model's answer.
    size: (h, w) of the image that boxes are pixels of, or None.
    image: name of the image; rows of one image are resampled together.
    group: near duplicates (the manifest's "split_group"), or None; resampled
      together, too.
    guessed: the task was inferred from the question.
    unread: why the answer is not parsed, or None; it scores as empty.
    truncated: the answer reached the limit of new tokens; None: unknown.
    question_type: type of the question in its data set, or None; scores of
      short answers are broken down by it.
    references: all true captions of a row that has several, or ().
  """

  id: str
  row: int
  task: str
  question: str
  gt: str
  text: str
  size: tuple[int, int] | None = None
  image: str | None = None
  group: str | None = None
  guessed: bool = False
  unread: str | None = None
  truncated: bool | None = None
  question_type: str | None = None
  references: tuple[str, ...] = ()

  @functools.cached_property
  def boxes(self) -> boxes_lib.Parsed:
    """The answer of a detection row, parsed once."""
    return boxes_lib.parse_boxes(self.text, self.size)

  @functools.cached_property
  def true_boxes(self) -> boxes_lib.Parsed:
    """The true answer of a detection row, parsed once; truncated: an error."""
    return boxes_lib.parse_complete(self.gt, self.size)

  @property
  def image_key(self) -> str:
    """Rows with the same key are of one image."""
    return self.image or self.id

  @property
  def cluster_key(self) -> str:
    """Rows with the same key are not independent, so resampled together."""
    return cluster_key(self.group, self.image_key)

  @property
  def where(self) -> str:
    return f'row {self.row} (id "{self.id}")'


def cluster_key(group: str | None, image: str) -> str:
  """Returns what rows that are not independent have in common.

  The group of near duplicates, else the image.
  """
  return image if group is None else f"group {group}"


def clusters_of(rows: Sequence[Prediction]) -> np.ndarray | None:
  """Returns int[n], the group of near duplicates of each row; None: no groups.

  A row without a group is one of its own, with the other rows of its image.
  """
  if all(row.group is None for row in rows):
    return None
  return np.unique([row.cluster_key for row in rows], return_inverse=True)[1]


def guess_task(question: str) -> str | None:
  """Returns the task that a question most likely belongs to, or None."""
  text = question.lower()
  return next((t for t, rule in _GUESSES if re.search(rule, text)), None)


def prediction_row(
  *,
  id: str,
  question: str,
  gt,
  prediction_text: str,
  coordinate_size,
  model_size=None,
  task: str | None = None,
  **extra,
) -> dict:
  """Returns one output row with its boxes mapped to the row's coordinates.

  Args:
    id, question, gt, task: of the triplet, as in its manifest; a `gt` of None
      means that the truth is unknown.
    prediction_text: the model's output, its boxes in pixels of `model_size`.
    coordinate_size: size that the triplet declares for its boxes: one number
      or (h, w). If it declares none, the image's own size.
    model_size: (h, w) of the model's input image; default: coordinate_size.
    extra: further fields, e.g. image="images/1.png".

  A parsable answer with boxes is rewritten in the row's coordinates unless they
  equal the model's, and the verbatim output is stored as "raw_text". Any other
  answer is unchanged. "parse_error" refers to the verbatim output. For boxes in
  JSON, it is the error of the official code (`official_answers`), although a
  rule of `notations` may repair the answer for scoring. For boxes in another
  notation, it is the error of `notations`.
  """
  size = boxes_lib.as_size(coordinate_size)
  task = task or guess_task(question)
  detects = task == "detection"
  row = {
    "id": id,
    "coordinate_size": size[0] if size[0] == size[1] else list(size),
    "question": question,
    "gt": gt,
    "prediction_text": prediction_text,
    **({"detections": None, "parse_error": None} if detects else {}),
    **({"task": task} if task else {}),
    **extra,
  }
  seen = size if model_size is None else boxes_lib.as_size(model_size)
  if task and task.startswith("sarchat-"):
    # Text with embedded boxes: rescale the boxes, preserve the words.
    text = boxes_lib.scale_text(prediction_text, seen, size)
    if text != prediction_text:
      row["prediction_text"], row["raw_text"] = text, prediction_text
  if not detects:
    return row
  parsed = boxes_lib.parse_boxes(prediction_text, seen)
  row["parse_error"] = parsed.error
  if parsed.rule not in _OTHER_NOTATIONS:
    row["parse_error"] = parsed.error or official_error(prediction_text)
  found = boxes_lib.scale(parsed.boxes, seen, size)
  scores = None
  if parsed.scores is not None:
    scores = [round(v, 4) for v in parsed.scores.tolist()]
  if row["parse_error"] is None:
    rounded = [[round(v, 2) for v in box] for box in found.tolist()]
    row["detections"] = boxes_lib.as_objects(rounded, parsed.labels, scores)
  if seen != size and parsed.is_truncated:
    # Rescale in place, which preserves the visible truncation.
    text = boxes_lib.scale_text(prediction_text, seen, size)
    row["prediction_text"], row["raw_text"] = text, prediction_text
  elif seen != size and parsed.error is None:
    text = boxes_lib.format_boxes(found, parsed.labels, scores)
    row["prediction_text"], row["raw_text"] = text, prediction_text
  return row


def read_predictions(
  path, *, with_truth: bool = True, tasks: Sequence[str] = TASKS
) -> list[Prediction]:
  """Reads a predictions JSONL file; skips empty lines.

  Args:
    path: the file.
    with_truth: rows contain the question and the truth. Otherwise "id" and
      "prediction_text" suffice, and the other fields are empty.
    tasks: tasks allowed when rows contain their truth.

  Raises:
    IsADirectoryError: path is a folder.
    ValueError: the file is empty or has bad rows; lists all of them by number.
  """
  path = pathlib.Path(path)
  if path.is_dir():
    raise IsADirectoryError(
      f"{path} is a folder; give a file of predictions, such as"
      f" {path / 'test.jsonl'}."
    )
  rows, bad, seen = [], [], {}
  # Read bytes: a line of invalid UTF-8 must not hide errors in other lines.
  with path.open("rb") as lines:
    for number, line in enumerate(lines, start=1):
      if number == 1:
        line = line.removeprefix(codecs.BOM_UTF8)
      if not line.strip():
        continue
      try:
        row = _read_row(_read_object(line), number, with_truth, tasks)
        first = seen.setdefault((row.id, row.question), number)
        if first != number:
          what = f'id "{row.id}"' + (" with this question" * with_truth)
          raise ValueError(f"{what} is already used by row {first}")
        rows.append(row)
      except ValueError as e:
        bad.append(f"row {number}: {e}")
  raise_bad(str(path), bad)
  if not rows:
    raise ValueError(
      f"{path}: no rows. Expected one JSON object per line, as"
      " `python -m fusar_jax.predict` writes them."
    )
  return rows


def raise_bad(where: str, bad: list[str]) -> None:
  """Raises one ValueError that lists all bad rows, if there are any."""
  if bad:
    more = [f"... and {len(bad) - _SHOWN} more"] if len(bad) > _SHOWN else []
    rows = "\n  ".join([*bad[:_SHOWN], *more])
    raise ValueError(f"{where}: {len(bad)} bad rows:\n  {rows}")


def _read_object(line: bytes) -> dict:
  try:
    fields = strict_json.parse(line.decode("utf-8"))
  except UnicodeDecodeError as e:
    byte = f"byte 0x{line[e.start]:02x} at {e.start + 1}"
    raise ValueError(f"not UTF-8 text: {byte}, {e.reason}") from None
  except ValueError as e:
    raise ValueError(f"not JSON: {e}") from None
  if not isinstance(fields, dict):
    raise ValueError(f"expected an object, got {type(fields).__name__}")
  return fields


def _read_row(
  fields: dict, number: int, with_truth: bool, tasks: Sequence[str]
) -> Prediction:
  truth = ("question", "gt") if with_truth else ()
  needed = ("id", *truth, "prediction_text")
  if missing := [name for name in needed if name not in fields]:
    raise ValueError(f"no {', '.join(missing)}; expected {', '.join(needed)}")
  identity = fields["id"]
  if isinstance(identity, bool) or not isinstance(identity, (str, int)):
    raise ValueError(f"id must be text or a number, got {identity!r:.60}")
  texts = {"question": "", **fields, "id": str(identity)}
  for name in ("id", "question", "prediction_text"):
    _check_text(name, texts[name])
  task = texts.get("task") or guess_task(texts["question"]) or ""
  gt = image = None
  if with_truth:
    if task not in tasks:
      raise ValueError(
        f"task {fields.get('task')!r:.60} is not known; give one of"
        f' {", ".join(tasks)} as "task"'
      )
    if fields["gt"] is None:
      raise ValueError(
        'gt is null: no truth to score by. Write "None" where there is no'
        " target, or take the truth from a --manifest"
      )
    gt, image = as_text(fields["gt"]), fields.get("image")
    _check_text("gt", gt)
    if image is not None:
      _check_text("image", image)
  truncated = fields.get("truncated")
  if truncated is not None and not isinstance(truncated, bool):
    raise ValueError(f"truncated must be true or false, got {truncated!r:.60}")
  size = fields.get("coordinate_size")
  text = texts["prediction_text"]
  unread = None
  if len(text) > MAX_ANSWER:
    unread = f"{len(text)} characters; at most {MAX_ANSWER} are read"
  return Prediction(
    id=texts["id"],
    row=number,
    task=task,
    question=texts["question"],
    gt=gt or "",
    text=text[:_KEPT] if unread else text,
    size=None if size is None else _size(size),
    image=image,
    group=as_group(fields.get("split_group")),
    guessed=not fields.get("task"),
    unread=unread,
    truncated=truncated,
    question_type=as_question_type(fields.get("question_type")),
    references=as_references(fields.get("references")),
  )


def _check_text(name: str, value) -> None:
  if not isinstance(value, str):
    raise ValueError(f"{name} is {type(value).__name__}, expected text")
  # JSON escapes can encode lone surrogates, which UTF-8 output cannot.
  if not value.isascii() and (half := _HALF.search(value)):
    raise ValueError(
      f"{name}: character {half.start() + 1} is half of a surrogate pair"
      f" ({half.group()!a}); write it as valid UTF-8 text"
    )


def _size(value) -> tuple[int, int]:
  try:
    return boxes_lib.as_size(value)
  except (TypeError, OverflowError, ValueError):
    raise ValueError(
      "coordinate_size must be one whole number of pixels or [height, width],"
      f" got {value!r:.60}"
    ) from None


def as_group(value) -> str | None:
  """Returns the "split_group" of a row as text; None: it has none."""
  return None if value is None else str(value)


def as_question_type(value) -> str | None:
  """Returns the "question_type" of a row; None: it has none, or no text."""
  return value if isinstance(value, str) and value else None


def as_references(value) -> tuple[str, ...]:
  """Returns the "references" of a row, () for None.

  Raises:
    ValueError: not a list of texts.
  """
  texts = [] if value is None else value
  if not isinstance(texts, list):
    raise ValueError(f"references must be a list of texts, got {value!r:.60}")
  for text in texts:
    _check_text("a reference", text)
  return tuple(texts)


def as_text(gt) -> str:
  """Returns a true answer as text; manifests may store it as a list."""
  if isinstance(gt, str):
    return gt
  return "None" if gt is None else json.dumps(gt, ensure_ascii=False)


class _Parsed(Protocol):
  @property
  def error(self) -> str | None: ...


_Truth = TypeVar("_Truth", bound=_Parsed)


def read_truths(
  rows: Iterable[Prediction], parse: Callable[[str], _Truth]
) -> list[_Truth]:
  """Returns `parse(row.gt)` for each row.

  Raises:
    ValueError: unparsable true answers; lists all of them.
  """
  truths = [(row, parse(row.gt)) for row in rows]
  raise_bad(
    "true answers (gt) that cannot be read",
    [f"{row.where}: {t.error}" for row, t in truths if t.error],
  )
  return [truth for _, truth in truths]
