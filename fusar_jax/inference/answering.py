"""Answers every row of a manifest: batches, a file that survives a kill.

Greedy, in batches of a few static shapes. What is answered stands in
predictions.partial.jsonl; after an interruption the same call goes on from
there. Batches do not depend on where a run was interrupted, so that the file in
the end is the same.

Two kinds of answers may be had otherwise. Box lists can be held to their
grammar (`constrain`). And a class can be chosen by likelihood among the names
that the question offers (`choices`), which no answer can then fall out of.
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
from fusar_jax.data.examples import Example, model_size
from fusar_jax.data.padding import pad_batch
from fusar_jax.data.records import PackedFile
from fusar_jax.data.survey import survey
from fusar_jax.data.triplets import (
  Triplet,
  raise_together,
  read_manifest,
  write_manifest,
)
from fusar_jax.data.workers import Recipe
from fusar_jax.inference.ahead import one_ahead
from fusar_jax.inference.assistant import Assistant, load
from fusar_jax.inference.batching import Work, batches
from fusar_jax.inference.box_grammar import box_list
from fusar_jax.inference.generation import Constraint
from fusar_jax.inference.options import CONSTRAINTS, MAX_NEW_TOKENS
from fusar_jax.inference.progress import Display, Progress
from fusar_jax.inference.token_table import TokenTable
from fusar_jax.model.batch import Batch
from fusar_jax.model.config import FusarConfig
from fusar_jax.tasks import classification
from fusar_jax.tasks.predictions import guess_task, prediction_row
from fusar_jax.training import provenance

FINISHED = "predictions.jsonl"
# Instead of ".jsonl", while rows are missing.
PARTIAL = ".partial.jsonl"
# Most tokens of a prompt, as officially; training has a limit of its own.
PROMPT_LENGTH = 4096


class Answer(NamedTuple):
  """One answered row.

  Attributes:
    row: its number, from 0.
    triplet: as it was asked.
    prediction: as it is written.
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
  """Answers the rows of a manifest; returns the path of the predictions.

  Args:
    model, adapter, legacy_sigma, use_tlm, image_size: see `fusar_jax.load`.
    data: manifest.
    out: folder for predictions.jsonl, or the name of a file, X.jsonl.
    anchors: condition of the anchors, see `data.anchor_conditions`; default:
      the one that the run was trained with. A model without TLM takes none.
    batch_size: rows answered at once.
    max_new_tokens: cap on an answer; a generated answer has "truncated", true
      if it was cut there.
    repetition_penalty: above 0, 1 is none; None: that of the model's
      `generation_config.json`.
    limit: answers only this many rows, the first ones.
    constrain: "json": an answer to a detection question is a well-formed list
      of boxes within the image, or "None", and ends within the cap. Other
      tasks' answers are not held to it.
    choices: a classification question that offers names is answered by the
      likeliest of them; all log-likelihoods stand in the row as "scores".
      Other questions, and those that offer none, are answered in words.
    assistant: the model, if it is loaded already.
    on_complete: called with the model's config and all answers in the order of
      the rows, before the file appears under its name. If it raises, the same
      call repeats it and answers nothing again.

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
  sizes, refused = survey(triplets, recipe)
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
      display.advance(len(rows), _truncated(progress.rows()))
  predictions = progress.rows()
  if cut := _truncated(predictions):
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
  """Returns the rows as a model without TLM is asked them.

  Raises:
    ValueError: a condition that shows anchors was requested.
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


def _asks_boxes(triplet: Triplet) -> bool:
  return (triplet.task or guess_task(triplet.question)) == "detection"


def _offered(triplets: Sequence[Triplet]) -> dict[int, tuple[str, ...]]:
  """Returns row -> names to choose from, as the question spells them."""
  offered = {}
  for row, triplet in enumerate(triplets):
    question = triplet.question
    if (triplet.task or guess_task(question)) != "classification":
      continue
    if names := classification.choices(question):
      offered[row] = tuple(_as_spelt(name, question) for name in names)
  return offered


def _as_spelt(name: str, question: str) -> str:
  """What is compared is lower case; what was learned may be "T-72"."""
  words = r"[\W_]+".join(map(re.escape, name.split()))
  found = re.findall(rf"(?<!\w){words}(?!\w)", question, re.IGNORECASE)
  return found[-1] if found else name


def _box_table(
  assistant: Assistant, triplets: Sequence[Triplet], max_new_tokens: int
) -> TokenTable:
  """The grammar of boxes, for each size at which the model sees an image."""
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
    offered: row -> names, of those that are scored.
    table: grammar of boxes, or None: no answer is held to any.
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
    """Reads a batch's images, anchors and words."""
    return [self.build(self.triplets[row]) for row in work.rows]

  def of(
    self, work: Work, examples: list[Example], batch_size: int
  ) -> dict[int, dict]:
    """Returns row number -> prediction row."""
    # Copies fill a short batch up: no other shape is compiled for it.
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
  """The first image, as seen from its manifest where it lies below it."""
  image, folder = triplet.images[0], triplet.source.parent
  below = isinstance(image, Path) and image.is_relative_to(folder)
  return (image.relative_to(folder) if below else image).as_posix()
