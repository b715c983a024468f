"""Grounding: cells of boxes, names and synonyms, the three metrics by hand."""

import pytest

from fusar_jax.tasks import grounding
from fusar_jax.tasks.grounding import Cells


@pytest.mark.parametrize(
  ("text", "cells"),
  [
    ("top-left", (0,)),
    ("Top Left, bottom right", (0, 8)),
    ("upper middle; lower center", (1, 7)),
    ("top", (1,)),
    ("right and left", (5, 3)),
    ("middle left", (3,)),
    ("the central region", (4,)),
    ("centre", (4,)),
    ("center, center, top-right", (4, 2)),
    ("center top", (1,)),
    ("center top-left", (4, 0)),
    ("northwest and south-east", (0, 8)),
    ("mid-left", (3,)),
    ("TopLeft", (0,)),
    ('["top-left", "center"]', (0, 4)),
    ("None", ()),
    ("There are no ships", ()),
  ],
)
def test_cells_are_parsed(text, cells):
  assert grounding.parse(text) == Cells(cells)


def test_offsets_of_cells():
  text = "A ship at the Top  Left;\ta car in the\ncenter"
  found = grounding.find_cells(text)
  assert [cell for _, cell in found] == [0, 4]
  assert [text[place] for place, _ in found] == ["T", "c"]


@pytest.mark.parametrize("text", ["", "everywhere", "42", "[42]"])
def test_no_cell_is_an_error(text):
  cells = grounding.parse(text)
  assert cells.cells == ()
  assert cells.error


def test_every_name_is_parsed_back():
  for i, name in enumerate(grounding.CELLS):
    assert grounding.parse(name).cells == (i,)
  assert grounding.parse(", ".join(grounding.CELLS)).cells == tuple(range(9))


def test_cells_of_boxes_by_hand():
  """On 90 x 180 (h x w), cells are 30 tall and 60 wide."""
  size = (90, 180)
  boxes = {
    (0, 0, 10, 10): 0,
    (55, 0, 65, 10): 1,  # centre on the line x = 60: the right cell
    (54, 0, 64, 10): 0,
    (170, 80, 179, 89): 8,
    (-35, 40, -5, 50): 3,  # centre outside: the nearest cell
    (100, 85, 130, 140): 7,
  }
  for box, cell in boxes.items():
    assert grounding.cells_of([box], size) == (cell,), box
  # Two in cell 0, one in each other: the fullest first, then raster order.
  assert grounding.cells_of(list(boxes), size) == (0, 1, 3, 7, 8)
  assert grounding.cells_of([], size) == ()
  assert grounding.answer([], size) == "None"
