"""McNemar's test and the paired bootstrap against exact enumeration."""

import itertools

import numpy as np
import pytest

from fusar_jax.metrics import paired_tests


@pytest.mark.parametrize(
  ("a", "b", "p"),
  [
    (0, 0, 1),
    (1, 0, 1),  # 2 / 2: one coin is no evidence.
    (5, 0, 2 / 2**5),
    (8, 2, 2 * (1 + 10 + 45) / 2**10),
    (3, 3, 1),
    (2, 8, 2 * (1 + 10 + 45) / 2**10),
  ],
)
def test_mcnemar_by_hand(a, b, p):
  """a rows are right in the first alone, b in the second; 7 in both."""
  first = [1] * a + [0] * b + [1] * 7
  second = [0] * a + [1] * b + [1] * 7
  found = paired_tests.mcnemar(first, second)
  assert (found.only_first, found.only_second) == (a, b)
  assert found.p == pytest.approx(p, abs=1e-12)


def test_mcnemar_is_exact_where_floats_overflow():
  """5000 coins, 2400 heads: z = 2.81 with continuity, p = 0.005."""
  first = np.arange(5000) < 2400
  p = paired_tests.mcnemar(first, ~first).p
  assert 0.0045 < p < 0.0052


def test_mcnemar_needs_the_same_rows():
  with pytest.raises(ValueError, match=r"\[3\] and \[2\]"):
    paired_tests.mcnemar([1, 0, 1], [1, 0])


def test_paired_bootstrap_by_all_resamples():
  """The bootstrap agrees with all 27 resamples of 3 images."""
  first = np.array([[1, 1], [0, 1], [2, 3]])
  second = np.array([[0, 1], [0, 2], [3, 3]])
  every = []
  for draw in itertools.product(range(3), repeat=3):
    a, b = first[list(draw)].sum(0), second[list(draw)].sum(0)
    every.append(a[0] / a[1] - b[0] / b[1])
  every = np.array(every)
  difference, (low, high), p = paired_tests.paired_bootstrap(first, second)
  assert difference == pytest.approx(3 / 5 - 3 / 6)
  exact = np.percentile(every, [2.5, 97.5], method="inverted_cdf")
  np.testing.assert_allclose([low, high], exact)
  side = min(np.mean(every <= 0), np.mean(every >= 0))
  assert p == pytest.approx(2 * side, abs=0.02)


def test_equal_answers_do_not_differ():
  difference, interval, p = paired_tests.paired_bootstrap(
    [[1, 2]] * 4, [[1, 2]] * 4
  )
  assert (difference, interval, p) == (0, (0, 0), 1)
