"""Resumable batch prediction over a manifest.

Decoding is greedy, in batches of a few static shapes. Completed rows are
appended to predictions.partial.jsonl, and repeating an interrupted call resumes
from that file. Batches do not depend on where a run was interrupted, so a
resumed run writes the same final file.

Two options replace free greedy decoding. `constrain` restricts box lists to
their grammar. `choices` selects the class with the highest likelihood among the
names that the question offers.
"""

import dataclasses
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from fusar_jax.data import vision
from fusar_jax.data.anchor_conditions import ALIGNED, AnchorCondition
from fusar_jax.data.example_sizes import measure_examples
from fusar_jax.data.examples import PROMPT_LENGTH, Example, model_size
from fusar_jax.data.padding import pad_batch
from fusar_jax.data.records import PackedFile
from fusar_jax.data.triplets import (
  Triplet,
  raise_together,
  read_manifest,
  write_manifest,
)
from fusar_jax.data.workers import Recipe
from fusar_jax.inference.assistant import Assistant, load
from fusar_jax.inference.batching import Work, batches
from fusar_jax.inference.box_grammar import box_list
from fusar_jax.inference.generation import Constraint
from fusar_jax.inference.options import CONSTRAINTS, MAX_NEW_TOKENS
from fusar_jax.inference.prefetch import one_ahead
from fusar_jax.inference.progress import Display, Progress
from fusar_jax.inference.token_table import TokenTable
from fusar_jax.model.batch import Batch
from fusar_jax.model.config import FusarConfig
from fusar_jax.tasks import classification
from fusar_jax.tasks.predictions import guess_task, prediction_row
from fusar_jax.training import provenance

