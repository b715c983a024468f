"""Answers batches of manifest rows: generated, constrained or scored.

Two options replace free greedy decoding. `constrain` restricts box lists to
their grammar. `choices` selects the class with the highest likelihood among the
names that the question offers.
"""

import dataclasses
import re
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from pathlib import Path

from fusar_jax.data.example_sizes import image_size
from fusar_jax.data.examples import Example, model_size
from fusar_jax.data.padding import pad_batch
from fusar_jax.data.triplets import Triplet
from fusar_jax.inference.assistant import Assistant
from fusar_jax.inference.automaton import Automaton
from fusar_jax.inference.batching import Work
from fusar_jax.inference.box_grammar import box_list
from fusar_jax.inference.generation import Constraint
from fusar_jax.inference.options import PredictionOptions
from fusar_jax.inference.token_table import TokenTable
from fusar_jax.model.batch import Batch
from fusar_jax.model.config import FusarConfig
from fusar_jax.tasks import classification
from fusar_jax.tasks.predictions import guess_task, prediction_row


@dataclasses.dataclass(frozen=True)
class Answerer:
  """Answers batches of one manifest.

  Attributes:
    assistant: the model.
    build: triplet -> example.
    triplets: rows of the manifest.
    offered: row -> candidate names, for rows that are scored.
    options: decoding options.
    table: box grammar, or None: answers are unconstrained.
  """

  assistant: Assistant
  build: Callable[[Triplet], Example]
  triplets: Sequence[Triplet]
  offered: Mapping[int, tuple[str, ...]]
  options: PredictionOptions
  table: TokenTable | None

  def examples(self, work: Work) -> list[Example]:
    """Builds the examples of a batch: images, anchors and token ids."""
    return [self.build(self.triplets[row]) for row in work.rows]

  def answer(self, work: Work, examples: list[Example]) -> dict[int, dict]:
    """Returns row number -> row of predictions.jsonl."""
    # Copies fill up a short batch, which avoids compiling another shape.
    spare = self.options.batch_size - len(examples)
    batch = pad_batch(
      examples + [examples[0]] * spare,
      config=self.assistant.config,
      **work.sizes.as_arguments(),
    )
    rows = work.rows + work.rows[:1] * spare
    answers = self._chosen if work.scored else self._generated
    return {
      row: _prediction(self.triplets[row], example, text, extra)
      for row, example, (text, extra) in zip(
        work.rows, examples, answers(batch, rows)
      )
    }

  def _generated(self, batch: Batch, rows) -> Iterator[tuple[str, dict]]:
    constraint = None
    if self.table is not None:
      config = self.assistant.config
      triplets = [self.triplets[row] for row in rows]
      constraint = Constraint.of(
        self.table,
        [_input_size(t, config) if asks_boxes(t) else None for t in triplets],
      )
    for ids in self.assistant.generate_batch(
      batch,
      self.options.max_new_tokens,
      constraint=constraint,
      repetition_penalty=self.options.repetition_penalty,
    ):
      text = self.assistant.need_tokenizer().decode(ids, skip_special=True)
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


def asks_boxes(triplet: Triplet) -> bool:
  """Returns whether the answer to a row is a list of boxes."""
  return (triplet.task or guess_task(triplet.question)) == "detection"


def offered_names(triplets: Sequence[Triplet]) -> dict[int, tuple[str, ...]]:
  """Returns row -> candidate names, spelled as in the question."""
  offered = {}
  for row, triplet in enumerate(triplets):
    question = triplet.question
    if (triplet.task or guess_task(question)) != "classification":
      continue
    if names := classification.choices(question):
      offered[row] = tuple(_as_spelled(name, question) for name in names)
  return offered


def _as_spelled(name: str, question: str) -> str:
  """Returns a lower-case name as the question spells it, e.g. "T-72"."""
  words = r"[\W_]+".join(map(re.escape, name.split()))
  found = re.findall(rf"(?<!\w){words}(?!\w)", question, re.IGNORECASE)
  return found[-1] if found else name


def box_table(
  assistant: Assistant, triplets: Sequence[Triplet], max_new_tokens: int
) -> TokenTable:
  """Returns the box grammar for every model input size of the rows.

  Raises:
    ValueError: `max_new_tokens` is too low for the shortest answer.
  """
  config = assistant.config
  sizes = {_input_size(t, config) for t in triplets if asks_boxes(t)}
  grammars: dict[Hashable, Automaton] = {
    size: box_list(size) for size in sorted(sizes)
  }
  table = assistant.token_table(grammars)
  needed = max(int(table.distance[table.starts[size]]) for size in sizes)
  if needed > max_new_tokens:
    raise ValueError(
      f"max new tokens {max_new_tokens}: the shortest list of boxes or None"
      f" takes {needed}."
    )
  return table


def _input_size(triplet: Triplet, config: FusarConfig) -> tuple[int, int]:
  return model_size(image_size(triplet.images[0]), config)


def _prediction(
  triplet: Triplet, example: Example, text: str, extra: dict
) -> dict:
  return prediction_row(
    id=triplet.id,
    question=triplet.question,
    gt=triplet.answer,
    prediction_text=text,
    coordinate_size=example.coordinate_size,
    model_size=example.model_size,
    task=triplet.task,
    image=_image_name(triplet),
    # Near duplicates, which scores resample together.
    **{k: v for k, v in triplet.extra.items() if k == "split_group"},
    **extra,
  )


def _image_name(triplet: Triplet) -> str:
  """Returns the first image, relative to its manifest's folder if inside it."""
  image, folder = triplet.images[0], triplet.source.parent
  if isinstance(image, Path) and image.is_relative_to(folder):
    image = image.relative_to(folder)
  return image.as_posix()
