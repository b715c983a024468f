"""Inference on eight devices gives the answers of one."""

import json

import jax
import numpy as np
import pytest

import fusar_jax
from fusar_jax import predict
from fusar_jax.config import PRESETS
from fusar_jax.data.padding import pad_batch
from fusar_jax.data.triplets import read_manifest
from fusar_jax.data.workers import Recipe
from fusar_jax.inference.mesh import choose_sizes, make_mesh, put_rows
from fusar_jax.model.paths import flatten

MESHES = [
  "2,2,2",
  *(
    pytest.param(mesh, marks=pytest.mark.slow)
    for mesh in ("8,1,1", "2,4,1", "2,1,4")
  ),
]


@pytest.fixture(scope="module")
def folder(tiny_model, make_hf_folder, manifest):
  """A model with TLM; large weights, so that images and anchors matter."""
  texts = [t for r in read_manifest(manifest) for t in (r.question, r.answer)]
  return make_hf_folder(tiny_model, texts * 20, scale=2)


@pytest.fixture(scope="module")
def batch_of(manifest):
  """batch_of(assistant) -> eight prompts."""

  def batch_of(assistant):
    recipe = Recipe(
      assistant.need_tokenizer(), assistant.config, with_answer=False
    )
    build = recipe.builder()
    rows = read_manifest(manifest)[:8]
    return pad_batch(list(map(build, rows)), config=assistant.config)

  return batch_of


@pytest.fixture(scope="module")
def alone(folder, batch_of):
  return _answers(fusar_jax.load(folder, mesh=None), batch_of)


def _answers(assistant, batch_of):
  batch = batch_of(assistant)
  rows = len(batch.input_ids)
  image = np.arange(56 * 56 * 3).reshape(56, 56, 3).astype(np.uint8)
  ids = [9, *[assistant.config.tokens.image] * 4, 12, 13]
  answers = [["one ship", "two", "none at all"]] * rows
  return {
    # One row, which does not divide over the devices.
    "logits": assistant.logits(ids, [image]),
    "visual_tokens": assistant.visual_tokens([image])[0],
    "likelihoods": np.stack(assistant.log_likelihoods(batch, answers)),
    "tokens": assistant.generate_batch(batch, max_new_tokens=12),
  }


@pytest.mark.parametrize("mesh", MESHES)
def test_eight_devices_equal_one(folder, alone, batch_of, mesh):
  assistant = fusar_jax.load(folder, mesh=mesh)
  assert assistant.mesh.devices.size == 8
  answers = _answers(assistant, batch_of)
  assert answers.pop("tokens") == alone["tokens"]
  assert len({tuple(row) for row in alone["tokens"]}) > 1
  for name, value in answers.items():
    scale = np.abs(alone[name]).max()
    np.testing.assert_allclose(
      value / scale, alone[name] / scale, atol=1e-5, err_msg=name
    )


def test_weights_are_split(folder):
  """None of 1000 values and more lies on each device as a whole."""
  params = flatten(fusar_jax.load(folder, mesh="1,4,2").params)
  for path, leaf in params.items():
    if "kernel" in path and leaf.size > 1000:
      shard = leaf.sharding.shard_shape(leaf.shape)
      assert np.prod(shard) <= leaf.size / 4, path


def test_rows_are_split_if_they_divide():
  mesh = make_mesh("2,2,2", measure=None)
  for rows, shard in ((8, 2), (3, 3)):
    put = put_rows(np.zeros((rows, 5), np.int32), mesh)
    assert put.sharding.shard_shape(put.shape) == (shard, 5)


def test_predict_on_a_mesh_writes_the_same_file(folder, manifest, tmp_path):
  files = []
  for name, options in (("one", ()), ("mesh", ("--mesh", "2,1,4"))):
    out = tmp_path / name
    given = ("--model", folder, "--data", manifest, "--out", out)
    size = ("--max-new-tokens", 6, "--batch-size", 4)
    assert predict.main([*map(str, (*given, *size, *options))]) == 0
    files.append((out / "predictions.jsonl").read_text())
  assert files[0] == files[1]
  rows = map(json.loads, files[0].splitlines())
  assert len({row["prediction_text"] for row in rows}) > 1


@pytest.mark.parametrize(
  ("name", "devices", "gib", "expected"),
  [
    # Weights of 16.6 GB do not fit 16 GiB, halves do.
    ("qwen2_5_vl_7b", 4, 16, (2, 1, 2)),
    ("qwen2_5_vl_7b", 8, 16, (4, 1, 2)),
    ("qwen2_5_vl_7b", 8, 32, (8, 1, 1)),
    ("qwen2_5_vl_3b", 1, 16, (1, 1, 1)),
    # 147 GB; too much for chips of 16 GB, which get as little as they can.
    ("qwen2_5_vl_72b", 8, 16, (1, 1, 8)),
    ("qwen2_5_vl_72b", 8, 95, (4, 1, 2)),
  ],
)
def test_auto_splits_weights_as_little_as_they_fit(
  name, devices, gib, expected
):
  config = PRESETS[name]
  weights = {"3b": 7.5, "7b": 16.6, "72b": 147}[name.rsplit("_", 1)[1]] * 10**9
  assert choose_sizes(devices, config, weights, gib * 2**30) == expected


def test_auto_on_a_cpu_is_one_device():
  assert len(jax.devices()) == 8
  assert make_mesh("auto", measure=None) is None


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"mesh": "3,1,1"}, "do not multiply to the 8 devices"),
    ({"mesh": "tensor"}, "three sizes data,fsdp,tensor"),
    ({"dtype": "float16"}, "expected one of float32, bfloat16"),
  ],
)
def test_wrong_devices_and_dtypes_are_rejected(folder, options, message):
  with pytest.raises(ValueError, match=message):
    fusar_jax.load(folder, **options)
