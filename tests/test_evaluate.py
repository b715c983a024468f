"""The command `evaluate`: files in, scores out, errors with row numbers."""

import dataclasses
import json

import pytest

from fusar_jax import evaluate
from fusar_jax.data.triplets import write_manifest
from fusar_jax.report.scoring import (
  baseline_rows,
  check_truths,
  read_rows,
  read_samples,
  score_rows,
  write_scores,
)
from fusar_jax.tasks import (
  captioning,
  classification,
  counting,
  detection,
  grounding,
)
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


GOOD = json.dumps(counted(0, "1", "1")).encode() + b"\n"


def spoilt(old, new):
  assert old in GOOD
  return GOOD.replace(old, new)


@pytest.mark.parametrize(
  ("content", "told"),
  [
    (b"", "no rows"),
    (b"\n \n", "no rows"),
    (b'{"id": 1}\n', "row 1: no question, gt, prediction_text"),
    (b"\nnot json\n", "row 2: not JSON"),
    (GOOD + GOOD[:40] + b"\n", "row 2: not JSON"),
    (GOOD + b"[" * 100_000 + b"\n", "row 2: not JSON: nested too deeply"),
    (GOOD + GOOD, 'row 2: id "c0" with this question stands in row 1'),
    (GOOD + spoilt(b"c0", b"c\xff"), "row 2: not UTF-8 text: byte 0xff"),
    (spoilt(b"c0", b"\\ud800"), "row 1: id: character 1 is half of"),
    (spoilt(b'"c0"', b"{}"), "row 1: id must be text or a number, got {}"),
    (spoilt(b'"gt": "1"', b'"gt": null'), "row 1: gt is null: no truth"),
    (spoilt(b'"gt": "1"', b'"gt": "x"'), 'row 1 (id "c0"): no number'),
    (spoilt(b"224", b"NaN"), "row 1: coordinate_size must be"),
    (spoilt(b"224", b"Infinity"), "row 1: coordinate_size must be"),
    (spoilt(b'"counting"', b'["counting"]'), "row 1: task ['counting'] is"),
    (spoilt(b"{", b'{"image": ["a"], '), "row 1: image is list, expected text"),
    (spoilt(b"224", b"9" * 5000), "row 1: Exceeds the limit"),
  ],
)
def test_a_bad_file_writes_nothing(tmp_path, capsys, content, told):
  path = tmp_path / "p.jsonl"
  path.write_bytes(content)
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


def test_a_manifest_brings_all_but_the_answers(tmp_path, manifest, capsys):
  """Rows with an id and a text suffice; the error lists every wrong id."""
  said = {"c0": "1", "c1": "1", "c2": "2", "d0": BOX}
  rows = [{"id": i, "prediction_text": text} for i, text in said.items()]
  path = predictions(tmp_path / "p.jsonl", rows)
  metrics = evaluate.evaluate_predictions(path, manifest)
  assert metrics["missing"] == metrics["parse_failures"] == 0
  assert metrics["counting"]["accuracy"] == metrics["detection"]["f1@0.5"] == 1
  unknown = [{"id": f"x{i}", "prediction_text": "1"} for i in range(30)]
  predictions(path, [*rows, *unknown])
  with pytest.raises(ValueError, match=r"(?s)30 bad rows.*row 5 .*and 10 more"):
    evaluate.evaluate_predictions(path, manifest)


def test_rows_without_an_answer_are_named(tmp_path, manifest, capsys):
  path = predictions(tmp_path / "p.jsonl", [counted(0, "1", "1")])
  out = tmp_path / "scores"
  command = ["--predictions", str(path), "--manifest", str(manifest)]
  assert evaluate.main([*command, "--out", str(out)]) == 0
  assert "3 rows of the manifest have no prediction" in capsys.readouterr().out
  samples = list(map(json.loads, (out / "samples.jsonl").open()))
  errors = [sample["parse_error"] for sample in samples]
  assert errors == [None, *["no prediction"] * 3]
  assert json.loads((out / "metrics.json").read_text())["parse_failures"] == 3


def test_rows_without_truth_are_not_scored(tmp_path, manifest, capsys):
  """They are counted and reported; no truth in any row is an error."""
  rows = list(map(json.loads, manifest.open(encoding="utf-8")))
  del rows[0]["answer"]
  write_manifest(manifest, rows)
  said = {"c0": "1", "c1": "1", "c2": "2", "d0": BOX}
  given = [{"id": i, "prediction_text": text} for i, text in said.items()]
  path = predictions(tmp_path / "p.jsonl", given)
  command = ["--predictions", str(path), "--manifest", str(manifest)]
  command += ["--out", str(tmp_path / "out")]
  assert evaluate.main(command) == 0
  assert "1 rows of the manifest have no answer and are not" in (
    capsys.readouterr().out
  )
  metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
  assert metrics == evaluate.evaluate_predictions(path, manifest)
  assert (metrics["n"], metrics["without_truth"]) == (3, 1)
  assert (metrics["counting"]["n"], metrics["missing"]) == (2, 0)
  check_truths(manifest)
  with pytest.raises(ValueError, match="no row has an 'answer'"):
    check_truths(manifest, limit=1)
  with pytest.raises(ValueError, match="rows without 'answer'"):
    baseline_rows(manifest)


