"""Rules over parameter paths: first match wins, and nothing goes unsaid."""

import pytest

from fusar_jax.model.paths import flatten
from fusar_jax.training import partition

PARAMS = {
  "tlm": {"mlp_0": {"kernel": 1, "bias": 2}},
  "model": {"layers": {"q_proj": {"kernel": 3, "lora_a": 4, "lora_b": 5}}},
}


def test_first_match_wins():
  rules = [(r".*/lora_b", False), (r".*/lora_.", True), (r".*", False)]
  trainable, frozen = partition.partition(PARAMS, rules)
  assert flatten(trainable) == {"model/layers/q_proj/lora_a": 4}
  assert len(flatten(frozen)) == 4


def test_merge_inverts_partition():
  rules = [(r"tlm/.*", True), (r".*", False)]
  trainable, frozen = partition.partition(PARAMS, rules)
  assert partition.merge(trainable, frozen) == PARAMS


def test_all_that_does_not_fit_is_told_at_once():
  rules = [(r"tlm/.*", True), (r"tlm/mlp_0/.*", False), (r"vision/.*", False)]
  with pytest.raises(ValueError) as error:
    partition.partition(PARAMS, rules)
  text = str(error.value)
  assert "- missing     model/layers/q_proj/kernel   no rule for it" in text
  assert (
    "+ unexpected  'tlm/mlp_0/.*'   (rule 1) shadowed by earlier rules" in text
  )
  assert "+ unexpected  'vision/.*'   (rule 2) matches no parameter" in text


def test_the_last_catch_all_may_find_nothing_left():
  partition.partition(PARAMS, [(r"(tlm|model)/.*", True), (r".*", False)])


def test_a_broken_regex_is_named():
  with pytest.raises(ValueError, match=r"broken regex 'tlm/\('"):
    partition.partition(PARAMS, [("tlm/(", True)])


def test_nothing_trainable_is_an_error():
  with pytest.raises(ValueError, match="no parameter is trainable"):
    partition.partition(PARAMS, [(".*", False)])


def test_merge_rejects_a_parameter_on_both_sides():
  with pytest.raises(ValueError, match="tlm/mlp_0/bias"):
    partition.merge(PARAMS, {"tlm": {"mlp_0": {"bias": 2}}})
