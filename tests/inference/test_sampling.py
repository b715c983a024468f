"""Penalty and warpers on small arrays with values computed by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from fusar_jax.inference.sampling import penalized, warped

INF = float("inf")


def test_penalty_divides_positive_and_multiplies_negative_logits():
  logits = jnp.array([[2.0, -2.0, 2.0, 0.0], [2.0, -2.0, 2.0, 0.0]])
  occurred = jnp.array([[True, True, False, True], [False] * 4])
  np.testing.assert_array_equal(
    penalized(logits, occurred, 2.0), [[1, -4, 2, 0], [2, -2, 2, 0]]
  )
  np.testing.assert_array_equal(
    penalized(logits, occurred, 0.5), [[4, -1, 2, 0], [2, -2, 2, 0]]
  )


# Softmax of LOGITS: 1/2, 1/4, 1/8, 1/8.
LOGITS = np.log(np.array([0.25, 0.5, 0.125, 0.125]))


@pytest.mark.parametrize(
  ("kept", "rules"),
  [
    ([1, 1, 1, 1], {}),
    ([1, 1, 1, 1], {"top_k": 9}),
    ([1, 1, 0, 0], {"top_k": 2}),
    # As likely as the last that is kept: kept too.
    ([1, 1, 1, 1], {"top_k": 3}),
    # The fewest that reach the share; one is always kept.
    ([0, 1, 0, 0], {"top_p": 0.0}),
    ([0, 1, 0, 0], {"top_p": 0.45}),
    ([1, 1, 0, 0], {"top_p": 0.55}),
    ([1, 1, 0, 0], {"top_p": 0.7}),
    ([1, 1, 1, 1], {"top_p": 0.95}),
    ([1, 1, 0, 0], {"min_p": 0.4}),
    ([1, 1, 1, 1], {"min_p": 0.2}),
    ([0, 1, 0, 0], {"min_p": 1.0}),
    # top_p is of what top_k leaves: 2/3 and 1/3.
    ([0, 1, 0, 0], {"top_k": 2, "top_p": 0.6}),
    # min_p is of what the temperature makes: 4/22, 16/22, 1/22, 1/22.
    ([1, 1, 0, 0], {"temperature": 0.5, "min_p": 0.2}),
  ],
)
def test_tokens_that_are_left(kept, rules):
  rules = {"temperature": 1.0} | rules
  got = warped(jnp.array([LOGITS, LOGITS[::-1]]), **rules)
  scaled = LOGITS / rules["temperature"]
  expected = np.where(kept, scaled, -INF)
  np.testing.assert_allclose(got[0], expected, rtol=1e-6)
  np.testing.assert_allclose(got[1], expected[::-1], rtol=1e-6)


def test_tokens_that_a_constraint_left_out_stay_out():
  logits = jnp.array([[1.0, -INF, 0.0, -INF]])
  got = warped(logits, 2.0, top_k=3, top_p=0.99, min_p=0.01)
  np.testing.assert_allclose(got, [[0.5, -INF, 0.0, -INF]])
