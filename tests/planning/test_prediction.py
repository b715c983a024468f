"""Bounds, against arithmetic on paper."""

import itertools

import pytest

from fusar_jax.planning.chips import find_slice
from fusar_jax.planning.hlo import Collective
from fusar_jax.planning.prediction import Exchange, Prediction, route


def _coordinates(where):
  """Of the chips of a slice, the first axis fastest, as libtpu lists them."""
  axes = [range(length) for length in reversed(where.shape)]
  return [tuple(reversed(c)) for c in itertools.product(*axes)]


@pytest.mark.parametrize(
  ("name", "group", "axes", "links"),
  [
    # All chips of an open square: two links at its corners.
    ("v5e-16", range(16), (0, 1), 2),
    # A row of it: one link at its ends.
    ("v5e-16", range(4), (0,), 1),
    # A column of v5e-128 (8 x 16), which closes to a ring.
    ("v5e-128", range(0, 128, 8), (1,), 2),
    # Half of that ring is a line.
    ("v5e-128", range(0, 64, 8), (1,), 1),
    # A cube of v5p, closed along each axis.
    ("v5p-128", range(64), (0, 1, 2), 6),
  ],
)
def test_routes(name, group, axes, links):
  where = find_slice(name)
  gather = Collective("all-gather", (tuple(group),), 1, 1.0)
  assert route(where, _coordinates(where), gather) == (axes, links)


def test_a_permutation_takes_the_axes_that_its_pairs_cross():
  where = find_slice("v5e-128")
  pairs = tuple((k, (k + 1) % 8) for k in range(8))
  permute = Collective("collective-permute", pairs, 1, 1.0)
  assert route(where, _coordinates(where), permute) == ((0,), 1)


def test_the_slowest_clock_bounds():
  """v5e: 197 TFLOP/s, 819 GB/s; 1.97 TFLOP take 10 ms, 4.095 GB 5 ms."""
  where = find_slice("v5e-16")

  def prediction(seconds):
    exchange = Exchange("all-gather", (0, 1), 1, 1e9, seconds)
    return Prediction(where, 64, 1.576e12, 1.97e12, 4.095e9, (exchange,))

  compute = prediction(0.004)
  assert compute.bound == "compute"
  assert compute.samples_per_second == pytest.approx(6400)
  assert compute.mfu == pytest.approx(0.8)
  # Nothing hides 4 ms of exchanges: 14 ms.
  assert compute.unhidden_seconds == pytest.approx(0.014)
  links = prediction(0.02)
  assert links.bound == "interconnect"
  assert links.samples_per_second == pytest.approx(3200)
  assert links.mfu == pytest.approx(0.4)
