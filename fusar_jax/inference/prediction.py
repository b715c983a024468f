"""Resumable batch prediction over a manifest.

Decoding is greedy, in a few static shapes. Completed rows are appended to
predictions.partial.jsonl, and repeating an interrupted call resumes from that
file. An answer does not depend on the rows beside it, so a resumed run writes
the same final file. Several processes (`hosts`) share the rows.
"""

import dataclasses
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from fusar_jax.data.anchor_conditions import ALIGNED, AnchorCondition
from fusar_jax.data.data_hashes import hash_examples, hash_manifest
from fusar_jax.data.example_sizes import measure_examples
from fusar_jax.data.lengths import PROMPT_LENGTH
from fusar_jax.data.triplets import (
  Triplet,
  raise_together,
  read_manifest,
  write_manifest,
)
from fusar_jax.data.workers import Recipe
from fusar_jax.hf.folders import local_model
from fusar_jax.inference.answering import (
  Answerer,
  asks_boxes,
  box_table,
  offered_names,
)
from fusar_jax.inference.assistant import Assistant
from fusar_jax.inference.batching import Work, group_rows
from fusar_jax.inference.hosts import Hosts, partial_files
from fusar_jax.inference.load import load
from fusar_jax.inference.options import PredictionOptions
from fusar_jax.inference.progress import Display, Progress
from fusar_jax.io.strict_json import reading
from fusar_jax.model.config import FusarConfig
from fusar_jax.platforms import check_platforms
from fusar_jax.training import provenance

FINISHED = "predictions.jsonl"


class Answer(NamedTuple):
  """One answered row.

  Attributes:
    row: row number, from 0.
    triplet: the manifest row, under its anchor condition.
    prediction: the row of predictions.jsonl.
  """

  row: int
  triplet: Triplet
  prediction: dict


def predict(
  model: str | os.PathLike,
  data: str | os.PathLike,
  out: str | os.PathLike,
  options: PredictionOptions | None = None,
  *,
  assistant: Assistant | None = None,
  on_complete: Callable[[FusarConfig, list[Answer]], None] | None = None,
) -> Path:
  """Answers the rows of a manifest and returns the path of the predictions.

  Args:
    model: see `fusar_jax.load`.
    data: manifest.
    out: folder for predictions.jsonl, or the name of a file, X.jsonl.
    options: see `PredictionOptions`; None: the defaults.
    assistant: the model, if it is already loaded.
    on_complete: called with the model's config and all answers in row order,
      before the final file is written. If it raises, repeating the call runs
      only `on_complete` again.

  Raises:
    FileNotFoundError, FileExistsError, ValueError: invalid arguments or input
      files; the message names the fix, and no file is written.
  """
  options = options or PredictionOptions()
  check_platforms()
  model = local_model(model)
  hosts = Hosts.current()
  finished = _output_file(Path(out))
  condition = recorded_condition(model)
  if options.anchors is not None:
    condition = dataclasses.replace(condition, name=options.anchors)
  rows = read_manifest(data)
  triplets = condition.arrange(rows)[: options.limit]
  _check_questions(triplets, data, options)
  settings = (
    identity(model, data, rows, options.adapter)
    | options.resume_settings()
    | {"anchors": condition.name, "anchor_grid": condition.grid}
  )
  mine, files = hosts.partial_file(finished), partial_files(finished)
  others = [path for path in files if path != mine]
  progress = Progress(mine, settings, others)
  if assistant is None:
    assistant = load(model, **options.model_arguments())
  if assistant.tokenizer is None:
    raise ValueError(
      f"{options.adapter or model}: tokenizer.json or tokenizer.model not"
      " found; copy the model's tokenizer into this folder."
    )
  if assistant.config.tlm is None:
    triplets = without_anchors(triplets, options.anchors)
  answerer, work = prepare_rows(assistant, triplets, data, condition, options)
  predictions = _answer_rows(answerer, _share(work, hosts), progress)
  hosts.wait("rows answered")
  if hosts.index == 0:
    if hosts.count > 1:
      predictions = _join(finished, settings, len(triplets), hosts)
    _finish(finished, triplets, predictions, assistant.config, on_complete)
  hosts.wait("file written")
  return finished


def _share(work: Sequence[Work], hosts: Hosts) -> list[Work]:
  return [
    dataclasses.replace(group, rows=hosts.share(group.rows)) for group in work
  ]


def _join(
  finished: Path, settings: dict, rows: int, hosts: Hosts
) -> dict[int, dict]:
  """Returns the rows that all processes have written.

  Raises:
    FileNotFoundError: rows are missing.
  """
  files = partial_files(finished)
  predictions = Progress(files[0], settings, files[1:]).rows()
  missing = rows - len(predictions)
  if missing:
    raise FileNotFoundError(
      f"{finished.parent}: {missing} of {rows} rows of the other"
      f" {hosts.count - 1} processes are not here. Write to a folder that all"
      " hosts share, and repeat the command."
    )
  return predictions


def _finish(finished, triplets, predictions, config, on_complete) -> None:
  """Writes the final file, and deletes the partial ones."""
  if on_complete is not None:
    answers = [Answer(i, t, predictions[i]) for i, t in enumerate(triplets)]
    on_complete(config, answers)
  write_manifest(finished, [predictions[i] for i in sorted(predictions)])
  for path in partial_files(finished):
    path.unlink(missing_ok=True)


