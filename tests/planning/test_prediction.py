"""Roofline bounds against values computed by hand."""

import itertools

import numpy as np
import pytest
from jax.sharding import Mesh

from fusar_jax.planning.chips import find_slice
from fusar_jax.planning.flops import Work
from fusar_jax.planning.hlo import Collective, Traffic
from fusar_jax.planning.prediction import (
  CollectiveCost,
  Prediction,
  predict,
  route,
)


def _coordinates(where):
  """Coordinates of a slice in libtpu's order: the first axis is the fastest."""
  axes = [range(length) for length in reversed(where.shape)]
  return [tuple(reversed(c)) for c in itertools.product(*axes)]


@pytest.mark.parametrize(
  ("name", "group", "axes", "links"),
  [
    # All chips of a square without wrap-around: two links at its corners.
    ("v5e-16", range(16), (0, 1), 2),
    # One row: one link at its ends.
    ("v5e-16", range(4), (0,), 1),
    # A column of v5e-128 (8 x 16), which is a ring.
    ("v5e-128", range(0, 128, 8), (1,), 2),
    # Half of that ring has no wrap-around.
    ("v5e-128", range(0, 64, 8), (1,), 1),
    # All chips of 2 x 4 x 4: no full cube, one link along each axis.
    ("v5p-64", range(32), (0, 1, 2), 3),
    # A full cube of v5p, with wrap-around along each axis.
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


class _Device:
  def __init__(self, coords):
    self.coords = coords


@pytest.mark.parametrize(
  ("kind", "groups", "received", "over_links"),
  [
    # All eight: the chip takes two shards of each of three chips.
    ("all-gather", (tuple(range(8)),), 7.0, 6.0),
    ("all-reduce", (tuple(range(8)),), 7.0, 6.0),
    # One device of each chip: both groups share the links.
    ("all-gather", ((0, 2, 4, 6), (1, 3, 5, 7)), 3.0, 6.0),
    # Within a chip.
    ("all-gather", ((0, 1), (2, 3), (4, 5), (6, 7)), 1.0, 0.0),
    # Each device takes an eighth of each of the other six devices.
    ("all-to-all", (tuple(range(8)),), 7 / 8, 12 / 8),
    # Half of the pairs leave their chip, along one axis.
    ("collective-permute", ((0, 1), (1, 2), (4, 5), (5, 6)), 1.0, 1.0),
  ],
)
def test_two_devices_of_a_chip_share_its_links(
  kind, groups, received, over_links
):
  """tpu7x-8: four chips, 2 x 2, of two devices; 90 GB/s a link. Bytes of a
  shard: 1 GB."""
  where = find_slice("tpu7x-8")
  devices = np.array(
    [_Device(c) for c in _coordinates(where) for _ in range(2)], dtype=object
  )
  mesh = Mesh(devices.reshape(1, 8, 1), ("data", "fsdp", "tensor"))
  collective = Collective(kind, groups, 1, received * 1e9)
  traffic = Traffic(collectives=(collective,))
  (cost,) = predict(where, mesh, 8, [Work("all", 1.0)], traffic).collectives
  links = 1 if kind == "collective-permute" else 2
  assert cost.seconds == pytest.approx(over_links * 1e9 / (links * 90e9))


def _prediction(seconds):
  """v5e: 197 TFLOP/s, 819 GB/s; so 1.97 TFLOP = 10 ms, 4.095 GB = 5 ms."""
  collective = CollectiveCost("all-gather", (0, 1), 1, 1e9, seconds)
  where = find_slice("v5e-16")
  return Prediction(where, 64, 1.576e12, 1.97e12, 4.095e9, (collective,))


def test_the_longest_time_bounds():
  compute = _prediction(0.004)
  assert compute.bound == "compute"
  assert compute.samples_per_second == pytest.approx(6400)
  assert compute.mfu == pytest.approx(0.8)
  # Plus 4 ms of collectives without overlap: 14 ms.
  assert compute.serial_seconds == pytest.approx(0.014)
  assert compute.serial_mfu == pytest.approx(0.8 * 10 / 14)
  links = _prediction(0.02)
  assert links.bound == "interconnect"
  assert links.samples_per_second == pytest.approx(3200)
  assert links.mfu == pytest.approx(0.4)
  assert links.serial_mfu == pytest.approx(0.8 * 10 / 30)
