"""Results on disk: written immediately, resumed, separate per settings."""

import json

import pytest

from fusar_jax.experiments.benchmark.results import Results

ABOUT = {"preset": "tiny", "shape": {"length": 80}, "rounds": 2}


def test_what_is_there_is_read_again(tmp_path):
  path = tmp_path / "bench.jsonl"
  with Results(path, ABOUT) as results:
    results.add("pair", work="train", ours=[1.5])
    # On disk already, if the process dies here.
    assert list(map(json.loads, path.read_text().splitlines())) == [
      {"record": "about"} | ABOUT,
      {"record": "pair", "work": "train", "ours": [1.5]},
    ]
  # More rounds are compatible settings.
  with Results(path, ABOUT | {"rounds": 5}) as results:
    assert len(results.of("pair", work="train")) == 1
    assert results.of("pair", work="decode") == []
    assert results.of("warm-up") == []
    results.add("pair", work="decode", ours=[2.5])
  assert len(path.read_text().splitlines()) == 3


def test_a_line_that_was_cut_off_is_dropped(tmp_path):
  path = tmp_path / "bench.jsonl"
  with Results(path, ABOUT) as results:
    results.add("pair", work="train", number=1)
  with path.open("a") as file:
    file.write('{"record": "pair", "wo')
  with Results(path, ABOUT) as results:
    results.add("pair", work="train", number=2)
  with Results(path, ABOUT) as results:
    assert [r["number"] for r in results.of("pair")] == [1, 2]


def test_other_settings_raise_and_leave_the_file(tmp_path):
  path = tmp_path / "bench.jsonl"
  Results(path, ABOUT).__exit__()
  before = path.read_bytes()
  with pytest.raises(FileExistsError, match="preset tiny there, 7b now"):
    Results(path, ABOUT | {"preset": "7b"})
  assert path.read_bytes() == before


@pytest.mark.parametrize(
  "text",
  ['{\n "preset": "tiny",\n "rows": []\n}\n', '{"loss": 1}\n', "[1]\n", "note"],
)
def test_a_file_of_something_else_is_left_alone(tmp_path, text):
  """Includes the single JSON document of earlier versions."""
  path = tmp_path / "bench.json"
  path.write_text(text)
  with pytest.raises(ValueError, match="expected JSON lines of this command"):
    Results(path, ABOUT)
  assert path.read_text() == text