FINISHED = "predictions.jsonl"
# Replaces ".jsonl" while rows are missing.
PARTIAL = ".partial.jsonl"


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
  *,
  adapter: str | os.PathLike | None = None,
  legacy_sigma: float | None = None,
  use_tlm: bool = True,
  image_size: int | None = None,
  anchors: str | None = None,
  batch_size: int = 16,
  max_new_tokens: int = MAX_NEW_TOKENS,
  repetition_penalty: float | None = None,
  limit: int | None = None,
  constrain: str | None = None,
  choices: bool = False,
  assistant: Assistant | None = None,
  on_complete: Callable[[FusarConfig, list[Answer]], None] | None = None,
) -> Path:
  """Answers the rows of a manifest and returns the path of the predictions.

  Args:
    model, adapter, legacy_sigma, use_tlm, image_size: see `fusar_jax.load`.
    data: manifest.
    out: folder for predictions.jsonl, or the name of a file, X.jsonl.
    anchors: condition of the anchors, see `data.anchor_conditions`; default:
      the condition of the training run. A model without TLM takes no anchors.
    batch_size: rows per batch.
    max_new_tokens: maximum tokens of an answer. The "truncated" field of a
      generated answer is true if the answer reached this limit.
    repetition_penalty: above 0, 1 disables it; None: the value of the model's
      `generation_config.json`.
    limit: answers only the first `limit` rows.
    constrain: "json": an answer to a detection question is a well-formed list
      of boxes within the image, or "None", and ends within `max_new_tokens`.
      Answers of other tasks are unconstrained.
    choices: answers a classification question with the likeliest of the names
      that it offers; "scores" in the row lists all log-likelihoods. Answers to
      other questions, and to those without names, are generated.
    assistant: the model, if it is already loaded.
    on_complete: called with the model's config and all answers in row order,
      before the final file is written. If it raises, repeating the call runs
      only `on_complete` again.

  Raises:
    FileNotFoundError, FileExistsError, ValueError: invalid arguments or input
      files; the message names the fix, and no file is written.
  """
  out = Path(out)
  for name, value in (
    ("batch size", batch_size),
    ("max new tokens", max_new_tokens),
    ("limit", limit),
  ):
    if value is not None and value < 1:
      raise ValueError(f"{name} {value}: expected at least 1.")
  if constrain not in (None, *CONSTRAINTS):
    raise ValueError(
      f"constraint {constrain!r}; known: {', '.join(CONSTRAINTS)}."
    )
  if legacy_sigma is not None and adapter is None:
    raise ValueError("--legacy-sigma belongs to an --adapter.")
  finished = out
  if out.suffix != ".jsonl" or out.is_dir():
    finished = out / FINISHED
  folder = finished.parent
  if folder.exists() and not folder.is_dir():
    raise FileExistsError(f"{folder} is a file; give a folder to write to.")
  if finished.exists():
    raise FileExistsError(
      f"{finished} is there already; give another name, or delete it."
    )
  condition = recorded_condition(model)
  if anchors is not None:
    condition = dataclasses.replace(condition, name=anchors)
  triplets = condition.arrange(read_manifest(data))[:limit]
  offered = _offered(triplets) if choices else {}
  if choices and not offered:
    raise ValueError(
      f"{data}: no classification question offers names to choose from"
      ' ("... Choose from: ship, plane."); leave choices out.'
    )
  if constrain and not any(map(_asks_boxes, triplets)):
    raise ValueError(
      f"{data}: no detection question, whose answer would be boxes; leave the"
      " constraint out."
    )
  progress = Progress(
    finished.with_suffix(PARTIAL),
    {
      **identity(model, data, adapter=adapter, legacy_sigma=legacy_sigma),
      # None: as in files from before there were any.
      "use_tlm": None if use_tlm else False,
      "image_size": image_size,
      "anchors": condition.name,
      "anchor_grid": condition.grid,
      "batch_size": batch_size,
      "max_new_tokens": max_new_tokens,
      "repetition_penalty": repetition_penalty,
      "limit": limit,
      "constrain": constrain,
      # None: as in files from before there were any.
      "choices": choices or None,
    },
  )
  if assistant is None:
    assistant = load(
      model,
      adapter=adapter,
      legacy_sigma=legacy_sigma,
      use_tlm=use_tlm,
      image_size=image_size,
    )
  if assistant.config.tlm is None:
    triplets = _without_anchors(triplets, anchors)
  if assistant.tokenizer is None:
    raise ValueError(
      f"{adapter or model} holds no tokenizer.json or tokenizer.model, and"
      " questions are words; put the model's tokenizer there."
    )
  recipe = Recipe(
    assistant.tokenizer,
    assistant.config,
    with_answer=False,
    max_length=PROMPT_LENGTH,
    anchors=condition,
  )
  sizes, refused = measure_examples(triplets, recipe)
  raise_together(refused, f"{data}: bad rows")
  table = _box_table(assistant, triplets, max_new_tokens) if constrain else None
  answers = _Answers(
    assistant,
    recipe.builder(),
    triplets,
    offered,
    table,
    max_new_tokens,
    repetition_penalty,
  )
  done = progress.open()
  cut = _truncated(progress.rows())
  work = [
    batch
    for batch in batches(triplets, sizes, batch_size, offered)
    if not done.issuperset(batch.rows)
  ]
  left = sum(len(batch.rows) for batch in work)
  with progress, Display(len(triplets), len(triplets) - left) as display:
    for batch, examples in one_ahead(answers.examples, work):
      rows = answers.of(batch, examples, batch_size)
      progress.append(rows)
      cut += _truncated(rows)
      display.advance(len(rows), cut)
  predictions = progress.rows()
  if cut:
    print(
      f"truncated {cut} of {len(predictions)} answers at {max_new_tokens}"
      ' tokens, before their end ("truncated": true); raise --max-new-tokens'
    )
  if on_complete is not None:
    answered = [
      Answer(i, triplet, predictions[i]) for i, triplet in enumerate(triplets)
    ]
    on_complete(assistant.config, answered)
  write_manifest(finished, [predictions[i] for i in sorted(predictions)])
  progress.path.unlink()
  return finished


def _truncated(rows: Mapping[int, dict]) -> int:
  return sum(row.get("truncated", False) for row in rows.values())


