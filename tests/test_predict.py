"""The command `predict`: official rows, and resumption after a kill."""

import dataclasses
import json
import os
import signal
import subprocess
import sys

import jax
import pytest
from PIL import Image

from fusar_jax import evaluate, predict
from fusar_jax.config import preset
from fusar_jax.data.tokenizer import train_sentencepiece
from fusar_jax.data.triplets import read_manifest
from fusar_jax.hf.export import export_merged
from fusar_jax.inference.box_grammar import box_list
from fusar_jax.model.fusar_gpt import init_params
from fusar_jax.simulation.dataset import Plan, simulate
from fusar_jax.tasks import classification

OFFICIAL = (
  "id",
  "coordinate_size",
  "question",
  "gt",
  "prediction_text",
  "detections",
  "parse_error",
)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
  folder = tmp_path_factory.mktemp("data") / "simulated"
  simulate(folder, Plan(3, seed=3, size=112))
  return folder / "manifest.jsonl"


@pytest.fixture(scope="module")
def model(tmp_path_factory, manifest):
  """A random tiny model in the hub's layout, with a tokenizer of its own."""
  folder = tmp_path_factory.mktemp("model")
  texts = (t for r in read_manifest(manifest) for t in (r.question, r.answer))
  train_sentencepiece(
    texts, folder / "words" / "tokenizer.model", vocab_size=400
  )
  tiny = preset("tiny")
  config = dataclasses.replace(
    tiny,
    vision=dataclasses.replace(tiny.vision, depth=2, full_attention=(1,)),
    decoder=dataclasses.replace(
      tiny.decoder, layers=2, tie_word_embeddings=False
    ),
    image_size=(56, 56),
  )
  params = jax.jit(init_params, static_argnums=0)(config, jax.random.key(0))
  # Large weights: what a prompt says and shows must change the answer.
  params = jax.tree.map(lambda leaf: 4 * leaf, params)
  export_merged(folder / "hf", config, params, tokenizer=folder / "words")
  return folder / "hf"


def command(model, manifest, out):
  return [
    *("--model", str(model), "--data", str(manifest), "--out", str(out)),
    *("--batch-size", "2", "--max-new-tokens", "12"),
  ]


@pytest.fixture(scope="module")
def finished(model, manifest, tmp_path_factory):
  out = tmp_path_factory.mktemp("whole")
  assert predict.main(command(model, manifest, out)) == 0
  return out


def test_rows_are_official_and_in_the_order_of_the_file(finished, manifest):
  text = (finished / "predictions.jsonl").read_text()
  rows = [json.loads(line) for line in text.splitlines()]
  triplets = read_manifest(manifest)
  assert [row["id"] for row in rows] == [t.id for t in triplets]
  for row, triplet in zip(rows, triplets, strict=True):
    # Rows of text have neither detections nor a parse error.
    official = OFFICIAL if triplet.task == "detection" else OFFICIAL[:5]
    assert tuple(row)[: len(official)] == official
    assert not {*OFFICIAL[5:]} & {*row} - {*official}
    assert row["gt"] == triplet.answer
    assert row["question"] == triplet.question
    assert row["coordinate_size"] == 112
    assert (manifest.parent / row["image"]).is_file()
  assert len({row["prediction_text"] for row in rows}) > 1
  assert {row["truncated"] for row in rows} <= {True, False}
  assert [p.name for p in finished.iterdir()] == ["predictions.jsonl"]


def test_rows_need_neither_id_nor_answer(model, manifest, tmp_path):
  rows = list(map(json.loads, manifest.open(encoding="utf-8")))[:3]
  for row in rows:
    del row["id"], row["answer"]
    row["question"] = f"<image>\n{row['question']}"
  bare = manifest.parent / "bare.jsonl"
  bare.write_text("".join(json.dumps(row) + "\n" for row in rows))
  assert predict.main(command(model, bare, tmp_path / "out")) == 0
  lines = (tmp_path / "out" / "predictions.jsonl").open(encoding="utf-8")
  for number, (line, asked) in enumerate(zip(lines, rows, strict=True), 1):
    row = json.loads(line)
    assert (row["id"], row["gt"]) == (str(number), None)
    assert row["question"] == asked["question"].removeprefix("<image>\n")


def test_evaluate_scores_them(finished, manifest):
  asked = [row.task for row in read_manifest(manifest)]
  metrics = evaluate.evaluate_predictions(finished / "predictions.jsonl")
  assert metrics["guessed_tasks"] == 0
  assert metrics["counting"]["n"] == asked.count("counting") > 0