def test_truncated_answers_are_counted(tmp_path, capsys):
  """Overall and per task; without the field, nothing is reported."""
  rows = [of_every_task(i)[-1] for i in range(3)] + [counted(9, "1", "1")]
  path = predictions(tmp_path / "p.jsonl", rows)
  metrics = evaluate.evaluate_predictions(path)
  assert "truncated" not in {*metrics, *metrics["detection"]}
  for k, row in enumerate(rows):
    row["truncated"] = k == 0
  rows[0]["prediction_text"] = rows[0]["prediction_text"][:-1] + ', {"bbox_2d'
  predictions(path, rows)
  out = tmp_path / "out"
  command = ["--predictions", str(path), "--out", str(out)]
  assert evaluate.main(command) == 0
  metrics = json.loads((out / "metrics.json").read_text())
  found = (metrics, metrics["detection"], metrics["counting"])
  assert [of["truncated"] for of in found] == [1, 1, 0]
  assert [of["truncated_share"] for of in found] == [1 / 4, 1 / 3, 0]
  # A counted rule retains the boxes before the cut.
  assert metrics["detection"]["rules"]["truncated"] == 1
  assert metrics["parse_failures"] == 0
  printed = capsys.readouterr().out
  assert "truncated at the limit of new tokens: 1 of 4 (25.0%)" in printed
  assert "1 detection" in printed
  assert 'row 1 (id "detection0")' in printed
  page = (out / "report.html").read_text("utf-8")
  assert "33.3 % truncated" in page
  assert "0.0 % truncated" in page
  samples = map(json.loads, (out / "samples.jsonl").open(encoding="utf-8"))
  assert [s["truncated"] for s in samples] == [True, False, False, False]


def test_scored_rows_keep_their_line_separators(tmp_path):
  """samples.jsonl is read back though an answer holds U+2028 and U+0085."""
  path = predictions(
    tmp_path / "p.jsonl", [counted(0, "1", "a\u2028\x85\u2029 1")]
  )
  metrics, samples = score_rows(read_rows(path).rows)
  write_scores(tmp_path, metrics, samples)
  assert read_samples(tmp_path) == samples


@pytest.mark.parametrize(
  "said",
  [
    BOX.replace("[10,", "[NaN,"),
    BOX[:20],
    "7" * 5000,
    "[" * 100_000,
    "a" * 50_000_000,
  ],
  ids=["NaN", "cut", "digits", "deep", "50 MB"],
)
@pytest.mark.parametrize("question", [COUNT, DETECT])
def test_no_answer_is_an_error(tmp_path, capsys, said, question):
  """It counts as empty and is reported by row; the others are scored."""
  truth = "1" if question == COUNT else BOX
  rows = [
    prediction_row(
      id=name,
      question=question,
      gt=truth,
      prediction_text=text,
      coordinate_size=100,
    )
    for name, text in (("good", truth), ("bad", truth))
  ]
  rows[1]["prediction_text"] = said
  path = predictions(tmp_path / "p.jsonl", rows)
  out = tmp_path / "scores"
  assert evaluate.main(["--predictions", str(path), "--out", str(out)]) == 0
  metrics = json.loads((out / "metrics.json").read_text())
  assert (metrics["n"], metrics["parse_failures"]) == (2, 1)
  good, bad = map(json.loads, (out / "samples.jsonl").open())
  assert good["parse_error"] is None
  assert bad["parse_error"]
  assert (out / "samples.jsonl").stat().st_size < 1_000_000
  printed = capsys.readouterr().out
  assert "cannot be read and count as empty: 1" in printed
  assert 'row 2 (id "bad")' in printed