def _without_anchors(
  triplets: Sequence[Triplet], anchors: str | None
) -> list[Triplet]:
  """Returns the rows without anchors, for a model without TLM.

  Raises:
    ValueError: the requested condition uses anchors.
  """
  if anchors not in (None, "none"):
    raise ValueError(
      f"--anchors {anchors}: the model has no TLM, so it takes no anchors;"
      " leave the option out, or load a model or adapter with TLM."
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
  config = provenance.read_json(Path(model) / provenance.CONFIG_FILE)["config"]
  data = config["data"]
  return AnchorCondition(
    data.get("anchors", "aligned"), data.get("anchor_grid", 0)
  )


def identity(model, data, *, adapter=None, legacy_sigma=None) -> dict:
  """Returns hashes of weights and rows, which a resumed run must match."""
  weights = {
    name: path and provenance.describe(str(path), Path()).sha256
    for name, path in (("model", model), ("adapter", adapter))
  }
  return {
    **weights,
    "legacy_sigma": legacy_sigma,
    "data": provenance.hash_manifest(data),
  }


def _asks_boxes(triplet: Triplet) -> bool:
  return (triplet.task or guess_task(triplet.question)) == "detection"


def _offered(triplets: Sequence[Triplet]) -> dict[int, tuple[str, ...]]:
  """Returns row -> candidate names, spelled as in the question."""
  offered = {}
  for row, triplet in enumerate(triplets):
    question = triplet.question
    if (triplet.task or guess_task(question)) != "classification":
      continue
    if names := classification.choices(question):
      offered[row] = tuple(_as_spelt(name, question) for name in names)
  return offered


def _as_spelt(name: str, question: str) -> str:
  """Returns a lower-case name as the question spells it, e.g. "T-72"."""
  words = r"[\W_]+".join(map(re.escape, name.split()))
  found = re.findall(rf"(?<!\w){words}(?!\w)", question, re.IGNORECASE)
  return found[-1] if found else name


def _box_table(
  assistant: Assistant, triplets: Sequence[Triplet], max_new_tokens: int
) -> TokenTable:
  """Returns the box grammar for every model image size of the rows."""
  config = assistant.config
  seen = {
    _seen_size(triplet, config) for triplet in triplets if _asks_boxes(triplet)
  }
  grammars = {size: box_list(size) for size in sorted(seen)}
  table = assistant.token_table(grammars)
  needed = max(int(table.distance[table.starts[size]]) for size in seen)
  if needed > max_new_tokens:
    raise ValueError(
      f"max new tokens {max_new_tokens}: the shortest list of boxes or None"
      f" takes {needed}."
    )
  return table


def _seen_size(triplet: Triplet, config) -> tuple[int, int]:
  image = triplet.images[0]
  packed = isinstance(image, PackedFile)
  return model_size(image.size if packed else vision.image_size(image), config)


@dataclasses.dataclass(frozen=True)
class _Answers:
  """Answers batches of one manifest.

  Attributes:
    assistant: the model.
    build: triplet -> example.
    triplets: rows of the manifest.
    offered: row -> candidate names, for rows that are scored.
    table: box grammar, or None: answers are unconstrained.
    max_new_tokens, repetition_penalty: see `predict`.
  """

  assistant: Assistant
  build: Callable[[Triplet], Example]
  triplets: Sequence[Triplet]
  offered: Mapping[int, tuple[str, ...]]
  table: TokenTable | None
  max_new_tokens: int
  repetition_penalty: float | None

  def examples(self, work: Work) -> list[Example]:
    """Builds the examples of a batch: images, anchors and token ids."""
    return [self.build(self.triplets[row]) for row in work.rows]

  def of(
    self, work: Work, examples: list[Example], batch_size: int
  ) -> dict[int, dict]:
    """Returns row number -> prediction row."""
    # Copies fill up a short batch, which avoids compiling another shape.
    spare = batch_size - len(examples)
    batch = pad_batch(
      examples + [examples[0]] * spare,
      config=self.assistant.config,
      **dataclasses.asdict(work.sizes),
    )
    rows = work.rows + work.rows[:1] * spare
    answer = self._chosen if work.scored else self._generated
    return {
      row: self._row(self.triplets[row], example, text, extra)
      for row, example, (text, extra) in zip(
        work.rows, examples, answer(batch, rows)
      )
    }

  def _generated(self, batch: Batch, rows) -> Iterator[tuple[str, dict]]:
    constraint = None
    if self.table is not None:
      config = self.assistant.config
      constraint = Constraint.of(
        self.table,
        [
          _seen_size(triplet, config) if _asks_boxes(triplet) else None
          for triplet in (self.triplets[row] for row in rows)
        ],
      )
    for ids in self.assistant.generate_batch(
      batch,
      self.max_new_tokens,
      constraint=constraint,
      repetition_penalty=self.repetition_penalty,
    ):
      text = self.assistant.tokenizer.decode(ids, skip_special=True)
      yield text, {"truncated": self.assistant.truncated(ids)}

  def _chosen(self, batch: Batch, rows) -> Iterator[tuple[str, dict]]:
    names = [self.offered[row] for row in rows]
    for offered, likelihoods in zip(
      names, self.assistant.log_likelihoods(batch, names)
    ):
      scores = {
        name: round(float(value), 5)
        for name, value in zip(offered, likelihoods)
      }
      yield offered[int(likelihoods.argmax())], {"scores": scores}

  def _row(self, triplet, example, text, extra) -> dict:
    return prediction_row(
      id=triplet.id,
      question=triplet.question,
      gt=triplet.answer,
      prediction_text=text,
      coordinate_size=example.coordinate_size,
      model_size=example.model_size,
      task=triplet.task,
      image=_image_name(triplet),
      **extra,
    )


def _image_name(triplet: Triplet) -> str:
  """Returns the first image, relative to its manifest's folder if inside it."""
  image, folder = triplet.images[0], triplet.source.parent
  below = isinstance(image, Path) and image.is_relative_to(folder)
  return (image.relative_to(folder) if below else image).as_posix()
