"""`predict --anchors` and `evaluate --controls`, on a random model."""

import json

import pytest

from fusar_jax import evaluate, predict
from fusar_jax.data.anchor_conditions import CONDITIONS
from fusar_jax.data.triplets import write_manifest
from fusar_jax.hf import tlm_file
from fusar_jax.inference.prediction import FINISHED
from fusar_jax.tasks import counting


@pytest.fixture(scope="module")
def rows(manifest):
  """4 images with anchors."""
  return [
    {
      "id": f"r{i}",
      "image": str(manifest.with_name(f"{i}.png")),
      "aef": str(manifest.with_name(f"{i}.npz")),
      "task": "counting",
      "coordinate_size": 56,
      "question": counting.question("ship"),
      "answer": str(i),
    }
    for i in range(4)
  ]


@pytest.fixture(scope="module")
def arguments(rows, tiny_model, make_hf_folder, tmp_path_factory):
  """Large weights, so the anchors change the answer."""
  words = [counting.question("ship"), *map(str, range(99)), "user assistant"]
  model = make_hf_folder(tiny_model, words, scale=4, tlm_scale=8)
  data = tmp_path_factory.mktemp("rows") / "manifest.jsonl"
  write_manifest(data, rows)
  return [
    *("--model", str(model), "--data", str(data)),
    *("--batch-size", "4", "--max-new-tokens", "12"),
  ]


@pytest.fixture(scope="module")
def controls(arguments, tmp_path_factory):
  out = tmp_path_factory.mktemp("controls")
  assert evaluate.main([*arguments, "--controls", "--out", str(out)]) == 0
  return out


def answers(folder):
  lines = (folder / FINISHED).read_text().splitlines()
  return [json.loads(line)["prediction_text"] for line in lines]


def test_each_condition_is_predicted_scored_and_tested(controls):
  """Each control changes the answers of this model."""
  conditions = json.loads((controls / "controls.json").read_text())[
    "conditions"
  ]
  assert tuple(conditions) == CONDITIONS
  for name, found in conditions.items():
    metrics = json.loads((controls / name / "metrics.json").read_text())
    assert found["metrics"] == metrics
    assert metrics["n"] == 4
    if name != "aligned":
      accuracy = found["aligned_against_it"][0]
      assert (accuracy["score"], accuracy["n"]) == ("accuracy", 4)
      assert answers(controls / name) != answers(controls / "aligned")
  assert "aligned_against_it" not in conditions["aligned"]


def test_evaluate_predicts_and_scores_in_one_call(
  controls, arguments, tmp_path, call
):
  command = [*arguments, "--out", tmp_path, "--anchors", "zeros"]
  command = [evaluate.main, *command]
  assert call(*command).code == 0
  for name in (FINISHED, "metrics.json"):
    found, expected = (f / name for f in (tmp_path, controls / "zeros"))
    assert found.read_text() == expected.read_text()
  assert (tmp_path / "report.html").is_file()
  done = call(*command)
  assert (done.code, "predictions.jsonl exists" in done.err) == (1, True)


@pytest.mark.parametrize(
  ("option", "condition"),
  [(["--anchors", "shuffled"], "shuffled"), (["--no-tlm"], "none")],
)
def test_predict_gives_the_answers_of_the_controls(
  controls, arguments, tmp_path, caplog, option, condition
):
  """Without TLM the answers are those without anchors."""
  assert predict.main([*arguments, "--out", str(tmp_path), *option]) == 0
  assert answers(tmp_path) == answers(controls / condition)
  unused = "the anchors of 4 rows are not used" in caplog.text
  assert unused == (condition == "none")


def test_an_interrupted_call_continues(controls, arguments, call):
  """A lost condition is predicted again; the others are reused."""
  lost, kept = (controls / c / FINISHED for c in ("zeros", "none"))
  before, time = lost.read_bytes(), kept.stat().st_mtime_ns
  lost.unlink()
  command = [evaluate.main, "--controls", *arguments, "--out", controls]
  assert call(*command).code == 0
  assert lost.read_bytes() == before
  assert kept.stat().st_mtime_ns == time
  done = call(*command, "--limit", "3")
  assert done.code == 1
  assert "limit None there, 3 now" in done.text


def test_errors_come_before_the_first_answer(rows, arguments, tmp_path, call):
  out, data = tmp_path / "out", tmp_path / "rows.jsonl"
  command = [evaluate.main, *arguments, "--out", out]
  write_manifest(data, [*rows[:2], rows[2] | {"answer": "many"}])
  done = call(*command, "--data", data)
  assert (done.code, 'row 3 (id "r2")' in done.err) == (1, True)
  write_manifest(data, rows[:1])
  done = call(*command, "--controls", "--data", data)
  assert (done.code, "at least two anchors files" in done.err) == (1, True)
  plain, model = tmp_path / "plain", arguments[1]
  plain.mkdir()
  for path in type(out)(model).iterdir():
    if path.name not in (tlm_file.WEIGHTS, tlm_file.SETTINGS):
      (plain / path.name).symlink_to(path)
  done = call(*command, "--controls", "--model", plain)
  assert (done.code, "the model has no TLM" in done.err) == (1, True)
  assert not out.exists()
