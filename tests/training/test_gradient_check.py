"""What is trainable but gets no gradient is named after the first step."""

import jax
import numpy as np
import pytest

from fusar_jax.model.paths import flatten
from fusar_jax.training import partition
from fusar_jax.training.gradient_check import GradientCheck


@pytest.fixture
def fresh(params):
  """TLM and LoRA as they start: all of B is zero."""
  rules = [("tlm/.*", True), (".*/lora_[ab]", True), (".*", False)]
  trainable, _ = partition.partition(params, rules)
  return jax.tree_util.tree_map_with_path(
    lambda path, x: x * 0 if path[-1].key == "lora_b" else x, trainable
  )


def _nonzero(trainable, dead=()):
  return {path: path not in dead for path in flatten(trainable)}


def test_lora_a_behind_a_zero_b_is_excused(fresh, batch):
  dead = [p for p in flatten(fresh) if p.endswith("lora_a")]
  assert GradientCheck(fresh).passes(_nonzero(fresh, dead), batch)


def test_lora_a_behind_a_trained_b_is_not(params, batch):
  path = "model/layers/self_attn/q_proj/lora_a"
  with pytest.raises(ValueError, match=path):
    GradientCheck(params).passes(_nonzero(params, [path]), batch)


def test_all_dead_parameters_are_named(fresh, batch):
  dead = ["tlm/mlp_0/bias", "model/layers/mlp/up_proj/lora_b"]
  with pytest.raises(ValueError, match="2 trainable parameters") as error:
    GradientCheck(fresh).passes(_nonzero(fresh, dead), batch)
  assert all(path in str(error.value) for path in dead)


def test_tlm_waits_for_a_batch_with_anchors(fresh, batch, caplog):
  """Without anchors it is excused, with one message; with anchors it is due."""
  bare = batch.replace(anchor_weights=np.zeros_like(batch.anchor_weights))
  dead = [p for p in flatten(fresh) if p.startswith("tlm/")]
  check = GradientCheck(fresh)
  assert not check.passes(_nonzero(fresh, dead), bare)
  assert not check.passes(_nonzero(fresh, dead), bare)
  assert caplog.text.count("has no anchors") == 1
  with pytest.raises(ValueError, match="tlm/mlp_2/kernel"):
    check.passes(_nonzero(fresh, dead), batch)


@pytest.mark.parametrize(
  ("condition", "dead"),
  [
    ("none", ["mlp_0/kernel", "mlp_0/bias", "mlp_2/kernel", "mlp_2/bias"]),
    ("zeros", ["mlp_0/kernel"]),
  ],
)
def test_what_a_control_of_the_anchors_silences_is_excused(
  params, batch, condition, dead
):
  """And that alone: it is due again where the anchors are aligned."""
  dead = [f"tlm/{leaf}" for leaf in dead]
  nonzero = _nonzero(params, dead)
  assert GradientCheck(params, condition).passes(nonzero, batch)
  with pytest.raises(ValueError, match=f"{len(dead)} trainable parameters"):
    GradientCheck(params).passes(nonzero, batch)
  with pytest.raises(ValueError, match="q_proj"):
    GradientCheck(params, condition).passes(
      nonzero | {"model/layers/self_attn/q_proj/lora_b": False}, batch
    )