def test_swapped_corners_are_repaired_counted_and_told(tmp_path):
  """A box from right to left is the same box, also a true one."""
  swapped = BOX.replace("[10, 10, 30, 30]", "[30, 10, 10, 30]")
  row = prediction_row(
    id="a",
    question=DETECT,
    gt=BOX,
    prediction_text=swapped,
    coordinate_size=100,
  )
  path = predictions(tmp_path / "p.jsonl", [row])
  metrics, [sample] = score_rows(read_rows(path)[0])
  assert metrics["detection"]["f1@0.5"] == 1
  assert metrics["parse_failures"] == 0
  assert "corners" in sample["rule"]
  assert "true_rule" not in sample
  swapped_truth = dataclasses.replace(read_rows(path)[0][0], gt=swapped)
  metrics, [sample] = score_rows([swapped_truth])
  assert metrics["detection"]["f1@0.5"] == 1
  assert evaluate.remarks([swapped_truth], [sample]) == [
    "answers read by a rule of repair: 1 corners",
    '  corners: row 1 (id "a")',
    "true answers read by a rule of repair: 1 corners",
    '  corners: row 1 (id "a")',
  ]


def test_scores_are_whole_or_absent(tmp_path):
  """Stale metrics do not remain next to new samples."""
  path = predictions(tmp_path / "p.jsonl", [counted(0, "1", "1")])
  metrics, samples = score_rows(read_rows(path)[0])
  write_scores(tmp_path, metrics, samples)
  with pytest.raises(ValueError):
    write_scores(tmp_path, metrics | {"n": float("nan")}, [])
  assert json.loads((tmp_path / "metrics.json").read_text()) == metrics
  assert (tmp_path / "samples.jsonl").read_text()
  with pytest.raises(UnicodeEncodeError):
    write_scores(tmp_path, metrics, [{"id": "\ud800"}])
  assert not (tmp_path / "metrics.json").exists()


def test_baselines_look_at_no_image(tmp_path, manifest):
  """Always 1: two of three counts. No box: F1 0."""
  out = tmp_path / "scores"
  command = ["--baseline", "--manifest", str(manifest), "--out", str(out)]
  assert evaluate.main(command) == 0
  metrics = json.loads((out / "metrics.json").read_text())
  assert metrics["counting"]["accuracy"] == pytest.approx(2 / 3)
  assert metrics["detection"]["f1@0.25"] == 0
  assert metrics["detection"]["predicted_boxes"] == 0


