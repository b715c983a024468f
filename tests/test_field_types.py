"""Fields from files have the types of their hints."""

import dataclasses

import pytest

from fusar_jax.field_types import build


@dataclasses.dataclass(frozen=True)
class Part:
  name: str
  size: tuple[int, int]
  scales: tuple[float, ...] = ()
  nodata: float | None = None


def test_lists_become_tuples_and_whole_numbers_are_floats():
  made = build(Part, {"name": "a", "size": [1, 2], "scales": [1, 0.5]})
  assert made == Part("a", (1, 2), (1, 0.5))


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"size": [1, 2, 3]}, r"size is \(1, 2, 3\); expected tuple\[int, int\]"),
    ({"size": [True, 2]}, "size is"),
    ({"name": 1, "scales": ["1"]}, "name is 1; expected str; scales is"),
    ({"nodata": "0"}, "nodata is '0'; expected float | None"),
    ({"more": 1}, r"missing fields \[\], unknown fields \['more'\]"),
  ],
)
def test_other_types_are_listed(change, message):
  with pytest.raises(ValueError, match=message):
    build(Part, {"name": "a", "size": [1, 2], **change})


def test_what_is_no_object_is_rejected():
  with pytest.raises(ValueError, match="expected an object, got 3"):
    build(Part, 3)
