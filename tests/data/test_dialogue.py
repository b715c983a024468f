"""Earlier turns: ids as of the chat template, supervised answers, boxes."""

import json

import numpy as np
import pytest

from fusar_jax.data.dialogue import Dialogue, Turn, parse_history
from fusar_jax.data.examples import build_example
from fusar_jax.data.prompts import SYSTEM
from fusar_jax.data.row_texts import texts
from fusar_jax.data.tokenizer import load_tokenizer
from fusar_jax.data.triplets import read_manifest
from fusar_jax.hf.config_json import read_config
from fusar_jax.hf.folders import TINY_BASE, resolve

TURNS = (Turn("Any ships?", "Yes."), Turn("Where?", "top", supervised=False))


@pytest.fixture(scope="module")
def words():
  return load_tokenizer(resolve(TINY_BASE))


def test_ids_are_those_of_the_chat_template(words):
  ids, mask = Dialogue(TURNS, "How many?").encode(words, "2", [2])
  text = (
    f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n"
    "<|vision_start|><|image_pad|><|image_pad|><|vision_end|>Any ships?"
    "<|im_end|>\n<|im_start|>assistant\nYes.<|im_end|>\n<|im_start|>user\n"
    "Where?<|im_end|>\n<|im_start|>assistant\ntop<|im_end|>\n<|im_start|>user"
    "\nHow many?<|im_end|>\n<|im_start|>assistant\n2<|im_end|>"
  )
  assert ids == words.encode(text)
  learned = [token for token, on in zip(ids, mask, strict=True) if on]
  said = words.decode(learned, skip_special=False)
  assert said == "Yes.<|im_end|>2<|im_end|>"


def test_a_prompt_ends_where_the_answer_begins(words):
  asked = Dialogue(TURNS, "How many?")
  ids, mask = asked.encode(words, "2", [2])
  prompt, none = asked.encode(words, None, [2])
  assert ids[: len(prompt)] == prompt
  assert not none.any()
  last = np.flatnonzero(~mask)[-1]
  assert len(prompt) == last + 1


def test_turns_cannot_add_images_or_turns(words):
  said = "<|image_pad|><|im_end|>"
  ids, _ = Dialogue((Turn(said, said),), said).encode(words, said, [2])
  special = words.special_tokens()
  assert ids.count(special.image) == 2
  assert ids.count(special.end_of_turn) == 5


@pytest.mark.parametrize(
  "history",
  [
    {},
    ["Where?"],
    [{"question": "a"}],
    [{"question": "a", "answer": 1}],
    [{"question": "a", "answer": "b", "loss": 0}],
    [{"question": "a", "answer": "b", "image": "a.png"}],
    [{"question": "a", "answer": "\ud800"}],
  ],
)
def test_a_bad_history_names_its_row(odd_manifest, history):
  rows = json.loads(odd_manifest.read_text())[:2]
  rows[1]["history"] = history
  path = odd_manifest.with_name("bad.json")
  path.write_text(json.dumps(rows))
  with pytest.raises(ValueError, match="row 2: 'history'"):
    read_manifest(path)


def test_boxes_of_all_turns_follow_the_image(odd_manifest):
  row = json.loads(odd_manifest.read_text())[0]
  row |= {"coordinate_size": 100, "question": "And [20, 40, 60, 80]?"}
  row |= {"task": "vqa", "answer": "[2, 4, 6, 8]"}
  row["history"] = [
    {"question": "At [10, 20, 30, 40]?", "answer": "a ship", "loss": False},
    {"question": "Where?", "answer": "[50, 60, 70, 80]"},
  ]
  path = odd_manifest.with_name("boxes.json")
  path.write_text(json.dumps([row]))
  (triplet,) = read_manifest(path)
  asked, answer = texts(triplet, (1, 1), (50, 50))
  assert str(asked).splitlines() == [
    "At [5, 10, 15, 20]?",
    "a ship",
    "Where?",
    "[25, 30, 35, 40]",
    "And [10, 20, 30, 40]?",
  ]
  assert answer == "[1, 2, 3, 4]"
  assert [turn.supervised for turn in triplet.history] == [False, True]
  assert parse_history(None) == ()


def test_examples_supervise_every_answer_that_is_marked(words, odd_manifest):
  row = json.loads(odd_manifest.read_text())[0]
  row["history"] = [{"question": "Any?", "answer": "Yes."}] * 2
  row["history"][1] = row["history"][1] | {"loss": False}
  path = odd_manifest.with_name("turns.json")
  path.write_text(json.dumps([row, {**row, "id": "b", "history": None}]))
  long, short = read_manifest(path)
  config = read_config(resolve(TINY_BASE))
  examples = [build_example(t, words, config) for t in (long, short)]
  learned = [int(e.answer_mask.sum()) for e in examples]
  assert learned[0] == learned[1] + len(words.encode("Yes.")) + 1
