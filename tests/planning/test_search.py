"""The search finds the best choice without compiling all choices."""

import random

from fusar_jax.config import preset
from fusar_jax.planning import search
from fusar_jax.planning.chips import find_slice
from fusar_jax.planning.flops import Work
from fusar_jax.training.device_mesh import WeightBytes

MODEL = preset("qwen2_5_vl_7b")


def _all():
  return list(search.choices(16, MODEL, samples=(1, 2, 4)))


def test_the_best_is_found_with_few_compilations():
  """Random speeds below their bounds; some choices do not fit."""
  for seed in range(50):
    rng = random.Random(seed)
    found = [(choice, rng.choice([0.0, 10.0, 20.0, 30.0])) for choice in _all()]
    memory = {c: _needed(c) for c, _ in found}
    limit = rng.uniform(1, 100)
    speed = {
      c: bound * rng.uniform(0.5, 1) * (memory[c] <= limit)
      for c, bound in found
    }
    tried = []

    def measure(choice, tried=tried, speed=speed):
      tried.append(choice)
      return speed[choice]

    winner, fastest, proven = search.best(found, measure, tries=1000)
    # A gain of 1 % is not worth a compilation.
    assert fastest >= max(speed.values()) / 1.01
    assert proven
    assert fastest == 0 or speed[winner] == fastest
    assert len(tried) == len(set(tried)) <= len(found)


def _needed(choice):
  """Memory: grows with samples and stored activations, shrinks with shards."""
  keeps = {"full": 1, "dots": 2, "none": 3}[choice.remat]
  return choice.samples * keeps + 40 / (choice.mesh[1] * choice.mesh[2])


def test_too_few_tries_prove_nothing():
  found = [(choice, 10.0) for choice in _all()]
  _, speed, proven = search.best(found, lambda choice: 1.0, tries=2)
  assert speed == 1.0
  assert not proven


def test_optimistic_bounds():
  where = find_slice("v5e-16")
  weights = WeightBytes(
    frozen=16_600_000_000, state=320_000_000, layers=13_000_000_000
  )
  work = [Work("decoder", 8e12, 8e12, recomputed=8e12)]

  def bound(mesh, samples=4):
    choice = search.Choice(mesh, samples, "full")
    return search.optimistic(
      choice, where, MODEL, weights, work, 512, rate=2 * 45e9
    )

  # 16.9 GB exceed 16 GiB; sharded they fit, and the step is compute-bound.
  assert bound((16, 1, 1)) == 0
  assert bound((1, 16, 1)) == 16 * 197e12 / 24e12
  # One sample per chip: gathering 12.2 GB twice over two links takes longer.
  seconds = 2 * 13e9 * 15 / 16 / (2 * 45e9)
  assert round(bound((1, 16, 1), samples=1), 6) == round(16 / seconds, 6)


def test_what_stores_less_follows_a_choice_below_its_bound():
  """Bounds promise "dots", HBM makes "full" faster: it is the second tried."""
  bounds = {"full": 700.0, "dots": 900.0}
  found = [(c, bounds[c.remat]) for c in _all() if c.remat in bounds]
  tried = []

  def measure(choice):
    tried.append(choice)
    return 475.0 if choice.remat == "dots" else 581.0

  winner, speed, proven = search.best(found, measure, tries=2)
  assert [c.remat for c in tried] == ["dots", "full"]
  assert tried[0].mesh == tried[1].mesh
  assert tried[0].samples == tried[1].samples
  assert (winner, speed, proven) == (tried[1], 581.0, False)


def test_stored_bytes_by_hand():
  """28 layers of 512 tokens, width 3584; key and value of 512; 18944 wide."""
  rows = 2 * 28 * 512
  products = 3584 + 2 * 512 + 3584 + 2 * 18944

  def stored(remat, mesh=(1, 16, 1)):
    return search.stored_bytes(search.Choice(mesh, 4, remat), MODEL, 512)

  assert stored("full") == rows * 3584
  assert stored("dots") == stored("none") == rows * (3584 + products)
  # Two devices of "tensor" both hold the inputs of all layers.
  assert stored("full", (1, 8, 2)) == rows * 3584 * 2
