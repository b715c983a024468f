"""The command `evaluate`: scores, comparisons, errors with row numbers."""

import json

import pytest

from fusar_jax import evaluate
from fusar_jax.data.triplets import write_manifest
from fusar_jax.metrics.intervals import wilson
from fusar_jax.report import scored_answers
from fusar_jax.report.baselines import baseline_rows
from fusar_jax.report.scoring import (
  check_truths,
  evaluate_predictions,
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
from fusar_jax.training import metric_writers

COUNT, DETECT = counting.question("ship"), detection.question("ship")
BOX = '[{"bbox_2d": [10, 10, 30, 30], "label": "ship"}]'


def predicted(name, question, gt, text, size=100, **fields):
  return prediction_row(
    id=name,
    question=question,
    gt=gt,
    prediction_text=text,
    coordinate_size=size,
    **fields,
  )


def counted(i, gt, text):
  return predicted(f"c{i}", COUNT, gt, text, 224)


def of_every_task(i):
  """One row per task, each with another truth, and answered rightly."""
  corner = 10 + i % 90
  found = [[corner, 10, corner + 20, 30], [300, 300, 330 + i % 70, 350]]
  names = ("cargo ship", "tanker ship", "fighter plane")
  fields = {field: f"{field} {i} by land" for field in captioning.FIELDS}
  asked = {
    "counting": (COUNT, str(i % 9)),
    "grounding": (
      grounding.question("ship"),
      grounding.answer(found, (504, 504)),
    ),
    "classification": (
      classification.question(found[0], names),
      names[i % 3],
    ),
    "captioning": (captioning.question(), captioning.answer(fields)),
    "detection": (DETECT, detection.answer(found, ["ship", "ship"])),
  }
  return [
    predicted(
      f"{task}{i}", question, gt, gt, 504, task=task, image=f"{i % 999}.png"
    )
    for task, (question, gt) in asked.items()
  ]


@pytest.fixture
def write(tmp_path):
  """write(rows) -> predictions file."""

  def write(rows, name="p.jsonl"):
    path = tmp_path / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path

  return write


@pytest.fixture
def score(call, tmp_path):
  """score(predictions, *options) -> (Called, metrics, folder of scores)."""

  def score(path, *options):
    out = tmp_path / "scores"
    done = call(evaluate.main, "--predictions", path, "--out", out, *options)
    assert done.code == 0, done.err
    return done, json.loads((out / "metrics.json").read_text()), out

  return score


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


def test_scores_are_written(write, score):
  path = write(
    [counted(0, "1", "1"), counted(1, "2", "x"), counted(2, "3", "3")]
  )
  done, metrics, out = score(path)
  assert (metrics["n"], metrics["parse_failures"]) == (3, 1)
  assert metrics["counting"]["accuracy"] == pytest.approx(2 / 3)
  assert metrics == evaluate_predictions(path)
  assert [sample["id"] for sample in read_samples(out)] == ["c0", "c1", "c2"]
  assert "exact count" in done.out


GOOD = json.dumps(counted(0, "1", "1")).encode() + b"\n"


def edited(old, new):
  assert old in GOOD
  return GOOD.replace(old, new)


@pytest.mark.parametrize(
  ("content", "message"),
  [
    (None, "p.jsonl"),
    (b"\n \n", "no rows"),
    (b'{"id": 1}\n', "row 1: no question, gt, prediction_text"),
    (b"\nnot json\n", "row 2: not JSON"),
    (GOOD + GOOD[:40] + b"\n", "row 2: not JSON"),
    (GOOD + b"[" * 100_000 + b"\n", "row 2: not JSON: nested too deeply"),
    (GOOD + GOOD, 'row 2: id "c0" with this question is already used by row 1'),
    (GOOD + edited(b"c0", b"c\xff"), "row 2: not UTF-8 text: byte 0xff"),
    (edited(b"c0", b"\\ud800"), "row 1: id: character 1 is half of"),
    (edited(b'"c0"', b"{}"), "row 1: id must be text or a number, got {}"),
    (edited(b'"gt": "1"', b'"gt": null'), "row 1: gt is null: no truth"),
    (edited(b'"gt": "1"', b'"gt": "x"'), 'row 1 (id "c0"): no number'),
    (edited(b"224", b"NaN"), "row 1: not JSON: NaN is not a number"),
    (edited(b"224", b"Infinity"), "row 1: not JSON: Infinity is not"),
    (edited(b'"counting"', b'["counting"]'), "row 1: task ['counting'] is"),
    (edited(b"{", b'{"image": ["a"], '), "row 1: image is list, expected text"),
    (edited(b"224", b"9" * 5000), "row 1: not JSON: number out of range"),
  ],
)
def test_a_malformed_file_writes_nothing(call, tmp_path, content, message):
  path, out = tmp_path / "p.jsonl", tmp_path / "scores"
  if content is not None:
    path.write_bytes(content)
  done = call(evaluate.main, "--predictions", path, "--out", out)
  assert done.code == 1
  assert message in done.err
  assert not out.exists()


def test_manifest_rows_without_a_prediction_count_as_wrong(
  write, score, manifest
):
  """Of 3 counts one is predicted, rightly; the box is, in half the pixels."""
  half = '[{"bbox_2d": [5, 5, 15, 15], "label": "ship"}]'
  path = write(
    [counted(0, "9", "1"), predicted("d0", DETECT, "None", half, 50)]
  )
  done, metrics, out = score(path, "--manifest", manifest)
  assert metrics["missing"] == 2
  assert metrics["counting"]["accuracy"] == pytest.approx(1 / 3)
  assert metrics["detection"]["f1@0.5"] == 1
  assert "2 rows of the manifest have no prediction" in done.text
  errors = [sample["parse_error"] for sample in read_samples(out)]
  assert errors == [None, *["no prediction"] * 2, None]


def test_predictions_need_only_an_id_and_a_text(write, manifest):
  """The manifest supplies the rest; the error lists every unknown id."""
  texts = {"c0": "1", "c1": "1", "c2": "2", "d0": BOX}
  rows = [{"id": i, "prediction_text": text} for i, text in texts.items()]
  metrics = evaluate_predictions(write(rows), manifest)
  assert metrics["missing"] == metrics["parse_failures"] == 0
  assert metrics["counting"]["accuracy"] == metrics["detection"]["f1@0.5"] == 1
  unknown = [{"id": f"x{i}", "prediction_text": "1"} for i in range(30)]
  with pytest.raises(ValueError, match=r"(?s)30 bad rows.*row 5 .*and 10 more"):
    evaluate_predictions(write([*rows, *unknown]), manifest)


def test_near_duplicates_of_the_manifest_are_one_trial(write, score, manifest):
  """All three counts are right, but their images are of one "split_group"."""
  rows = list(map(json.loads, manifest.open(encoding="utf-8")))
  write_manifest(manifest, [row | {"split_group": 4} for row in rows])
  texts = {"c0": "1", "c1": "1", "c2": "2", "d0": BOX}
  path = write([{"id": i, "prediction_text": t} for i, t in texts.items()])
  _, metrics, out = score(path, "--manifest", manifest)
  assert metrics["counting"]["accuracy"] == 1
  assert metrics["counting"]["ci95"]["accuracy"] == wilson(1, 1)
  assert {sample["split_group"] for sample in read_samples(out)} == {"4"}
  grouped = write([counted(i, "1", "1") | {"split_group": 4} for i in range(3)])
  found = evaluate_predictions(grouped)["counting"]
  assert found["ci95"]["accuracy"] == wilson(1, 1)


def test_rows_without_ground_truth_are_not_scored(write, score, manifest):
  """They are counted and reported; no truth in any row is an error."""
  rows = list(map(json.loads, manifest.open(encoding="utf-8")))
  del rows[0]["answer"]
  write_manifest(manifest, rows)
  texts = {"c0": "1", "c1": "1", "c2": "2", "d0": BOX}
  path = write([{"id": i, "prediction_text": t} for i, t in texts.items()])
  done, metrics, _ = score(path, "--manifest", manifest)
  assert "1 rows of the manifest have no answer and are not" in done.out
  assert (metrics["n"], metrics["without_truth"]) == (3, 1)
  assert (metrics["counting"]["n"], metrics["missing"]) == (2, 0)
  check_truths(manifest)
  with pytest.raises(ValueError, match="no row has an 'answer'"):
    check_truths(manifest, limit=1)
  with pytest.raises(ValueError, match="rows without 'answer'"):
    baseline_rows(manifest)


def test_truncated_answers_are_counted(write, score):
  """Overall and per task; without the field, nothing is reported."""
  rows = [of_every_task(i)[-1] for i in range(3)] + [counted(9, "1", "1")]
  metrics = evaluate_predictions(write(rows))
  assert "truncated" not in {*metrics, *metrics["detection"]}
  for k, row in enumerate(rows):
    row["truncated"] = k == 0
  rows[0]["prediction_text"] = rows[0]["prediction_text"][:-1] + ', {"bbox_2d'
  done, metrics, out = score(write(rows))
  found = (metrics, metrics["detection"], metrics["counting"])
  assert [of["truncated"] for of in found] == [1, 1, 0]
  assert [of["truncated_share"] for of in found] == [1 / 4, 1 / 3, 0]
  # A counted rule retains the boxes before the cut.
  assert metrics["detection"]["rules"]["truncated"] == 1
  assert metrics["parse_failures"] == 0
  assert "truncated at the limit of new tokens: 1 of 4 (25.0%)" in done.out
  assert 'row 1 (id "detection0")' in done.out
  assert [s["truncated"] for s in read_samples(out)] == [True, *[False] * 3]


@pytest.mark.parametrize(
  "text",
  [BOX.replace("[10,", "[NaN,"), BOX[:20], "7" * 5000, "[" * 100_000,
   "a" * 50_000_000],
  ids=["NaN", "cut", "digits", "deep", "50 MB"],
)  # fmt: skip
@pytest.mark.parametrize("question", [COUNT, DETECT])
def test_an_unparsable_answer_counts_as_empty(write, score, text, question):
  truth = "1" if question == COUNT else BOX
  rows = [predicted(name, question, truth, truth) for name in ("good", "bad")]
  rows[1]["prediction_text"] = text
  done, metrics, out = score(write(rows), "--no-report")
  assert (metrics["n"], metrics["parse_failures"]) == (2, 1)
  good, bad = read_samples(out)
  assert good["parse_error"] is None
  assert bad["parse_error"]
  assert (out / "samples.jsonl").stat().st_size < 1_000_000
  assert "cannot be parsed and count as empty: 1" in done.out
  assert 'row 2 (id "bad")' in done.out


def test_scores_are_complete_or_absent(write, tmp_path):
  """Stale metrics do not remain next to new samples."""
  metrics, samples = score_rows(read_rows(write([counted(0, "1", "1")]))[0])
  write_scores(tmp_path, metrics, samples)
  with pytest.raises(ValueError):
    write_scores(tmp_path, metrics | {"n": float("nan")}, [])
  assert json.loads((tmp_path / "metrics.json").read_text()) == metrics
  assert (tmp_path / "samples.jsonl").read_text()
  with pytest.raises(UnicodeEncodeError):
    write_scores(tmp_path, metrics, [{"id": "\ud800"}])
  assert not (tmp_path / "metrics.json").exists()


def test_the_majority_baseline(call, tmp_path, manifest):
  """Always 1: two of three counts. No box: F1 0."""
  out = tmp_path / "scores"
  done = call(evaluate.main, "--baseline", "--manifest", manifest, "--out", out)
  assert done.code == 0
  metrics = json.loads((out / "metrics.json").read_text())
  assert metrics["counting"]["accuracy"] == pytest.approx(2 / 3)
  assert metrics["detection"]["f1@0.25"] == 0
  assert metrics["detection"]["predicted_boxes"] == 0


def test_a_model_is_tested_against_the_strongest_baseline(
  write, score, tmp_path
):
  """The width of the box gives the class away, and the model gets 1 of 2.

  Question-only is right on all of the 12 test rows, majority on 6.
  """
  names, common = ("ship", "plane"), {"image": "a.png", "coordinate_size": 100}

  def rows(split, n):
    for i in range(n):
      box = [10, 10, 30 + 40 * (i % 2), 20 + i]
      question = classification.question(box, names)
      yield common | {
        "id": f"{split}{i}", "image": f"{split}{i}.png", "task":
        "classification", "question": question, "answer": names[i % 2],
      }  # fmt: skip

  train, test = tmp_path / "train.jsonl", tmp_path / "test.jsonl"
  write_manifest(train, list(rows("train", 20)))
  write_manifest(test, list(rows("test", 12)))
  path = write(
    [{"id": f"test{i}", "prediction_text": "ship"} for i in range(12)]
  )
  done, _, out = score(
    path, "--manifest", test, "--train", train, "--baselines"
  )
  found = json.loads((out / "baselines.json").read_text())
  accuracies = {
    name: of["metrics"]["classification"]["accuracy"]
    for name, of in found["baselines"].items()
  }
  assert accuracies == {"majority": 0.5, "question-only": 1}
  assert found["unreadable_images"] == 32
  assert found["training_rows"] == {
    "classification": {"used": 20, "available": 20}
  }
  one = found["comparisons"][0]
  assert (one["score"], one["baseline"]) == ("accuracy", "question-only")
  assert (one["model"], one["value"], one["difference"]) == (0.5, 1, -0.5)
  # McNemar's 2 / 2^6 is larger than the p value of the bootstrap.
  assert (one["better"], one["p"]) == (False, 2 / 64)
  assert "32 image files cannot be read" in done.out
  assert "strongest blind baseline" in (out / "report.html").read_text()
  samples = read_samples(out / "baselines" / "question-only")
  assert all(sample["correct"] for sample in samples)


def test_less_error_is_better(write, score, tmp_path):
  """MAE: the median of the training counts, 2, is the strongest, not the mode.

  It misses 2, 4, 2, 4, ... by 0 and 2; the model is always right.
  """
  common = {"image": "a.png", "question": COUNT, "task": "counting"}
  paths = [tmp_path / "train.jsonl", tmp_path / "test.jsonl"]
  for path, counts in zip(paths, ["0012345", "24" * 4]):
    write_manifest(
      path,
      [
        {**common, "id": f"{i}", "image": f"{path.stem}{i}.png", "answer": n}
        for i, n in enumerate(counts)
      ],
    )
  answers = [{"id": f"{i}", "prediction_text": "24"[i % 2]} for i in range(8)]
  train, test = paths
  given = ("--manifest", test, "--train", train, "--baselines", "--no-report")
  _, _, out = score(write(answers), *given)
  found = json.loads((out / "baselines.json").read_text())["comparisons"]
  [mae] = [one for one in found if one["score"] == "mae"]
  assert (mae["baseline"], mae["value"]) == ("best-constant", 1)
  assert (mae["difference"], mae["better"]) == (-1, True)


def test_dialogues_are_scored_by_sub_task(write, score, call):
  """Of 2 and 3 counted rightly and wrongly: 1 true, 1 false, 1 missed."""
  rows = [
    predicted(f"s{i}", "[count] How many ships are there?", gt, text)
    for i, (gt, text) in enumerate([("2", "2"), ("3", "4")])
  ]
  path = write(rows)
  done, metrics, out = score(path)
  assert "sarchat-counting" in done.out
  scores = metrics["sarchat-counting"]
  assert (scores["n"], scores["exact"]) == (2, 0.5)
  assert scores["acc"] == pytest.approx(1 / 3)
  assert "sarchat-counting" in (out / "report.html").read_text()
  score(path, "--against", path)
  compared = json.loads((out / "comparison.json").read_text())["comparisons"]
  assert [one["score"] for one in compared] == ["exact", "acc"]
  assert {one["difference"] for one in compared} == {0}


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (["--controls", "--manifest", "m"], "needs --model and --manifest"),
    (["--controls", "--model", "m", "--data", "d", "--baseline"], "by itself"),
    (["--predictions", "p", "--model", "m"], "give one of"),
    (["--model", "m"], "need --manifest"),
    (["--baseline", "--data", "d", "--against", "p"], "compares answers"),
    (["--predictions", "p", "--train", "t"], "--train requires --baselines"),
    (["--predictions", "p", "--against", "q", "--acc50", "jaccard"], "--acc50"),
    (["--baseline", "--data", "d", "--no-report"], "--no-report requires"),
    (["--predictions", "p", "--baselines"], "needs --manifest and --train"),
    (["--baseline", "--data", "d", "--baselines"], "drop --against"),
    (["--predictions", "p", "--limit", "3"], "--limit requires --model"),
    (["--predictions", "p", "--send-scores"], "requires --model"),
    (
      ["--controls", "--model", "m", "--data", "d", "--no-tlm"],
      "which need the TLM",
    ),
  ],
)
def test_incompatible_options(call, tmp_path, arguments, message):
  done = call(evaluate.main, *arguments, "--out", tmp_path)
  assert done.code == 2
  assert message in done.err


