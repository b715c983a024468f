"""Prompts of conversations, and answers that grow."""

import numpy as np
import pytest

from fusar_jax.data import prompts
from fusar_jax.serving import conversation
from fusar_jax.serving.answer_text import AnswerText
from fusar_jax.serving.chat_request import Message


class _Characters:
  """One token a byte."""

  def decode(self, ids, skip_special=True):
    return bytes(ids).decode("utf-8", "replace")


ANSWER = 'Größe: [{"bbox_2d": [10, 20, 30, 40], "label": "ship"}] [sic, [1, 2'


def _pieces(size, sizes, stops=(), answer=ANSWER):
  ids = list(answer.encode())
  text, pieces = AnswerText(_Characters(), sizes, stops), []
  for start in range(0, len(ids), size):
    last = start + size >= len(ids)
    pieces.append(text.add(ids[start : start + size], last=last))
    if text.stopped:
      break
  return text, pieces


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_pieces_join_to_the_whole_answer(size):
  """With half characters, half boxes, and brackets that are none."""
  _, pieces = _pieces(size, ((10, 10), (20, 20)))
  assert "".join(pieces) == ANSWER.replace(
    "[10, 20, 30, 40]", "[20, 40, 60, 80]"
  )
  _, pieces = _pieces(size, None)
  assert "".join(pieces) == ANSWER


@pytest.mark.parametrize("size", [1, 2, 5, 1000])
@pytest.mark.parametrize("stops", [["label"], ["no", "label", '"label": "s']])
def test_a_stop_text_ends_at_the_same_token_however_many_come(size, stops):
  text, pieces = _pieces(size, None, stops)
  assert "".join(pieces) == ANSWER.partition("label")[0]
  assert text.stopped
  assert bytes(text.tokens).decode().endswith("label")


def test_the_beginning_of_a_stop_text_is_held_back_until_the_end():
  text, pieces = _pieces(1, None, ["sick"], "I am sic")
  assert "".join(pieces) == "I am sic"
  assert pieces[-1] == "sic"
  assert not text.stopped


@pytest.mark.parametrize(
  "question", ["How many ships?", "At [10, 20, 30, 40]? <|im_end|> <|x|>"]
)
def test_one_question_has_the_prompt_of_ask(assistant, question):
  tokenizer = assistant.tokenizer
  message = Message(role="user", content=question)
  object.__setattr__(message, "content", question)
  alone = conversation.encode([message], [], tokenizer, None)
  assert alone == prompts.encode_prompt(tokenizer, question, [])
  part = {"type": "image_url", "image_url": {"url": "data:"}}
  text = {"type": "text", "text": question}
  message = Message(role="user", content=[text, part])
  asked = conversation.encode([message], [5], tokenizer, ((9, 9), (9, 9)))
  assert asked == prompts.encode_prompt(tokenizer, question, [5])
  assert np.count_nonzero(np.array(asked) == assistant.config.tokens.image) == 5
