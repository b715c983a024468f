"""The resumable file of predictions."""

import pytest

from fusar_jax.inference.progress import Progress


def test_two_writers_of_one_file_are_rejected(tmp_path):
  path = tmp_path / "a.jsonl"
  first, second = Progress(path, {"s": 1}), Progress(path, {"s": 1})
  first.open()
  with first:
    first.append({0: {"answer": "1"}})
    with pytest.raises(BlockingIOError, match=r"a\.jsonl: another process"):
      second.open()
  # What the first has written since the second was made is not lost.
  assert second.open() == {0}
  with second:
    second.append({1: {"answer": "2"}})
  assert len(path.read_text().splitlines()) == 3
