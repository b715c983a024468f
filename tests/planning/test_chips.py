"""Slices by their Cloud TPU names, and the links of their chips."""

import pytest

from fusar_jax.planning.chips import find_slice


@pytest.mark.parametrize(
  ("name", "topology", "chips"),
  [
    ("v5e-8", "v5e:2x4", 8),
    ("v6e-256", "v6e:16x16", 256),
    ("v5p-16", "v5p:2x2x2", 8),  # Named for TensorCores, two a chip.
    ("v4-512", "v4:4x8x8", 256),
    ("v5p:2x2x4", "v5p:2x2x4", 16),
    ("tpu7x-8", "tpu7x:2x2x1", 4),
  ],
)
def test_names(name, topology, chips):
  found = find_slice(name)
  assert (found.topology, found.chips) == (topology, chips)


def test_a_device_of_tpu7x_is_half_a_chip():
  """Published for a chip: 2307 TFLOP/s, 192 GiB, 7380 GB/s."""
  where = find_slice("tpu7x-8")
  assert (where.chips, where.devices) == (4, 8)
  assert 2 * where.chip.peak == 2307e12
  assert 2 * where.chip.memory == 192 * 2**30
  assert 2 * where.chip.bandwidth == 7380e9
  assert find_slice("v5p-8").devices == find_slice("v5p-8").chips == 4


@pytest.mark.parametrize(
  ("name", "message"),
  [
    ("h100-8", "expected a slice such as v5e-16"),
    ("v5e-12", "known slices are v5e-1, v5e-4"),
    ("v5p-9", "known slices are v5p-8, v5p-16"),
    ("v5e:2x2x2", "v5e has 2 axes"),
    ("v5p:8x8x8", "at most 256 chips"),
  ],
)
def test_unknown_slices_raise(name, message):
  with pytest.raises(ValueError, match=message):
    find_slice(name)


@pytest.mark.parametrize(
  ("name", "links"),
  [
    # 2D: an axis of 16 has wrap-around links, a shorter axis has none.
    ("v5e-16", [1, 1]),
    ("v5e-128", [1, 2]),
    ("v5e-256", [2, 2]),
    ("v6e-64", [1, 1]),
    ("v6e-256", [2, 2]),
    # 3D: full 4x4x4 cubes wrap around on all axes, smaller slices on none.
    ("v5p-8", [1, 1, 0]),
    ("v5p-32", [1, 1, 1]),  # 2x2x4
    ("v5p-64", [1, 1, 1]),  # 2x4x4
    ("v4-64", [1, 1, 1]),
    ("v5p-128", [2, 2, 2]),
    ("v4-256", [2, 2, 2]),  # 4x4x8
    ("v5p:4x4x6", [1, 1, 1]),
    ("tpu7x-32", [1, 1, 1]),  # 2x2x4
    ("tpu7x-128", [2, 2, 2]),
  ],
)
def test_wrap_around_links(name, links):
  where = find_slice(name)
  assert [where.links(axis) for axis in range(len(where.shape))] == links
