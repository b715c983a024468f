"""The command `predict`: official rows, resumption after a kill, errors."""

import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys

import pytest
from PIL import Image

from fusar_jax import predict
from fusar_jax.data.anchor_conditions import AnchorCondition
from fusar_jax.data.tokenizer import load_tokenizer
from fusar_jax.data.triplets import read_manifest
from fusar_jax.hf.folders import resolve
from fusar_jax.inference import prediction
from fusar_jax.inference.answering import Answerer
from fusar_jax.inference.box_grammar import box_list
from fusar_jax.inference.prediction import FINISHED, recorded_condition
from fusar_jax.report.scoring import evaluate_predictions
from fusar_jax.simulation.dataset import Plan, simulate
from fusar_jax.tasks import classification, vqa

OFFICIAL = (
  "id",
  "coordinate_size",
  "question",
  "gt",
  "prediction_text",
  "detections",
  "parse_error",
)
NAME = FINISHED
LISTED = vqa.question("What?", options=["lake", "port", "ship"])
CONSTRAINED = ("--constrain", "json", "--choices")


def read(path):
  return [json.loads(line) for line in path.open(encoding="utf-8")]


def write(path, rows):
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))
  return path


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
  folder = tmp_path_factory.mktemp("data") / "simulated"
  simulate(folder, Plan(3, seed=3, size=112))
  path = folder / "manifest.jsonl"
  rows = read(path)
  other = {"image": rows[0]["image"], "coordinate_size": 112, "task": "vqa"}
  turn = {"question": "Any ship?", "answer": "yes", "loss": False}
  rows += [
    {**other, "id": "option", "question": LISTED, "answer": "B"},
    {**other, "id": "again", "question": "Is it? Respond with yes or no only."}
    | {"answer": "no", "history": [turn], "question_type": "presence"},
  ]
  return write(path, rows)


@pytest.fixture(scope="module")
def model(tiny_model, make_hf_folder, manifest):
  """A random model with large weights: prompt and image change the answer."""
  texts = (t for r in read_manifest(manifest) for t in (r.question, r.answer))
  decoder = dataclasses.replace(tiny_model.decoder, tie_word_embeddings=False)
  config = dataclasses.replace(tiny_model, decoder=decoder)
  return make_hf_folder(config, texts, scale=4)


@pytest.fixture(scope="module")
def command(model, manifest):
  """command(out, *options, data=manifest) -> arguments"""

  def command(out, *options, data=manifest):
    return [
      *("--model", str(model), "--data", str(data), "--out", str(out)),
      *("--batch-size", "2", "--max-new-tokens", "12", *options),
    ]

  return command


@pytest.fixture(scope="module")
def finished(command, tmp_path_factory):
  out = tmp_path_factory.mktemp("finished")
  assert predict.main(command(out)) == 0
  return out


@pytest.fixture(scope="module")
def constrained(command, tmp_path_factory):
  out = tmp_path_factory.mktemp("constrained")
  assert predict.main(command(out, *CONSTRAINED)) == 0
  return out


def test_rows_are_official_and_in_the_order_of_the_file(finished, manifest):
  rows, triplets = read(finished / NAME), read_manifest(manifest)
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
  assert [p.name for p in finished.iterdir()] == [NAME]
  metrics = evaluate_predictions(finished / NAME)
  assert metrics["guessed_tasks"] == 0
  asked = [triplet.task for triplet in triplets]
  assert metrics["counting"]["n"] == asked.count("counting") > 0


@pytest.mark.slow
def test_mixed_answers_cost_little_more_than_their_tokens(call, tmp_path):
  """252 rows of five tasks in 16 slots: at most 1.2 positions for a token.

  Batches of fixed rows would take more than 1.6, even sorted by task.
  """
  simulate(tmp_path / "data", Plan(60, seed=5))
  given = ("--model", "tiny-base", "--data", tmp_path / "data/manifest.jsonl")
  done = call(
    predict.main, *given, "--out", tmp_path / "out", "--batch-size", 16
  )
  assert done.code == 0, done.text
  reported = re.search(r"decoded (\d+) tokens in (\d+) slot-steps", done.out)
  tokens, steps = map(int, reported.groups())
  rows = sorted(read(tmp_path / "out" / NAME), key=lambda row: row["task"])
  tokenizer = load_tokenizer(resolve("tiny-base"))
  lengths = [
    len(tokenizer.encode(row["prediction_text"])) + (not row["truncated"])
    for row in rows
  ]
  assert len(lengths) > 15 * 16
  assert sum(lengths) == tokens
  longest = [max(lengths[i : i + 16]) for i in range(0, len(lengths), 16)]
  assert 16 * sum(longest) > 1.6 * tokens
  assert tokens <= steps <= 1.2 * tokens