def _output_file(out: Path) -> Path:
  """Returns the file to write; raises FileExistsError if it exists."""
  file = out if out.suffix == ".jsonl" and not out.is_dir() else out / FINISHED
  folder = file.parent
  if folder.exists() and not folder.is_dir():
    raise FileExistsError(f"{folder} is a file; give a folder to write to.")
  if file.exists():
    raise FileExistsError(f"{file} exists; give another name, or delete it.")
  return file


def _check_questions(
  triplets: Sequence[Triplet], data, options: PredictionOptions
) -> None:
  """Raises ValueError if an option applies to no question."""
  if options.choices and not offered_names(triplets):
    raise ValueError(
      f"{data}: no classification question offers names to choose from"
      ' ("... Choose from: ship, plane."), and no vqa question lists options'
      ' ("A. ...", "B. ...") or asks for yes or no; drop choices.'
    )
  if options.constrain and not any(map(asks_boxes, triplets)):
    raise ValueError(
      f"{data}: no detection question, whose answer would be boxes; drop the"
      " constraint."
    )


def prepare_rows(
  assistant: Assistant,
  triplets: Sequence[Triplet],
  data,
  condition: AnchorCondition,
  options: PredictionOptions,
  offered: Mapping[int, tuple[str, ...]] | None = None,
) -> tuple[Answerer, list[Work]]:
  """Returns what answers rows, and all rows in groups.

  Args:
    assistant: the model.
    triplets: rows, arranged under `condition`.
    data: where they come from, for messages.
    condition: of the anchors.
    options: of decoding.
    offered: row -> answers to score; None: those of `options.choices`.

  Raises:
    ValueError: bad rows, listed; or `max_new_tokens` is too low for boxes.
  """
  recipe = Recipe(
    assistant.need_tokenizer(),
    assistant.config,
    with_answer=False,
    max_length=PROMPT_LENGTH,
    anchors=condition,
  )
  sizes, problems = measure_examples(triplets, recipe)
  raise_together(problems, f"{data}: bad rows")
  table = None
  if options.constrain and any(map(asks_boxes, triplets)):
    table = box_table(assistant, triplets, options.max_new_tokens)
  if offered is None:
    offered = offered_names(triplets) if options.choices else {}
  answerer = Answerer(
    assistant, recipe.builder(), triplets, offered, options, table
  )
  work = group_rows(triplets, sizes, options.batch_size, offered)
  return answerer, list(work)


def _answer_rows(
  answerer: Answerer, work: Sequence[Work], progress: Progress
) -> dict[int, dict]:
  """Answers the rows that the partial file lacks; returns all predictions."""
  done = progress.open()
  truncated = _count_truncated(progress.rows())
  total = sum(len(group.rows) for group in work)
  answered = sum(len(done.intersection(group.rows)) for group in work)
  with progress, Display(total, answered) as display:
    for group in work:
      for rows in answerer.answer(group, done):
        progress.append(rows)
        truncated += _count_truncated(rows)
        display.advance(len(rows), truncated)
  predictions = progress.rows()
  if tokens := answerer.usage.tokens:
    steps = answerer.usage.slot_steps
    print(
      f"decoded {tokens} tokens in {steps} slot-steps,"
      f" {steps / tokens:.3f} a token"
    )
  if truncated:
    print(
      f"truncated {truncated} of {len(predictions)} answers at"
      f' {answerer.options.max_new_tokens} tokens ("truncated": true); raise'
      " --max-new-tokens"
    )
  return predictions


def _count_truncated(rows: Mapping[int, dict]) -> int:
  return sum(row.get("truncated", False) for row in rows.values())


def without_anchors(
  triplets: Sequence[Triplet], anchors: str | None
) -> list[Triplet]:
  """Returns the rows without anchors, for a model without TLM.

  Raises:
    ValueError: the requested condition uses anchors.
  """
  if anchors not in (None, "none"):
    raise ValueError(
      f"--anchors {anchors}: the model has no TLM, so it takes no anchors;"
      " drop the option, or load a model or adapter with TLM."
    )
  dropped = sum(any(triplet.anchors) for triplet in triplets)
  if dropped:
    logging.getLogger(__name__).warning(
      "the model has no TLM: the anchors of %d rows are not used", dropped
    )
  return AnchorCondition("none").arrange(triplets)


def recorded_condition(model: str | os.PathLike) -> AnchorCondition:
  """Returns the anchor condition that a run was trained with.

  Models of other kinds, and runs older than the conditions, return ALIGNED.
  """
  if not provenance.is_run(Path(model)):
    return ALIGNED
  with reading(Path(model) / provenance.CONFIG_FILE):
    data = provenance.read_settings(Path(model))["data"]
    return AnchorCondition(
      data.get("anchors", "aligned"), data.get("anchor_grid", 0)
    )


def identity(model, data, triplets: Sequence[Triplet], adapter=None) -> dict:
  """Returns hashes of weights, rows and files that a resumed run must match.

  Args:
    model, data, adapter: as in `predict`.
    triplets: rows of the manifest, whose images and anchors are hashed.
  """
  hashes = {
    name: path and provenance.describe(str(path), Path()).sha256
    for name, path in (("model", model), ("adapter", adapter))
  }
  hashes["data"] = hash_manifest(data)
  return hashes | hash_examples(triplets)