def test_a_killed_run_ends_with_the_same_file(
  finished, model, manifest, tmp_path
):
  """SIGKILL after some batches and a truncated line: identical final file."""
  arguments = command(model, manifest, tmp_path)
  process = subprocess.Popen(
    [sys.executable, "-m", "fusar_jax.predict", *arguments],
    stdout=subprocess.PIPE,
    text=True,
  )
  for line in process.stdout:
    if line.startswith("predict 4/"):
      process.send_signal(signal.SIGKILL)
      break
  assert process.wait() == -signal.SIGKILL
  process.stdout.close()
  partial = tmp_path / "predictions.partial.jsonl"
  assert not (tmp_path / "predictions.jsonl").exists()
  os.truncate(partial, partial.stat().st_size - 9)
  assert predict.main(arguments) == 0
  name = "predictions.jsonl"
  assert (tmp_path / name).read_bytes() == (finished / name).read_bytes()
  assert not partial.exists()


HELD = ("--constrain", "json", "--choices")


@pytest.fixture(scope="module")
def held(model, manifest, tmp_path_factory):
  out = tmp_path_factory.mktemp("held")
  assert predict.main([*command(model, manifest, out), *HELD]) == 0
  return out


def test_boxes_are_held_to_their_grammar_and_names_are_chosen(finished, held):
  """A random model gives well-formed answers under the constraint."""
  rows, free = (
    [json.loads(line) for line in (folder / "predictions.jsonl").open()]
    for folder in (held, finished)
  )
  assert [row["id"] for row in rows] == [row["id"] for row in free]
  seen = set()
  for row, loose in zip(rows, free, strict=True):
    seen.add(row["task"])
    if row["task"] == "detection":
      assert loose["parse_error"] is not None
      assert row["parse_error"] is None
      # The grammar ends within the cap; free answers are cut.
      assert (row["truncated"], loose["truncated"]) == (False, True)
      # Of an image of 56 pixels, written in the row's coordinates.
      assert box_list((112, 112)).accepts(row["prediction_text"])
      said = row.get("raw_text", row["prediction_text"])
      assert box_list((56, 56)).accepts(said)
    elif row["task"] == "classification":
      names = classification.choices(row["question"])
      assert tuple(row["scores"]) == names
      assert "truncated" not in row
      assert row["prediction_text"] == max(names, key=row["scores"].get)
      assert all(value < 0 for value in row["scores"].values())
    else:
      assert row == loose
      assert "scores" not in row
  assert {"detection", "classification", "counting"} <= seen
  metrics = evaluate.evaluate_predictions(held / "predictions.jsonl")
  for task in ("detection", "classification"):
    assert metrics[task]["parse_failure_rate"] == 0


@pytest.fixture(scope="module")
def without_tlm(model, manifest, tmp_path_factory):
  """A folder with answers.jsonl and overlays/, of the model without its TLM."""
  out = tmp_path_factory.mktemp("without")
  words = command(model, manifest, out / "answers.jsonl")
  words += ["--no-tlm", "--overlays", str(out / "overlays"), *HELD]
  assert predict.main(words) == 0
  return out


def test_a_file_is_named_and_the_tlm_left_out(without_tlm, held):
  """As the official script without anchors; these differ, as anchors count."""
  assert {path.name for path in without_tlm.iterdir()} == {
    "answers.jsonl",
    "overlays",
  }
  rows, others = (
    [json.loads(line) for line in path.open()]
    for path in (without_tlm / "answers.jsonl", held / "predictions.jsonl")
  )
  assert [row["id"] for row in rows] == [row["id"] for row in others]
  assert [row["prediction_text"] for row in rows] != [
    row["prediction_text"] for row in others
  ]


def test_detections_are_drawn_at_the_size_of_the_model(without_tlm):
  rows = [json.loads(line) for line in (without_tlm / "answers.jsonl").open()]
  drawn = {
    f"prediction_{i:03d}.png"
    for i, row in enumerate(rows)
    if row["task"] == "detection"
  }
  pictures = list((without_tlm / "overlays").iterdir())
  assert {path.name for path in pictures} == drawn != set()
  for path in pictures:
    with Image.open(path) as picture:
      assert (picture.size, picture.mode) == ((56, 56), "RGB")


def test_a_failure_while_drawing_loses_no_answer(model, manifest, tmp_path):
  options = {"batch_size": 2, "max_new_tokens": 12, "limit": 2}
  seen = []

  def fails(config, answers):
    seen.extend(answers)
    raise OSError("disk full")

  with pytest.raises(OSError, match="disk full"):
    predict.predict(model, manifest, tmp_path, on_complete=fails, **options)
  assert [p.name for p in tmp_path.iterdir()] == ["predictions.partial.jsonl"]
  again = []
  path = predict.predict(
    model,
    manifest,
    tmp_path,
    on_complete=lambda config, answers: again.extend(answers),
    **options,
  )
  assert [answer.row for answer in again] == [0, 1]
  rows = [json.loads(line) for line in path.open()]
  for answers in (seen, again):
    predictions = [answer.prediction for answer in answers]
    assert json.loads(json.dumps(predictions)) == rows


