"""The official code's strict reading of answers."""

import pytest

from fusar_jax.tasks import boxes
from fusar_jax.tasks.official_answers import official_error

ONE = '{"bbox_2d": [1, -35, 30, 529], "label": "ship"}'


@pytest.mark.parametrize(
  "text",
  [
    *("None", "none", " NULL ", "[]", f"[{ONE}]", f" [{ONE}, {ONE}] "),
    *(f"```json\n[{ONE}]\n```", f"```\n[{ONE}]```", "```None```"),
    '[{"bbox_2d": [0.5, 1, 2.5, 3]}]',
  ],
)
def test_valid_answers(text):
  assert official_error(text) is None
  assert boxes.parse_boxes(text).error is None


@pytest.mark.parametrize(
  ("text", "error"),
  [
    ("", "not JSON"),
    ("None.", "not JSON"),
    (f"The ships: [{ONE}]", "not JSON"),
    (f"[{ONE},]", "not JSON"),
    (f"'''json [{ONE}] '''", "not JSON"),
    (f"```json\n[{ONE}]\n``` Done.", "not JSON"),
    ("[" * 100_000, "nested"),
    (ONE, "expected a JSON list, got dict"),
    ("[[1, 2, 3, 4]]", "item 0: expected an object, got list"),
    (f'[{ONE}, {{"box": 1}}]', 'item 1: no "bbox_2d"'),
    ('[{"bbox_2d": [1, 2, 3]}]', "four numbers"),
    ('[{"bbox_2d": [1, 2, 3, "4"]}]', "finite numbers"),
    ('[{"bbox_2d": [0, 0, 3, true]}]', "finite numbers"),
    ('[{"bbox_2d": [1, 2, 3, NaN]}]', "finite numbers"),
    (f'[{{"bbox_2d": [1, 2, 3, {"9" * 400}]}}]', None),
    ('[{"bbox_2d": [3, 2, 3, 4]}]', "x1 < x2"),
    (f'[{ONE}, {{"bbox_2d": [1, 4, 3, 2]}}]', "item 1: expected x1 < x2"),
  ],
)
def test_invalid_answers(text, error):
  """One invalid item invalidates the answer."""
  assert (error or "") in (official_error(text) or "")
  assert (official_error(text) is None) == (error is None)
