"""Answers every row of a manifest: batches, a file that survives a kill.

Greedy, in batches of one static shape per length of prompt. What is answered
stands in predictions.partial.jsonl; after an interruption the same call goes on
from there. Batches do not depend on where a run was interrupted, so that the
file in the end is the same.
"""

import dataclasses
import itertools
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from fusar_jax.data.anchor_conditions import ALIGNED, AnchorCondition
from fusar_jax.data.padding import pad_batch
from fusar_jax.data.sizes import Sizes, round_up
from fusar_jax.data.survey import survey
from fusar_jax.data.triplets import (
  Triplet,
  raise_together,
  read_manifest,
  write_manifest,
)
from fusar_jax.data.workers import Recipe
from fusar_jax.inference.assistant import Assistant, load
from fusar_jax.tasks.predictions import prediction_row
from fusar_jax.training import provenance

FINISHED = "predictions.jsonl"
PARTIAL = "predictions.partial.jsonl"

# Prompts are padded up to multiples of this, so that few programs are compiled.
_LENGTH_STEP = 64


@dataclasses.dataclass(frozen=True)
class _Work:
  """Rows that are answered together, and the shape that they are padded to."""

  rows: tuple[int, ...]
  sizes: Sizes


def predict(
  model: str | os.PathLike,
  data: str | os.PathLike,
  out: str | os.PathLike,
  *,
  adapter: str | os.PathLike | None = None,
  legacy_sigma: float | None = None,
  anchors: str | None = None,
  batch_size: int = 16,
  max_new_tokens: int = 256,
  limit: int | None = None,
  assistant: Assistant | None = None,
) -> Path:
  """Answers the rows of a manifest; returns the path of predictions.jsonl.

  Args:
    model, adapter, legacy_sigma: see `fusar_jax.load`.
    data: manifest.
    out: folder for the predictions.
    anchors: condition of the anchors, see `data.anchor_conditions`; default:
      the one that the run was trained with.
    batch_size: rows answered at once.
    max_new_tokens: cap on an answer.
    limit: answers only this many rows, the first ones.
    assistant: the model, if it is loaded already.

  Raises:
    FileNotFoundError, FileExistsError, ValueError: what is wrong, where, and
      the fix; nothing was written.
  """
  out = Path(out)
  for name, value in (
    ("batch size", batch_size),
    ("max new tokens", max_new_tokens),
    ("limit", limit),
  ):
    if value is not None and value < 1:
      raise ValueError(f"{name} {value}: expected at least 1.")
  if legacy_sigma is not None and adapter is None:
    raise ValueError("--legacy-sigma belongs to an --adapter.")
  if out.exists() and not out.is_dir():
    raise FileExistsError(f"{out} is a file; give a folder to write to.")
  if (out / FINISHED).exists():
    raise FileExistsError(
      f"{out / FINISHED} is there already; give another folder, or delete it."
    )
  condition = recorded_condition(model)
  if anchors is not None:
    condition = dataclasses.replace(condition, name=anchors)
  triplets = condition.arrange(read_manifest(data))[:limit]
  progress = _Progress(
    out / PARTIAL,
    {
      **identity(model, data, adapter=adapter, legacy_sigma=legacy_sigma),
      "anchors": condition.name,
      "anchor_grid": condition.grid,
      "batch_size": batch_size,
      "max_new_tokens": max_new_tokens,
      "limit": limit,
    },
  )
  if assistant is None:
    assistant = load(model, adapter=adapter, legacy_sigma=legacy_sigma)
  if assistant.tokenizer is None:
    raise ValueError(
      f"{adapter or model} holds no tokenizer.json or tokenizer.model, and"
      " questions are words; put the model's tokenizer there."
    )
  recipe = Recipe(
    assistant.tokenizer,
    assistant.config,
    with_answer=False,
    anchors=condition,
  )
  sizes, refused = survey(triplets, recipe)
  raise_together(refused, f"{data}: bad rows")
  done = progress.open()
  work = [
    batch
    for batch in _batches(triplets, sizes, batch_size)
    if not done.issuperset(batch.rows)
  ]
  left = sum(len(batch.rows) for batch in work)
  build = recipe.builder()
  with progress, _Display(len(triplets), len(triplets) - left) as display:
    for batch in work:
      rows = _answer(
        assistant, build, triplets, batch, batch_size, max_new_tokens
      )
      progress.append(rows)
      display.advance(len(rows))
  predictions = progress.rows()
  write_manifest(out / FINISHED, [predictions[i] for i in sorted(predictions)])
  (out / PARTIAL).unlink()
  return out / FINISHED


def recorded_condition(model: str | os.PathLike) -> AnchorCondition:
  """Returns how the anchors were shown to a run while it was trained.

  A model of another kind, or a run older than the controls, saw them aligned.
  """
  if not provenance.is_run(Path(model)):
    return ALIGNED
  config = provenance.read_json(Path(model) / provenance.CONFIG_FILE)["config"]
  data = config["data"]
  return AnchorCondition(
    data.get("anchors", "aligned"), data.get("anchor_grid", 0)
  )


