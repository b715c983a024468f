"""Box grammar: accepted and rejected answers."""

import numpy as np
import pytest

from fusar_jax.inference import automaton
from fusar_jax.inference.box_grammar import box_list
from fusar_jax.tasks.boxes import format_boxes, parse_boxes

SIZE = (56, 504)  # height, width
ONE = '[{"bbox_2d": [1, 2, 3, 4], "label": "ship"}]'


@pytest.mark.parametrize("largest", [0, 7, 10, 56, 99, 504, 1000])
def test_whole_numbers_up_to_the_largest(largest):
  language = automaton.compiled(automaton.whole_number(largest))
  accepted = [n for n in range(11000) if language.accepts(str(n))]
  assert accepted == list(range(largest + 1))
  for text in ("", "00", "01", "-1", "1.0", " 1", "1e2"):
    assert not language.accepts(text)


def test_whatever_we_write_is_in_the_language():
  language = box_list(SIZE)
  rng = np.random.default_rng(0)
  for n in range(20):
    boxes = rng.integers(0, [505, 57, 505, 57], (n, 4))
    names = rng.choice(["ship", "cargo ship", "T-72", "船", "a{b}]"], n)
    assert language.accepts(format_boxes(boxes, names))


@pytest.mark.parametrize(
  "text",
  [
    "None",
    '[{"bbox_2d":[0,0,504,56],"label":"x"},{"bbox_2d":[1,1,2,2],"label":"y"}]',
    ONE,
    ONE.replace("ship", "s" * 40),
    '[\n\t{"bbox_2d": [1, 2, 3, 4], "label": "ship"},\n'
    '\t{"bbox_2d": [5, 6, 7, 8], "label": "ship"}\n]',
  ],
)
def test_well_formed_answers_are_read_without_repair(text):
  assert box_list(SIZE).accepts(text)
  parsed = parse_boxes(text)
  assert parsed.error is None
  assert parsed.rule in ("json", "none")


@pytest.mark.parametrize(
  "text",
  [
    "",
    "none",
    "None.",
    "[]",
    ONE[:-1],
    ONE + "\n",
    "```json\n" + ONE + "```",
    ONE.replace("1,", "505,"),  # x beyond the width
    ONE.replace("2,", "57,"),  # y beyond the height
    ONE.replace("1,", "-1,"),
    ONE.replace("1,", "1.5,"),
    ONE.replace(", 4", ""),
    ONE.replace('"ship"', '""'),
    ONE.replace("ship", "s" * 41),
    ONE.replace("ship", 'sh"ip'),
    ONE.replace("ship", "sh\\ip"),
    ONE.replace("ship", "sh\nip"),
    ONE.replace("[1,", "[  1,"),
    ONE.replace("}]", "},]"),
    ONE.replace("label", "name"),
    ONE + ONE,
  ],
)
def test_everything_else_is_not(text):
  assert not box_list(SIZE).accepts(text)