def test_scores_are_sent_by_manifest_and_task(
  write, call, tmp_path, monkeypatch
):
  """And a folder without runs is an error before any prediction."""
  answers = write([counted(0, "1", "1"), counted(1, "2", "3")])
  sent = []
  monkeypatch.setattr(evaluate, "_answer", lambda args: str(answers))
  monkeypatch.setattr(
    metric_writers, "send_scores", lambda *given: sent.append(given)
  )
  given = ("--model", tmp_path, "--data", "test.jsonl", "--send-scores")
  done = call(evaluate.main, *given, "--out", tmp_path)
  assert done.code == 1
  assert "metric_services.json not found" in done.text
  monkeypatch.setattr(metric_writers, "find_runs", lambda folder: {})
  monkeypatch.setattr(
    scored_answers,
    "score",
    lambda args, *_: write_scores(
      args.out, *score_rows(read_rows(args.predictions)[0])
    ),
  )
  assert call(evaluate.main, *given, "--out", tmp_path).code == 0
  ((folder, scores),) = sent
  assert folder == tmp_path
  assert scores["test/counting/accuracy"] == 0.5


@pytest.fixture
def two(write):
  """Answers of two models: 3 and 1 of 4 correct."""
  gts = ["1", "2", "3", "5"]
  return [
    write(
      [counted(i, gt, text) for i, (gt, text) in enumerate(zip(gts, texts))],
      f"{name}.jsonl",
    )
    for name, texts in (("a", "1237"), ("b", "1320"))
  ]