def identity(model, data, *, adapter=None, legacy_sigma=None) -> dict:
  """Returns what a resumed run must not mix: weights and rows, by content."""
  weights = {
    name: path and provenance.describe(str(path), Path()).sha256
    for name, path in (("model", model), ("adapter", adapter))
  }
  return {
    **weights,
    "legacy_sigma": legacy_sigma,
    "data": provenance.hash_manifest(data),
  }


def _batches(
  triplets: Sequence[Triplet], sizes: Sequence[Sizes], batch_size: int
) -> Iterator[_Work]:
  """Groups rows by length; within it by task, whose answers are as long."""

  def shelf(row):
    return round_up(sizes[row].length, _LENGTH_STEP)

  order = sorted(
    range(len(sizes)), key=lambda row: (shelf(row), triplets[row].task or "")
  )
  for length, group in itertools.groupby(order, shelf):
    group = list(group)
    whole = Sizes.covering(sizes[row] for row in group)
    shape = dataclasses.replace(
      whole, length=length, anchors=round_up(whole.anchors, 8)
    )
    for start in range(0, len(group), batch_size):
      yield _Work(tuple(group[start : start + batch_size]), shape)


def _answer(
  assistant: Assistant, build, triplets, work, batch_size, max_new_tokens
) -> dict[int, dict]:
  """Returns row number -> prediction row."""
  examples = [build(triplets[row]) for row in work.rows]
  # Copies fill a short batch up: no other shape is compiled for it.
  filler = [examples[0]] * (batch_size - len(examples))
  batch = pad_batch(
    examples + filler,
    config=assistant.config,
    **dataclasses.asdict(work.sizes),
  )
  answers = assistant.generate_batch(batch, max_new_tokens)
  rows = {}
  for row, example, ids in zip(work.rows, examples, answers):
    triplet = triplets[row]
    rows[row] = prediction_row(
      id=triplet.id,
      question=triplet.question,
      gt=triplet.answer,
      prediction_text=assistant.tokenizer.decode(ids, skip_special=True),
      coordinate_size=example.coordinate_size,
      model_size=example.model_size,
      task=triplet.task,
      image=_image_name(triplet),
    )
  return rows


def _image_name(triplet: Triplet) -> str:
  """The first image, as seen from its manifest where it lies below it."""
  image, folder = triplet.images[0], triplet.source.parent
  below = isinstance(image, Path) and image.is_relative_to(folder)
  return (image.relative_to(folder) if below else image).as_posix()


class _Progress:
  """The partial file: a line of settings, then one line per answered row."""

  def __init__(self, path: Path, settings: dict):
    self._path = path
    self._settings = settings
    self._rows = {}
    self._file = None
    self._whole = 0
    if path.is_file():
      self._read()

  def _read(self) -> None:
    """Keeps whole lines; a kill may have cut the last one."""
    lines = self._path.read_bytes().splitlines(keepends=True)
    lines = [line for line in lines if line.endswith(b"\n")]
    if not lines:
      return
    try:
      head, *rows = map(json.loads, lines)
      before = head["settings"]
      self._rows = {row["row"]: row["prediction"] for row in rows}
    except (ValueError, TypeError, KeyError) as error:
      raise ValueError(
        f"{self._path} is damaged ({error}); delete it to begin anew."
      ) from None
    changed = [
      name for name, now in self._settings.items() if before.get(name) != now
    ]
    if changed:
      raise FileExistsError(
        f"{self._path} belongs to a run with another {', '.join(changed)}."
        " Give another folder, or delete it to begin anew."
      )
    self._whole = sum(map(len, lines))

  def open(self) -> set[int]:
    """Makes ready to append; returns the rows that are answered already."""
    self._path.parent.mkdir(parents=True, exist_ok=True)
    self._file = self._path.open("ab")
    self._file.truncate(self._whole)
    if not self._whole:
      self._write([{"settings": self._settings}])
    return set(self._rows)

  def append(self, rows: dict[int, dict]) -> None:
    """Adds answered rows, and hands them to the system at once."""
    self._rows |= rows
    self._write({"row": i, "prediction": row} for i, row in rows.items())

  def _write(self, lines) -> None:
    text = "".join(json.dumps(v, ensure_ascii=False) + "\n" for v in lines)
    self._file.write(text.encode())
    self._file.flush()

  def rows(self) -> dict[int, dict]:
    return self._rows

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self._file.close()


class _Display:
  """A live bar on a terminal; one greppable line per batch elsewhere."""

  def __init__(self, total: int, done: int):
    self._total, self._done, self._first = total, done, done
    self._began = time.monotonic()
    console = Console(file=sys.stdout)
    self._bar = Progress(console=console) if console.is_terminal else None

  def __enter__(self):
    if self._bar:
      self._bar.start()
      self._bar.add_task("rows", total=self._total, completed=self._done)
    return self

  def advance(self, rows: int) -> None:
    self._done += rows
    if self._bar:
      self._bar.advance(self._bar.task_ids[0], rows)
      return
    seconds = max(time.monotonic() - self._began, 1e-9)
    rate = (self._done - self._first) / seconds
    print(
      f"predict {self._done}/{self._total} rows/s {rate:.2f}"
      f" eta {(self._total - self._done) / rate:.0f} s",
      flush=True,
    )

  def __exit__(self, *_):
    if self._bar:
      self._bar.stop()