def test_a_larger_file_takes_work_in_proportion(tmp_path, count_calls):
  """Twice the rows, of all tasks, at most twice the calls."""
  rows = [row for i in range(300) for row in of_every_task(i)]
  half = predictions(tmp_path / "half.jsonl", rows[: len(rows) // 2])
  whole = predictions(tmp_path / "whole.jsonl", rows)
  metrics = evaluate.evaluate_predictions(whole)
  assert metrics["n"] == 1500
  assert metrics["detection"]["f1@0.5"] == 1
  calls = [
    count_calls(evaluate.evaluate_predictions, path) for path in (half, whole)
  ]
  assert calls[1] < 2.1 * calls[0]


def of_every_task(i):
  """One row per task, each with another truth, and answered rightly."""
  corner = 10 + i % 90
  found = [[corner, 10, corner + 20, 30], [300, 300, 330 + i % 70, 350]]
  names = ("cargo ship", "tanker ship", "fighter plane")
  name = names[i % 3]
  fields = {field: f"{field} {i} by land" for field in captioning.FIELDS}
  asked = {
    "counting": (COUNT, str(i % 9)),
    "grounding": (
      grounding.question("ship"),
      grounding.answer(found, (504, 504)),
    ),
    "classification": (classification.question(found[0], names), name),
    "captioning": (captioning.question(), captioning.answer(fields)),
    "detection": (DETECT, detection.answer(found, ["ship", "ship"])),
  }
  return [
    prediction_row(
      id=f"{task}{i}",
      question=question,
      gt=truth,
      prediction_text=truth,
      coordinate_size=504,
      task=task,
      image=f"{i % 999}.png",
    )
    for task, (question, truth) in asked.items()
  ]


def test_dialogues_are_scored_by_sub_task(tmp_path, capsys):
  """Of 2 and 3 counted rightly and wrongly: 1 true, 1 false, 1 missed."""
  asked = [("2", "2"), ("3", "4")]
  rows = [
    prediction_row(
      id=f"s{i}",
      question="[count] How many ships are there?",
      gt=gt,
      prediction_text=said,
      coordinate_size=100,
    )
    for i, (gt, said) in enumerate(asked)
  ]
  path, out = predictions(tmp_path / "p.jsonl", rows), tmp_path / "out"
  command = ["--predictions", str(path), "--out", str(out)]
  assert evaluate.main(command) == 0
  assert "sarchat-counting" in capsys.readouterr().out
  metrics = json.loads((out / "metrics.json").read_text())
  scores = metrics["sarchat-counting"]
  assert (scores["n"], scores["exact"]) == (2, 0.5)
  assert scores["acc"] == pytest.approx(1 / 3)
  assert "sarchat-counting" in (out / "report.html").read_text()
  assert evaluate.main([*command, "--against", str(path)]) == 0
  compared = json.loads((out / "comparison.json").read_text())["comparisons"]
  assert [one["score"] for one in compared] == ["exact", "acc"]
  assert {one["difference"] for one in compared} == {0}


def test_repairs_are_told(tmp_path, capsys):
  """Each by rule name; answers without repairs are not counted."""
  rows = [of_every_task(i)[-1] for i in range(3)]
  rows[0]["prediction_text"] = f"```json\n{rows[0]['prediction_text']}\n```"
  rows[1]["prediction_text"] = f"Here: {rows[1]['prediction_text']}"
  path = predictions(tmp_path / "p.jsonl", rows)
  out = str(tmp_path / "out")
  assert evaluate.main(["--predictions", str(path), "--out", out]) == 0
  printed = capsys.readouterr().out
  assert "answers read by a rule of repair: 1 embedded, 1 fenced" in printed
  assert 'embedded: row 2 (id "detection1")' in printed


def test_cells_too_many_count_by_option(tmp_path):
  """One true cell and two others: all of the true, a third of the union."""
  row = prediction_row(
    id="a",
    question=grounding.question("ship"),
    gt="top-left",
    prediction_text="top-left, center, bottom-right",
    coordinate_size=90,
  )
  path, out = predictions(tmp_path / "p.jsonl", [row]), tmp_path / "out"
  command = ["--predictions", str(path), "--out", str(out), "--no-report"]
  for option, value in (([], 1), (["--acc50", "jaccard"], 0)):
    assert evaluate.main([*command, *option]) == 0
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["grounding"]["acc@50"] == value
  assert not (out / "report.html").exists()


def test_average_precision_is_told_where_boxes_have_scores(tmp_path, capsys):
  row = prediction_row(
    id="a",
    question=DETECT,
    gt=BOX,
    prediction_text=BOX.replace("}", ', "score": 0.9}'),
    coordinate_size=100,
  )
  path, out = predictions(tmp_path / "p.jsonl", [row]), tmp_path / "out"
  assert evaluate.main(["--predictions", str(path), "--out", str(out)]) == 0
  metrics = json.loads((out / "metrics.json").read_text())
  assert metrics["detection"]["coco"]["ap"] == pytest.approx(1)
  assert "coco ap75" in capsys.readouterr().out


def test_metrics_have_their_names(tmp_path):
  """The stable output format, by task."""
  path = predictions(
    tmp_path / "p.jsonl", [row for i in range(3) for row in of_every_task(i)]
  )
  metrics = evaluate.evaluate_predictions(path)
  assert isinstance(metrics["version"], str)
  assert metrics["n"] == 15
  assert metrics["parse_failures"] == 0
  names = {
    "counting": ("accuracy", "mae", "within_1"),
    "grounding": ("acc@100", "acc@50", "top1"),
    "classification": ("accuracy",),
    "captioning": ("accuracy",),
    "detection": [
      f"{name}@{t}"
      for name in ("f1", "precision", "recall")
      for t in (0.25, 0.5)
    ],
  }
  for task, expected in names.items():
    scores = metrics[task]
    assert scores["n"] == 3
    assert scores["parse_failure_rate"] == 0
    for name in expected:
      low, high = scores["ci95"][name]
      assert low <= scores[name] <= high, (task, name)
  assert "per_class" in metrics["classification"]
  assert "per_class" in metrics["detection"]


@pytest.mark.parametrize(
  ("arguments", "told"),
  [
    (["--controls", "--manifest", "m"], "needs --model and --manifest"),
    (["--controls", "--model", "m", "--data", "d", "--baseline"], "by itself"),
    (["--predictions", "p", "--model", "m"], "give one of"),
    (["--against", "p"], "give one of"),
    (["--model", "m"], "need --manifest"),
    (["--baseline", "--data", "d", "--against", "p"], "compares answers"),
    (["--predictions", "p", "--train", "t"], "--train goes with --baseline"),
    (["--predictions", "p", "--against", "q", "--acc50", "jaccard"], "--acc50"),
    (["--baseline", "--data", "d", "--no-report"], "--no-report goes with"),
    (["--predictions", "p", "--limit", "3"], "--limit goes with --model"),
    (["--predictions", "p", "--choices"], "--choices goes with --model"),
    (
      ["--baseline", "--data", "d", "--max-new-tokens", "9"],
      "--max-new-tokens",
    ),
    (
      ["--controls", "--model", "m", "--data", "d", "--anchors", "none"],
      "leave --anchors out",
    ),
  ],
)
def test_options_that_do_not_go_together(tmp_path, capsys, arguments, told):
  with pytest.raises(SystemExit):
    evaluate.main([*arguments, "--out", str(tmp_path)])
  assert told in capsys.readouterr().err
