"""Earlier turns of a row: questions and answers before its question.

A manifest row may have "history", a list of {"question", "answer", "loss"}. Its
images precede the first question. "loss": false leaves the answer of a turn out
of the loss; the answer of the row is always supervised. In prediction, the
answers of the history are part of the prompt.

    <|im_start|>user
    <|vision_start|>...<|vision_end|>QUESTION 1<|im_end|>
    <|im_start|>assistant
    ANSWER 1<|im_end|>            <- supervised, unless "loss" is false
    <|im_start|>user
    QUESTION 2<|im_end|>
    <|im_start|>assistant
    ANSWER 2<|im_end|>            <- supervised

L text length.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from fusar_jax.data import prompts

# Beyond any sample that can be trained on.
MAX_TURNS = 1000
_NEEDED = {"question", "answer"}


@dataclasses.dataclass(frozen=True)
class Turn:
  """An earlier question with its answer; `supervised`: it is learned."""

  question: str
  answer: str
  supervised: bool = True


@dataclasses.dataclass(frozen=True)
class Dialogue:
  """The question of a row with at least one earlier turn."""

  history: tuple[Turn, ...]
  question: str

  def encode(
    self, tokenizer, answer: str | None, visual_tokens: Sequence[int]
  ) -> tuple[list[int], np.ndarray]:
    """Returns (ids, bool[L]); the mask is True on supervised tokens.

    Every answer is tokenised separately, see `prompts.encode_example`.

    Args:
      tokenizer: `fusar_jax.data.tokenizer.Tokenizer`.
      answer: answer of the row; None: the ids are the prompt, and nothing is
        supervised.
      visual_tokens: number of visual tokens (M) per image.
    """
    end = tokenizer.special_tokens().end_of_turn

    def ask(text: str) -> tuple[list[int], bool]:
      turn = f"\n<|im_start|>user\n{prompts.plain(text)}<|im_end|>\n"
      return tokenizer.encode(f"{turn}<|im_start|>assistant\n"), False

    def reply(text: str, supervised: bool) -> tuple[list[int], bool]:
      return [*tokenizer.encode(prompts.plain(text)), end], supervised

    first, *others = self.history
    prompt = prompts.encode_prompt(tokenizer, first.question, visual_tokens)
    parts = [(prompt, False), reply(first.answer, first.supervised)]
    for turn in others:
      parts += [ask(turn.question), reply(turn.answer, turn.supervised)]
    parts.append(ask(self.question))
    if answer is not None:
      parts.append(reply(answer, True))
    ids = [token for piece, _ in parts for token in piece]
    if answer is None:
      return ids, np.zeros(len(ids), bool)
    return ids, np.concatenate(
      [np.full(len(piece), supervised) for piece, supervised in parts]
    )

  def __str__(self) -> str:
    """The turns as lines, for display."""
    turns = [text for t in self.history for text in (t.question, t.answer)]
    return "\n".join([*turns, self.question])


def parse_history(value: Any) -> tuple[Turn, ...]:
  """Returns the turns of a row's "history"; () for None.

  Raises:
    ValueError: not a list of turns; the message names the turn.
  """
  if value is None:
    return ()
  if not isinstance(value, list) or len(value) > MAX_TURNS:
    raise ValueError(
      f"'history' must be a list of at most {MAX_TURNS} turns"
      ' {"question", "answer"}, got ' + f"{value!r:.60}"
    )
  turns = []
  for number, turn in enumerate(value, start=1):
    if (
      not isinstance(turn, dict)
      or not _NEEDED <= turn.keys() <= {*_NEEDED, "loss"}
      or not all(isinstance(turn[name], str) for name in _NEEDED)
      or not isinstance(turn.get("loss", True), bool)
    ):
      raise ValueError(
        f"'history': turn {number} must have the texts \"question\" and"
        f' "answer", and may have "loss", true or false; got {turn!r:.80}'
      )
    for name in _NEEDED:
      try:
        turn[name].encode()
      except UnicodeEncodeError:
        raise ValueError(
          f"'history': {name} of turn {number} holds half of a surrogate pair;"
          " write it as valid UTF-8 text"
        ) from None
    turns.append(Turn(turn["question"], turn["answer"], turn.get("loss", True)))
  return tuple(turns)