def test_rows_need_neither_id_nor_answer(command, manifest, tmp_path):
  rows = read(manifest)[:3]
  for row in rows:
    del row["id"], row["answer"]
    row["question"] = f"<image>\n{row['question']}"
  bare = write(manifest.parent / "bare.jsonl", rows)
  assert predict.main(command(tmp_path / "out", data=bare)) == 0
  answers = read(tmp_path / "out" / NAME)
  for number, (row, asked) in enumerate(zip(answers, rows, strict=True), 1):
    assert (row["id"], row["gt"]) == (str(number), None)
    assert row["question"] == asked["question"].removeprefix("<image>\n")


@pytest.mark.slow
def test_a_killed_run_ends_with_the_same_file(finished, command, tmp_path):
  """SIGKILL after some batches and a truncated line: identical final file."""
  arguments = command(tmp_path)
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
  assert not (tmp_path / NAME).exists()
  os.truncate(partial, partial.stat().st_size - 9)
  assert predict.main(arguments) == 0
  assert (tmp_path / NAME).read_bytes() == (finished / NAME).read_bytes()
  assert not partial.exists()


@pytest.mark.slow
def test_two_processes_write_one_file(finished, command, tmp_path, free_port):
  """The second is killed, which ends the first; then both run again."""
  arguments = command(tmp_path)

  def start(port: int) -> list[subprocess.Popen]:
    return [
      subprocess.Popen(
        [sys.executable, "-m", "fusar_jax.predict", *arguments],
        env=os.environ
        | {
          "XLA_FLAGS": "",  # one device each
          "FUSAR_COORDINATOR": f"127.0.0.1:{port}",
          "FUSAR_PROCESSES": "2",
          "FUSAR_PROCESS": str(index),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
      )
      for index in range(2)
    ]

  first, second = start(free_port())
  for line in second.stdout:
    if line.startswith("predict 2/"):
      second.send_signal(signal.SIGKILL)
      break
  _, errors = first.communicate()
  assert "process 1 of 2" in errors
  second.communicate()
  parts = {path.name for path in tmp_path.iterdir()}
  assert "predictions.1.partial.jsonl" in parts
  assert NAME not in parts
  both = start(free_port())
  outputs = [process.communicate() for process in both]
  assert [process.returncode for process in both] == [0, 0], outputs
  assert [path.name for path in tmp_path.iterdir()] == [NAME]
  assert (tmp_path / NAME).read_bytes() == (finished / NAME).read_bytes()


def test_partial_files_of_several_processes_are_continued(
  finished, command, tmp_path, monkeypatch
):
  """By one process, which answers none of their rows again."""
  rows = read(finished / NAME)
  arguments = command(tmp_path)
  monkeypatch.setattr(prediction, "write_manifest", _full)
  with pytest.raises(MemoryError):
    predict.main(arguments)
  partial = tmp_path / "predictions.partial.jsonl"
  head, *lines = read(partial)
  write(partial, [head, *lines[:2]])
  write(tmp_path / "predictions.1.partial.jsonl", [head, *lines[2:]])
  monkeypatch.undo()
  monkeypatch.setattr(Answerer, "_build", None)
  assert predict.main(arguments) == 0
  assert read(tmp_path / NAME) == rows
  assert [path.name for path in tmp_path.iterdir()] == [NAME]


def _full(path, rows):
  raise MemoryError


def test_answers_follow_the_grammar_or_the_choices(finished, constrained):
  """A random model gives well-formed answers under the constraint."""
  rows, free = (read(folder / NAME) for folder in (constrained, finished))
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
      raw = row.get("raw_text", row["prediction_text"])
      assert box_list((56, 56)).accepts(raw)
    elif row["task"] == "classification":
      names = classification.choices(row["question"])
      assert tuple(row["scores"]) == names
      assert "truncated" not in row
      assert row["prediction_text"] == max(names, key=row["scores"].get)
      assert all(value < 0 for value in row["scores"].values())
    elif row["task"] == "vqa":
      names = {"option": ["A", "B", "C"], "again": ["yes", "no"]}[row["id"]]
      assert list(row["scores"]) == names
      assert row["prediction_text"] == max(names, key=row["scores"].get)
      assert row.get("question_type") == loose.get("question_type")
    else:
      assert row == loose
      assert "scores" not in row
  assert {"detection", "classification", "counting", "vqa"} <= seen
  scores = evaluate_predictions(constrained / NAME)["vqa"]
  assert scores["kinds"] == {"option": 1, "yes_no": 1}
  assert scores["per_type"]["presence"]["n"] == 1


def test_overlays_are_drawn_and_the_file_can_be_named(command, tmp_path):
  file, folder = tmp_path / "answers.jsonl", tmp_path / "overlays"
  options = ("--no-tlm", "--overlays", str(folder), *CONSTRAINED)
  assert predict.main(command(file, *options)) == 0
  assert {path.name for path in tmp_path.iterdir()} == {file.name, folder.name}
  found = [i for i, r in enumerate(read(file)) if r["task"] == "detection"]
  drawn = {f"prediction_{i:03d}.png" for i in found}
  assert {path.name for path in folder.iterdir()} == drawn != set()


def test_existing_files_of_other_runs_are_kept(
  finished, command, tmp_path, call
):
  done = call(predict.main, *command(finished))
  assert (done.code, "predictions.jsonl exists" in done.err) == (1, True)
  settings = {"settings": {"model": "another", "batch_size": 2}}
  partial = write(tmp_path / "predictions.partial.jsonl", [settings])
  done = call(predict.main, *command(tmp_path))
  assert (done.code, "other settings: model" in done.err) == (1, True)
  assert read(partial) == [settings]


def test_images_replaced_since_an_interruption_are_noticed(
  command, manifest, tmp_path, monkeypatch, call
):
  shutil.copytree(manifest.parent, tmp_path / "data")
  data = tmp_path / "data" / manifest.name
  arguments = command(tmp_path / "out", "--limit", "2", data=data)
  monkeypatch.setattr(prediction, "write_manifest", _full)
  with pytest.raises(MemoryError):
    predict.main(arguments)
  monkeypatch.undo()
  image = data.parent / read(data)[0]["image"]
  Image.open(image).transpose(Image.Transpose.ROTATE_90).save(image)
  done = call(predict.main, *arguments)
  assert (done.code, "content of images" in done.err) == (1, True)


@pytest.mark.parametrize(
  ("options", "message"),
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
def test_errors_of_options(command, tmp_path, call, options, message):
  out = tmp_path / "out"
  done = call(predict.main, *command(out, *options))
  assert done.code == 1
  assert message in done.err
  assert not out.exists()


@pytest.mark.parametrize(
  ("fields", "options", "messages"),
  [
    ({"image": "none.png"}, [], ["row 1", "row 2"]),
    ({}, ["--constrain", "json"], ["no detection question"]),
    ({}, ["--choices"], ["no classification question"]),
    # A prompt may be twice as long as in training.
    ({"question": "How many? " * 4096}, [], ["max_length is 4096"]),
  ],
)
def test_errors_of_rows(
  command, manifest, tmp_path, call, fields, options, messages
):
  rows = [row for row in read(manifest) if row["task"] == "counting"]
  path = write(
    manifest.parent / "bad.jsonl", [row | fields for row in rows[:2]]
  )
  out = tmp_path / "out"
  done = call(predict.main, *command(out, *options, data=path))
  assert done.code == 1
  for message in messages:
    assert message in done.err
  assert not out.exists()


@pytest.mark.parametrize(
  ("data", "expected"),
  [
    ({"anchors": "shuffled", "anchor_grid": 3}, AnchorCondition("shuffled", 3)),
    ({}, AnchorCondition()),
  ],
)
def test_a_run_is_tested_under_the_condition_of_its_training(
  tmp_path, data, expected
):
  """Runs from before the conditions have aligned anchors."""
  (tmp_path / "provenance.json").write_text("{}")
  (tmp_path / "config.json").write_text(json.dumps({"config": {"data": data}}))
  assert recorded_condition(tmp_path) == expected
  assert recorded_condition(tmp_path / "nowhere") == AnchorCondition()
