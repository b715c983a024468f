"""Estimates of remaining time with a fake clock."""

import doctest

import pytest

from fusar_jax.experiments import eta as pace


def test_kinds_are_timed_apart():
  """10 steps in 5 s and 20 in 25 s; 4 rows in 8 s."""
  clock = iter([0, 5, 5, 30, 30, 38]).__next__
  found = pace.EtaEstimator(clock)
  for kind, units in (("steps", 10), ("steps", 20), ("rows", 4)):
    with found.timed(kind, units):
      pass
  left = found.left([("steps", 60), ("rows", 3), ("steps", 3), ("rows", 2)])
  assert left == 63 * 1 + 5 * 2


def test_unknown_kinds_and_failures_tell_nothing():
  found = pace.EtaEstimator(iter([0, 1]).__next__)
  with pytest.raises(ValueError), found.timed("steps", 1):
    raise ValueError
  assert found.left([("steps", 1)]) is None
  assert found.left([]) == 0


def test_examples():
  found = doctest.testmod(pace)
  assert found.attempted
  assert not found.failed
