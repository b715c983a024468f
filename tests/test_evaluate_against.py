"""`evaluate --against`: two models' answers on the same images."""

import json

import pytest

from fusar_jax import evaluate
from fusar_jax.tasks import counting
from fusar_jax.tasks.predictions import prediction_row


@pytest.fixture
def two(tmp_path):
  """Answers of two models: 3 and 1 of 4 correct."""
  gts = ["1", "2", "3", "5"]
  paths = []
  for name, said in (("a", "1237"), ("b", "1320")):
    rows = [
      prediction_row(
        id=f"c{i}",
        question=counting.question("ship"),
        gt=gt,
        prediction_text=text,
        coordinate_size=224,
      )
      for i, (gt, text) in enumerate(zip(gts, said))
    ]
    paths.append(tmp_path / f"{name}.jsonl")
    paths[-1].write_text("".join(json.dumps(row) + "\n" for row in rows))
  return paths


def test_answers_against_others(two, tmp_path, capsys):
  """A predictions file against a folder of scores, also pooled."""
  a, b = map(str, two)
  scores, out = str(tmp_path / "scores"), tmp_path / "out"
  assert evaluate.main(["--predictions", b, "--out", scores]) == 0
  command = ["--predictions", a, "--against", scores, "--out", str(out)]
  assert evaluate.main(command) == 0
  told = json.loads((out / "comparison.json").read_text())
  assert (told["first"], told["second"]) == (a, scores)
  accuracy, mae = told["comparisons"]
  assert accuracy["mcnemar"] == {"only_first": 2, "only_second": 0, "p": 0.5}
  assert (accuracy["first"], accuracy["second"]) == (0.75, 0.25)
  assert mae["difference"] == -1.25
  assert "2:0 p 0.5000" in capsys.readouterr().out
  command = ["--predictions", f"{a},{b}", "--against", f"{b},{a}"]
  assert evaluate.main([*command, "--out", str(out)]) == 0
  told = json.loads((out / "comparison.json").read_text())
  assert told["comparisons"][0]["each"] == [0.5, -0.5]
  assert told["comparisons"][0]["p"] == 1


@pytest.mark.parametrize(
  ("change", "told"),
  [
    (lambda a, b: (a, f"{a},{b}"), "one per seed"),
    (lambda a, b: (a, b.replace("b.jsonl", "none.jsonl")), "none.jsonl"),
    (
      lambda a, b: (b, a.replace("a.jsonl", "short.jsonl")),
      'id "c0" is missing',
    ),
  ],
)
def test_answers_that_do_not_pair_write_nothing(
  two, tmp_path, capsys, change, told
):
  rows = two[0].read_text().splitlines(keepends=True)
  (tmp_path / "short.jsonl").write_text("".join(rows[1:]))
  first, second = change(*map(str, two))
  out = tmp_path / "out"
  command = ["--predictions", first, "--against", second, "--out", str(out)]
  assert evaluate.main(command) == 1
  assert told in capsys.readouterr().err
  assert not out.exists()
