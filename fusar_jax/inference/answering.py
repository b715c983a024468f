"""Answers manifest rows: generated, constrained or scored.

Two options replace free greedy decoding. `constrain` restricts box lists to
their grammar. `choices` selects the answer with the highest likelihood among
those that the question offers: class names, letters of options, yes and no.
"""

import dataclasses
import re
from collections.abc import (
  Callable,
  Collection,
  Hashable,
  Iterator,
  Mapping,
  Sequence,
)
from pathlib import Path

from fusar_jax.data.example_sizes import image_size
from fusar_jax.data.examples import Example, model_size
from fusar_jax.data.padding import pad_batch
from fusar_jax.data.triplets import Triplet
from fusar_jax.inference.assistant import Assistant
from fusar_jax.inference.automaton import Automaton
from fusar_jax.inference.batching import Work, one_ahead
from fusar_jax.inference.box_grammar import box_list
from fusar_jax.inference.continuous import Group, Usage
from fusar_jax.inference.generation import Constraint
from fusar_jax.inference.options import PredictionOptions
from fusar_jax.inference.token_table import TokenTable
from fusar_jax.model.batch import Batch
from fusar_jax.model.config import FusarConfig
from fusar_jax.tasks import classification, vqa
from fusar_jax.tasks.predictions import guess_task, prediction_row

# Fields of a manifest row that its scores depend on: near duplicates are
# resampled together, short answers are broken down by the type of the question,
# captions are compared with all references.
_SCORED_BY = ("split_group", "question_type", "references")


@dataclasses.dataclass(frozen=True)
class Answerer:
  """Answers rows of one manifest.

  Attributes:
    assistant: the model.
    build: triplet -> example.
    triplets: rows of the manifest.
    offered: row -> candidate answers, for rows that are scored.
    options: decoding options.
    table: box grammar, or None: answers are unconstrained.
    usage: cost of the generated answers so far.
  """

  assistant: Assistant
  build: Callable[[Triplet], Example]
  triplets: Sequence[Triplet]
  offered: Mapping[int, tuple[str, ...]]
  options: PredictionOptions
  table: TokenTable | None
  usage: Usage = dataclasses.field(default_factory=Usage)

  def answer(
    self, work: Work, done: Collection[int] = ()
  ) -> Iterator[dict[int, dict]]:
    """Yields row number -> row of predictions.jsonl, some rows at a time.

    Args:
      work: rows of one shape.
      done: rows that are answered already.
    """
    if work.scored:
      size = self.options.batch_size
      # The same parts in a resumed run: padding is that of the part.
      parts = [p for p in work.parts(size) if not set(p).issubset(done)]
      for rows, examples in one_ahead(self._build, parts):
        answers = self._chosen(rows, self._pad(examples, size, work))
        yield self._predictions(answers, dict(zip(rows, examples)))
      return
    left = tuple(row for row in work.rows if row not in done)
    if not left:
      return
    work = dataclasses.replace(work, rows=left)
    built: dict[int, Example] = {}
    for answers in self.assistant.generate_rows(
      self._groups(work, built),
      self.options.batch_size,
      self.options.max_new_tokens,
      repetition_penalty=self.options.repetition_penalty,
      usage=self.usage,
    ):
      texts = {row: self._text(tokens) for row, tokens in answers.items()}
      yield self._predictions(texts, built)
      for row in answers:
        del built[row]

  def _groups(self, work: Work, built: dict[int, Example]) -> Iterator[Group]:
    """Yields the prompts of a continuous batch; adds their examples."""
    # Free slots wait until there are so many: with a quarter of all, 16 slots
    # took 1.17 steps a token, with an eighth 1.13 (docs/performance.md).
    size = max(self.options.batch_size // 8, 1)
    for rows, examples in one_ahead(self._build, work.parts(size)):
      built |= zip(rows, examples, strict=True)
      batch = self._pad(examples, size, work)
      yield Group(rows, batch, self._constraint(rows, size))

  def _build(self, rows: Sequence[int]) -> list[Example]:
    """Builds examples: images, anchors and token ids."""
    return [self.build(self.triplets[row]) for row in rows]

  def _pad(self, examples: list[Example], size: int, work: Work) -> Batch:
    # Copies fill it up, which avoids compiling another shape.
    copies = [examples[0]] * (size - len(examples))
    return pad_batch(
      examples + copies,
      config=self.assistant.config,
      **work.sizes.as_arguments(),
    )

  def _constraint(self, rows: Sequence[int], size: int) -> Constraint | None:
    if self.table is None:
      return None
    config = self.assistant.config
    asked = [self.triplets[row] for row in rows]
    asked += asked[:1] * (size - len(asked))
    return Constraint.of(
      self.table,
      [_input_size(t, config) if asks_boxes(t) else None for t in asked],
    )

  def _text(self, tokens: Sequence[int]) -> tuple[str, dict]:
    text = self.assistant.need_tokenizer().decode(tokens, skip_special=True)
    return text, {"truncated": self.assistant.truncated(tokens)}

  def _chosen(
    self, rows: Sequence[int], batch: Batch
  ) -> dict[int, tuple[str, dict]]:
    names = [self.offered[row] for row in rows]
    names += names[:1] * (len(batch.input_ids) - len(names))
    chosen = {}
    for row, offered, likelihoods in zip(
      rows, names, self.assistant.log_likelihoods(batch, names)
    ):
      scores = {
        name: round(float(value), 5)
        for name, value in zip(offered, likelihoods)
      }
      chosen[row] = offered[int(likelihoods.argmax())], {"scores": scores}
    return chosen

  def _predictions(
    self,
    answers: Mapping[int, tuple[str, dict]],
    built: Mapping[int, Example],
  ) -> dict[int, dict]:
    return {
      row: _prediction(self.triplets[row], built[row], text, extra)
      for row, (text, extra) in answers.items()
    }


def asks_boxes(triplet: Triplet) -> bool:
  """Returns whether the answer to a row is a list of boxes."""
  return (triplet.task or guess_task(triplet.question)) == "detection"


def offered_names(triplets: Sequence[Triplet]) -> dict[int, tuple[str, ...]]:
  """Returns row -> candidate answers, spelled as in the question."""
  offered = {}
  for row, triplet in enumerate(triplets):
    question = triplet.question
    task = triplet.task or guess_task(question)
    if task == "vqa" and (answers := vqa.choices(question)):
      offered[row] = answers
    elif task == "classification" and (
      names := classification.choices(question)
    ):
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
    **{k: v for k, v in triplet.extra.items() if k in _SCORED_BY},
    **extra,
  )


def _image_name(triplet: Triplet) -> str:
  """Returns the first image, relative to its manifest's folder if inside it."""
  image, folder = triplet.images[0], triplet.source.parent
  if isinstance(image, Path) and image.is_relative_to(folder):
    image = image.relative_to(folder)
  return image.as_posix()
