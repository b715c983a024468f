"""`predict --anchors` and `evaluate --controls`, on a random model."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from PIL import Image

from fusar_jax import evaluate, predict
from fusar_jax.config import preset
from fusar_jax.data.anchor_conditions import CONDITIONS, AnchorCondition
from fusar_jax.data.tokenizer import train_sentencepiece
from fusar_jax.data.triplets import write_manifest
from fusar_jax.geo.anchors import Anchors, write_anchors
from fusar_jax.hf import tlm_file
from fusar_jax.hf.export import export_merged
from fusar_jax.inference.prediction import recorded_condition
from fusar_jax.model.fusar_gpt import init_params
from fusar_jax.tasks import counting


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
  """4 images, each with 4 distinct grid points."""
  folder = tmp_path_factory.mktemp("data")
  rng = np.random.default_rng(0)
  rows = []
  for i in range(4):
    pixels = rng.integers(0, 255, (56, 56), np.uint8)
    Image.fromarray(pixels).save(folder / f"{i}.png")
    features = rng.normal(size=(4, 64))
    places = [[0.25, 0.25], [0.25, 0.75], [0.75, 0.25], [0.75, 0.75]]
    write_anchors(folder / f"{i}.npz", Anchors(features, places))
    rows.append(
      {
        "id": f"r{i}",
        "image": f"{i}.png",
        "aef": f"{i}.npz",
        "task": "counting",
        "coordinate_size": 56,
        "question": counting.question("ship"),
        "answer": str(i),
      }
    )
  write_manifest(folder / "manifest.jsonl", rows)
  return folder / "manifest.jsonl"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
  """Large weights, so the anchors change the answer."""
  folder = tmp_path_factory.mktemp("model")
  words = [counting.question("ship"), *map(str, range(99)), "user assistant"]
  train_sentencepiece(words, folder / "words" / "tokenizer.model", 400)
  tiny = preset("tiny")
  config = dataclasses.replace(
    tiny,
    vision=dataclasses.replace(
      tiny.vision,
      depth=1,
      intermediate_size=64,
      out_width=64,
      full_attention=(0,),
    ),
    decoder=dataclasses.replace(
      tiny.decoder,
      layers=1,
      hidden_size=64,
      heads=4,
      kv_heads=2,
      head_dim=16,
      intermediate_size=64,
      mrope_section=(2, 3, 3),
    ),
    image_size=(56, 56),
  )
  params = init_params(config, jax.random.key(0))
  params = jax.tree.map(lambda leaf: 4 * leaf, params)
  params["tlm"] = jax.tree.map(lambda leaf: 8 * leaf, params["tlm"])
  export_merged(folder / "hf", config, params, tokenizer=folder / "words")
  return folder / "hf"


@pytest.fixture(scope="module")
def controls(model, manifest, tmp_path_factory):
  out = tmp_path_factory.mktemp("controls")
  assert evaluate.main(command(model, manifest, out)) == 0
  return out


def command(model, manifest, out):
  return [
    *("--controls", "--model", str(model), "--data", str(manifest)),
    *("--out", str(out), "--batch-size", "4", "--max-new-tokens", "12"),
  ]


def answers(folder):
  lines = (folder / predict.FINISHED).read_text().splitlines()
  return [json.loads(line)["prediction_text"] for line in lines]


def test_each_condition_is_answered_scored_and_tested(controls):
  told = json.loads((controls / "controls.json").read_text())
  conditions = told["conditions"]
  assert tuple(conditions) == CONDITIONS
  for name, found in conditions.items():
    metrics = json.loads((controls / name / "metrics.json").read_text())
    assert found["metrics"] == metrics
    assert metrics["n"] == 4
    if name != "aligned":
      accuracy = found["aligned_against_it"][0]
      assert (accuracy["score"], accuracy["n"]) == ("accuracy", 4)
  assert "aligned_against_it" not in conditions["aligned"]


def test_conditions_reach_the_model(controls):
  """Each control changes the answers of a random model with strong anchors."""
  given = {name: answers(controls / name) for name in CONDITIONS}
  aligned = given.pop("aligned")
  assert all(control != aligned for control in given.values())


@pytest.mark.parametrize("condition", ["aligned", "zeros"])
def test_a_model_is_asked_and_scored_in_one(
  controls, model, manifest, tmp_path, capsys, condition
):
  """`--model` gives the answers and the scores of the two commands."""
  arguments = [
    a for a in command(model, manifest, tmp_path) if a != "--controls"
  ]
  if condition != "aligned":
    arguments += ["--anchors", condition]
  assert evaluate.main(arguments) == 0
  assert answers(tmp_path) == answers(controls / condition)
  metrics = json.loads((tmp_path / "metrics.json").read_text())
  expected = json.loads((controls / condition / "metrics.json").read_text())
  assert metrics == expected
  assert (tmp_path / "report.html").is_file()
  assert evaluate.main(arguments) == 1
  assert "is there already" in capsys.readouterr().err


def test_a_truth_that_cannot_be_scored_is_told_before_any_answer(
  model, manifest, tmp_path, capsys
):
  rows = [json.loads(line) for line in manifest.read_text().splitlines()]
  rows = [
    row | {key: str(manifest.parent / row[key]) for key in ("image", "aef")}
    for row in rows
  ]
  rows[2]["answer"] = "many"
  write_manifest(tmp_path / "bad.jsonl", rows)
  arguments = ["--model", str(model), "--data", str(tmp_path / "bad.jsonl")]
  assert evaluate.main([*arguments, "--out", str(tmp_path / "out")]) == 1
  assert 'row 3 (id "r2")' in capsys.readouterr().err
  assert not (tmp_path / "out").exists()


def test_predict_shows_anchors_as_it_is_told(
  controls, model, manifest, tmp_path
):
  """`--anchors` by itself gives what the controls gave."""
  arguments = [
    *("--model", str(model), "--data", str(manifest), "--out", str(tmp_path)),
    *("--batch-size", "4", "--max-new-tokens", "12", "--anchors", "shuffled"),
  ]
  assert predict.main(arguments) == 0
  assert answers(tmp_path) == answers(controls / "shuffled")


def test_without_tlm_the_answers_are_those_without_anchors(
  controls, model, manifest, tmp_path, caplog
):
  arguments = [
    *("--model", str(model), "--data", str(manifest), "--out", str(tmp_path)),
    *("--batch-size", "4", "--max-new-tokens", "12", "--no-tlm"),
  ]
  assert predict.main(arguments) == 0
  assert answers(tmp_path) == answers(controls / "none")
  assert "the anchors of 4 rows are not used" in caplog.text


def test_a_model_without_tlm_has_nothing_to_control(
  model, manifest, tmp_path, capsys
):
  (tmp_path / "plain").mkdir()
  for path in model.iterdir():
    if path.name not in (tlm_file.WEIGHTS, tlm_file.SETTINGS):
      (tmp_path / "plain" / path.name).symlink_to(path)
  out = tmp_path / "out"
  assert evaluate.main(command(tmp_path / "plain", manifest, out)) == 1
  assert "the model has no TLM" in capsys.readouterr().err
  with pytest.raises(SystemExit):
    evaluate.main([*command(model, manifest, out), "--no-tlm"])
  assert "which need the TLM" in capsys.readouterr().err
  assert not out.exists()


def test_an_interrupted_call_goes_on_and_another_is_refused(
  controls, model, manifest, capsys
):
  """A lost condition is predicted again; the others are reused."""
  lost = controls / "zeros" / predict.FINISHED
  before = lost.read_bytes()
  kept = (controls / "none" / predict.FINISHED).stat().st_mtime_ns
  lost.unlink()
  assert evaluate.main(command(model, manifest, controls)) == 0
  assert lost.read_bytes() == before
  assert (controls / "none" / predict.FINISHED).stat().st_mtime_ns == kept
  other = [*command(model, manifest, controls), "--limit", "3"]
  assert evaluate.main(other) == 1
  assert "limit None there, 3 now" in " ".join(capsys.readouterr().err.split())


def test_a_data_set_of_one_image_is_refused_before_any_answer(
  model, manifest, tmp_path, capsys
):
  row = json.loads(manifest.read_text().splitlines()[0])
  row |= {key: str(manifest.parent / row[key]) for key in ("image", "aef")}
  write_manifest(tmp_path / "one.jsonl", [row])
  out = tmp_path / "out"
  assert evaluate.main(command(model, tmp_path / "one.jsonl", out)) == 1
  assert "at least two anchors files" in capsys.readouterr().err
  assert not out.exists()


@pytest.mark.parametrize(
  ("data", "expected"),
  [
    ({"anchors": "shuffled", "anchor_grid": 3}, AnchorCondition("shuffled", 3)),
    ({}, AnchorCondition()),
  ],
)
def test_a_run_is_tested_as_it_was_trained(tmp_path, data, expected):
  """One from before the controls has its anchors aligned."""
  (tmp_path / "provenance.json").write_text("{}")
  (tmp_path / "config.json").write_text(json.dumps({"config": {"data": data}}))
  assert recorded_condition(tmp_path) == expected
  assert recorded_condition(tmp_path / "nowhere") == AnchorCondition()
