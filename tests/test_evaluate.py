"""The command `evaluate`: files in, scores out, errors with row numbers."""

import json
import time

import pytest

from fusar_jax import evaluate
from fusar_jax.data.triplets import write_manifest
from fusar_jax.tasks import counting, detection
from fusar_jax.tasks.predictions import prediction_row

COUNT, DETECT = counting.question("ship"), detection.question("ship")
BOX = '[{"bbox_2d": [10, 10, 30, 30], "label": "ship"}]'


def predictions(path, rows):
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))
  return path


def counted(i, gt, said):
  return prediction_row(
    id=f"c{i}",
    question=COUNT,
    gt=gt,
    prediction_text=said,
    coordinate_size=224,
  )


@pytest.fixture
def manifest(tmp_path):
  common = {"image": "a.png", "coordinate_size": 100}
  rows = [
    {"id": f"c{i}", "question": COUNT, "answer": a, "task": "counting"}
    for i, a in enumerate(["1", "1", "2"])
  ]
  rows.append({"id": "d0", "question": DETECT, "answer": BOX})
  write_manifest(tmp_path / "manifest.jsonl", [{**common, **r} for r in rows])
  return tmp_path / "manifest.jsonl"


def test_scores_are_written(tmp_path, capsys):
  path = predictions(
    tmp_path / "p.jsonl",
    [counted(0, "1", "1"), counted(1, "2", "x"), counted(2, "3", "3")],
  )
  out = tmp_path / "scores"
  assert evaluate.main(["--predictions", str(path), "--out", str(out)]) == 0
  metrics = json.loads((out / "metrics.json").read_text())
  assert metrics["n"] == 3
  assert metrics["parse_failures"] == 1
  assert metrics["counting"]["accuracy"] == pytest.approx(2 / 3)
  assert metrics == evaluate.evaluate_predictions(path)
  samples = (out / "samples.jsonl").read_text().splitlines()
  assert [json.loads(s)["id"] for s in samples] == ["c0", "c1", "c2"]
  assert "accuracy" in capsys.readouterr().out


@pytest.mark.parametrize(
  ("text", "told"),
  [("", "no rows"), ('{"id": 1}\n', "row 1"), ("\nnot json\n", "row 2")],
)
def test_a_bad_file_writes_nothing(tmp_path, capsys, text, told):
  path = tmp_path / "p.jsonl"
  path.write_text(text)
  out = tmp_path / "scores"
  assert evaluate.main(["--predictions", str(path), "--out", str(out)]) != 0
  assert told in capsys.readouterr().err
  assert not out.exists()


def test_an_absent_file_is_told(tmp_path, capsys):
  missing = str(tmp_path / "none.jsonl")
  assert evaluate.main(["--predictions", missing, "--out", str(tmp_path)]) == 1
  assert "none.jsonl" in capsys.readouterr().err


def test_rows_of_the_manifest_without_a_prediction_count(tmp_path, manifest):
  """Of 3 counts one is predicted, rightly; the box is, in half the pixels."""
  said = prediction_row(
    id="d0",
    question=DETECT,
    gt="None",
    prediction_text='[{"bbox_2d": [5, 5, 15, 15], "label": "ship"}]',
    coordinate_size=50,
  )
  path = predictions(tmp_path / "p.jsonl", [counted(0, "9", "1"), said])
  metrics = evaluate.evaluate_predictions(path, manifest)
  assert metrics["missing"] == 2
  assert metrics["counting"]["accuracy"] == pytest.approx(1 / 3)
  assert metrics["detection"]["f1@0.5"] == 1


def test_a_prediction_that_the_manifest_lacks_is_an_error(tmp_path, manifest):
  path = predictions(tmp_path / "p.jsonl", [counted(77, "1", "1")])
  with pytest.raises(ValueError, match="c77"):
    evaluate.evaluate_predictions(path, manifest)


def test_baselines_look_at_no_image(tmp_path, manifest):
  """Always 1: two of three counts. No box: F1 0."""
  out = tmp_path / "scores"
  command = ["--baseline", "--manifest", str(manifest), "--out", str(out)]
  assert evaluate.main(command) == 0
  metrics = json.loads((out / "metrics.json").read_text())
  assert metrics["counting"]["accuracy"] == pytest.approx(2 / 3)
  assert metrics["detection"]["f1@0.25"] == 0
  assert metrics["detection"]["predicted_boxes"] == 0


def test_a_large_file_is_scored_in_time(tmp_path):
  """20 000 rows within the share of 60 s that 100 000 may take."""
  row = prediction_row(
    id="0", question=DETECT, gt=BOX, prediction_text=BOX, coordinate_size=224
  )
  path = predictions(
    tmp_path / "p.jsonl", [{**row, "id": str(i)} for i in range(20_000)]
  )
  start = time.perf_counter()
  assert evaluate.evaluate_predictions(path)["detection"]["f1@0.5"] == 1
  assert time.perf_counter() - start < 12


@pytest.fixture
def two(tmp_path):
  """Answers of two models: 3 and 1 of 4 right."""
  gts = ["1", "2", "3", "5"]
  return [
    predictions(
      tmp_path / f"{name}.jsonl",
      [counted(i, gt, t) for i, (gt, t) in enumerate(zip(gts, said))],
    )
    for name, said in (("a", "1237"), ("b", "1320"))
  ]


def test_answers_against_others(two, tmp_path, capsys):
  """A predictions file against a folder of scores, and once more, pooled."""
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


@pytest.mark.parametrize(
  ("arguments", "told"),
  [
    (["--controls", "--manifest", "m"], "needs --model and --manifest"),
    (["--controls", "--model", "m", "--data", "d", "--baseline"], "by itself"),
    (["--predictions", "p", "--model", "m"], "--controls only"),
    (["--against", "p"], "--predictions is needed"),
  ],
)
def test_options_that_do_not_go_together(tmp_path, capsys, arguments, told):
  with pytest.raises(SystemExit):
    evaluate.main([*arguments, "--out", str(tmp_path)])
  assert told in capsys.readouterr().err