def test_two_models_are_compared(two, score, call, tmp_path):
  """A predictions file against a folder of scores, also pooled."""
  a, b = map(str, two)
  _, _, scores = score(b)
  out = tmp_path / "out"
  against = [*("--predictions", a, "--against", scores), *("--out", out)]
  done = call(evaluate.main, *against)
  assert done.code == 0
  found = json.loads((out / "comparison.json").read_text())
  assert (found["first"], found["second"]) == (a, str(scores))
  accuracy, mae = found["comparisons"]
  assert accuracy["mcnemar"] == {"only_first": 2, "only_second": 0, "p": 0.5}
  assert (accuracy["first"], accuracy["second"]) == (0.75, 0.25)
  assert mae["difference"] == -1.25
  assert "2:0 p 0.5000" in done.out
  pooled = ["--predictions", f"{a},{b}", "--against", f"{b},{a}"]
  assert call(evaluate.main, *pooled, "--out", out).code == 0
  found = json.loads((out / "comparison.json").read_text())
  assert found["comparisons"][0]["each"] == [0.5, -0.5]
  assert found["comparisons"][0]["p"] == 1


def test_answers_that_do_not_pair_write_nothing(two, call, write, tmp_path):
  a, b = two
  rows = list(map(json.loads, a.open()))
  short = write(rows[1:], "short.jsonl")
  out = tmp_path / "out"
  for first, second, message in (
    (a, f"{a},{b}", "one per seed"),
    (a, tmp_path / "none.jsonl", "none.jsonl"),
    (b, short, 'id "c0" is missing'),
  ):
    done = call(
      evaluate.main, "--predictions", first, "--against", second, "--out", out
    )
    assert done.code == 1
    assert message in done.err
    assert not out.exists()
