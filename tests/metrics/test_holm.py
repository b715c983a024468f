"""Holm's correction against hand-computed values."""

import pytest

from fusar_jax.metrics.holm import holm


@pytest.mark.parametrize(
  ("given", "expected"),
  [
    ([], []),
    ([0.03], [0.03]),
    # 4 x 0.005, 3 x 0.01, 2 x 0.03, then the maximum so far; as statsmodels'
    # multipletests(method="holm").
    ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),
    ([0.5, 0.5, 0.9], [1, 1, 1]),
    ([0.02, 0.02], [0.04, 0.04]),
  ],
)
def test_holm_by_hand(given, expected):
  assert holm(given) == pytest.approx(expected, abs=1e-12)


def test_p_values_must_be_probabilities():
  with pytest.raises(ValueError, match=r"from 0 to 1, got \[1.5\]"):
    holm([0.1, 1.5])