def test_evaluate_asks_a_model_with_the_same_options(
  held, model, manifest, tmp_path, capsys
):
  arguments = [*command(model, manifest, tmp_path), *HELD, "--no-report"]
  assert evaluate.main(arguments) == 0
  name = "predictions.jsonl"
  rows = [json.loads(line) for line in (held / name).open()]
  cut = sum(row.get("truncated", False) for row in rows)
  assert cut > 0
  shown = capsys.readouterr().out
  assert f"truncated {cut} of {len(rows)} answers at 12 tokens" in shown
  assert f"predict {len(rows)}/{len(rows)} " in shown
  assert f" truncated {cut}\n" in shown
  assert (tmp_path / name).read_bytes() == (held / name).read_bytes()
  metrics = json.loads((tmp_path / "metrics.json").read_text())
  assert metrics == evaluate.evaluate_predictions(held / name, manifest)


@pytest.mark.parametrize(
  ("arguments", "told"),
  [
    (["--constrain", "json"], "no detection question"),
    (["--choices"], "no classification question"),
  ],
)
def test_options_that_no_row_heeds_are_refused(
  model, manifest, tmp_path, capsys, arguments, told
):
  rows = [json.loads(line) for line in manifest.open()]
  counting = [row for row in rows if row["task"] == "counting"]
  only = manifest.parent / "counting.jsonl"
  only.write_text("".join(json.dumps(row) + "\n" for row in counting))
  out = tmp_path / "out"
  assert predict.main([*command(model, only, out), *arguments]) == 1
  assert told in capsys.readouterr().err
  assert not out.exists()


def test_another_models_partial_file_is_refused(
  model, manifest, tmp_path, capsys
):
  settings = {"settings": {"model": "another", "batch_size": 2}}
  partial = tmp_path / "predictions.partial.jsonl"
  partial.write_text(json.dumps(settings) + "\n")
  assert predict.main(command(model, manifest, tmp_path)) == 1
  assert "another model" in capsys.readouterr().err
  assert json.loads(partial.read_text()) == settings


def test_finished_predictions_are_not_overwritten(
  finished, model, manifest, capsys
):
  assert predict.main(command(model, manifest, finished)) == 1
  assert "is there already" in capsys.readouterr().err


def test_a_model_without_a_tokenizer_is_told(model, manifest, tmp_path, capsys):
  bare = tmp_path / "bare"
  bare.mkdir()
  for path in model.iterdir():
    if not path.name.startswith("tokenizer"):
      (bare / path.name).symlink_to(path)
  out = tmp_path / "out"
  assert predict.main(command(bare, manifest, out)) == 1
  assert "tokenizer.json" in capsys.readouterr().err
  assert not out.exists()


def test_bad_rows_are_told_together_and_nothing_is_written(
  model, manifest, tmp_path, capsys
):
  rows = [
    {"id": name, "image": f"{name}.png", "question": "?", "answer": ""}
    for name in ("a", "b")
  ]
  bad = tmp_path / "bad.jsonl"
  bad.write_text("".join(json.dumps(row) + "\n" for row in rows))
  out = tmp_path / "out"
  assert predict.main(command(model, bad, out)) == 1
  told = capsys.readouterr().err
  assert "row 1" in told
  assert "row 2" in told
  assert not out.exists()


@pytest.mark.parametrize(
  ("arguments", "told"),
  [
    (["--limit", "0"], "limit 0"),
    (["--constrain", "json", "--max-new-tokens", "1"], "shortest list"),
    (["--model", "nowhere"], "nowhere"),
    (["--data", "nowhere.jsonl"], "nowhere.jsonl"),
    (["--legacy-sigma", "2"], "--adapter"),
    (["--no-tlm", "--anchors", "aligned"], "the model has no TLM"),
    (["--image-size", "84"], "84 contradicts the model's recorded size 56"),
    (["--overlays", "."], "not empty"),
  ],
)
def test_user_errors(model, manifest, tmp_path, capsys, arguments, told):
  out = tmp_path / "out"
  assert predict.main([*command(model, manifest, out), *arguments]) == 1
  assert told in capsys.readouterr().err
  assert not out.exists()


def test_a_prompt_may_be_twice_as_long_as_in_training(
  model, manifest, tmp_path, capsys
):
  row = json.loads(manifest.read_text().splitlines()[0])
  row |= {"question": "How many? " * 4096, "task": "counting", "answer": "1"}
  long = manifest.parent / "long.jsonl"
  long.write_text(json.dumps(row) + "\n")
  assert predict.main(command(model, long, tmp_path / "out")) == 1
  assert "max_length is 4096" in capsys.readouterr().err
