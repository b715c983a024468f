"""Visual tokens are computed once per image, and the losses stay the same."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from fusar_jax.model.fusar_gpt import FusarGPT
from fusar_jax.training import device_mesh, sharding, visual_cache
from fusar_jax.training.loop import train_and_evaluate

STEPS = 8


@pytest.fixture
def encoded(monkeypatch) -> list:
  """One entry per batch that the vision tower encodes for the cache."""
  calls = []
  make = visual_cache.make_encoder

  def make_counting(*arguments):
    encode = make(*arguments)

    def counting(frozen, batch):
      calls.append(batch)
      return encode(frozen, batch)

    counting._cache_size = encode._cache_size
    return counting

  monkeypatch.setattr(visual_cache, "make_encoder", make_counting)
  return calls


def test_losses_are_those_without_a_cache(
  small_base, manifest, make_config, tmp_path, encoded, capsys
):
  def losses(name, **values):
    config = make_config(
      "stage1",
      manifest,
      "model=tiny",
      init=str(small_base),
      steps=STEPS,
      log_every_steps=1,
      **{"data.pool_batches": 1, "dtype.frozen": "nf4"},
      **values,
    )
    train_and_evaluate(config, tmp_path / name)
    lines = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]

  # 20 images of 4 merged tokens, 64 float32 each: 20,480 bytes.
  without = losses("too many", **{"data.visual_cache_gb": 20_479e-9})
  assert "computed in every step" in capsys.readouterr().out
  assert not encoded
  cached = losses("cached", **{"data.visual_cache_gb": 20_481e-9})
  assert "computed once per image" in capsys.readouterr().out
  np.testing.assert_allclose(cached, without, rtol=1e-6)
  assert 0 < len(encoded) < STEPS


def test_equal_pixels_share_tokens_on_any_mesh(model, params, batch):
  """Rows in another order find the tokens that were stored, image by image."""
  mesh = device_mesh.make_mesh(2, 2, 2)
  frozen = sharding.put(params, sharding.parameter_shardings(params, mesh))
  encode = visual_cache.make_encoder(FusarGPT(model), mesh)
  cache = visual_cache.VisualCache(encode, mesh, model.vision.merge)
  first = cache(batch, frozen)
  order = np.roll(np.arange(len(batch.input_ids)), 3)
  moved = jax.tree.map(lambda x: x[order], batch)
  again = cache(moved, frozen)
  assert cache.programs() == 1
  assert again.patches is None
  valid = moved.patch_mask[:, :, :: model.vision.merge**2]
  np.testing.assert_array_equal(
    np.asarray(again.visual)[valid], np.asarray(first.visual)[order][valid]
  )
  # The same patches as columns and rows of another image: other tokens.
  turned = dataclasses.replace(
    batch, patch_positions=batch.patch_positions[..., ::-1]
  )
  valid = batch.patch_mask[:, :, :: model.vision.merge**2]
  tokens = [np.asarray(cache(b, frozen).visual)[valid] for b in (turned, batch)]
  assert np.abs(tokens[0] - tokens[1]).max(-1).min() > 0.01
