"""Estimates of memory and speed against a slice whose truth is known."""

import itertools

from fusar_jax.config import preset
from fusar_jax.planning import search
from fusar_jax.planning.chips import find_slice
from fusar_jax.planning.estimate import (
  MARGIN,
  Compiled,
  Estimate,
  stored_bytes,
)
from fusar_jax.planning.search import KEEPS, Choice
from fusar_jax.training.device_mesh import WeightBytes

MODEL = preset("qwen2_5_vl_7b")
WEIGHTS = WeightBytes(
  frozen=16_600_000_000, state=320_000_000, layers=13_000_000_000
)
V6E = find_slice("v6e-16")
WHOLE = (1, 16, 1)
# True bytes per sample that a policy takes, and reads and writes.
TAKES = {"full": 0.25e9, "dots": 2.6e9, "none": 9.1e9}
MOVES = {"full": 36e9, "dots": 45e9, "none": 48e9}


def _estimate():
  return Estimate(V6E, WEIGHTS, stored_bytes(MODEL, 512))


def _truth(choice):
  """Returns (bytes of memory, bytes of traffic) of a device."""
  _, fsdp, tensor = choice.mesh
  memory = WEIGHTS.all / (fsdp * tensor) + 0.9e9 * (fsdp > 1)
  memory += choice.samples * TAKES[choice.remat]
  traffic = (5 if fsdp > 1 else 3) * WEIGHTS.layers / tensor
  return memory, traffic + choice.samples * MOVES[choice.remat]


def test_stored_bytes_by_hand():
  """28 layers of 512 tokens: inputs of 3584; queries, keys, values, output,
  gate and up projection."""
  stored = stored_bytes(MODEL, 512)
  assert stored["full"] == 2 * 28 * 512 * 3584
  products = 3584 + 2 * 512 + 3584 + 2 * 18944
  assert stored["dots"] == 2 * 28 * 512 * (3584 + products)
  assert stored["none"] == stored["dots"]


def test_memory_is_learned_and_never_above_the_truth_by_the_margin():
  meshes = [WHOLE, (16, 1, 1), (4, 4, 1), (8, 1, 2)]
  for first in itertools.product(meshes, (1, 4, 16), KEEPS):
    estimate, known = _estimate(), Choice(*first)
    before = estimate.memory(known)
    estimate.learn(Compiled(known, _truth(known)[0]))
    assert before <= estimate.memory(known) <= _truth(known)[0] * 1.001
    for mesh, samples, policy in itertools.product(meshes, (1, 8, 32), KEEPS):
      other = Choice(mesh, samples, policy)
      assert estimate.memory(other) <= _truth(other)[0] + 1e9


def test_samples_of_a_policy_that_did_not_fit_tell_what_half_of_them_take():
  estimate = _estimate()
  half = Choice(WHOLE, 4, "none")
  before = estimate.memory(half)
  used = 1.1e9 + 8 * TAKES["none"]
  estimate.learn(Compiled(Choice(WHOLE, 8, "none"), used))
  assert before < 10e9
  assert abs(estimate.memory(half) - (1.1e9 + 4 * TAKES["none"])) < 0.1e9
  # 37 GB exceed 32 GiB by less than the margin, 72 GB by more.
  assert estimate.refine(half, 100.0)[0] == 100.0
  assert estimate.refine(Choice((16, 1, 1), 8, "none"), 100.0) == (0.0, 0.0)


def test_fewer_samples_are_not_faster():
  estimate = _estimate()
  known = Choice(WHOLE, 8, "full")
  estimate.learn(Compiled(known, 4e9, hbm=361e9, speed=581.0))
  assert estimate.speed(Choice(WHOLE, 4, "full")) == 581.0
  # Twice the samples move at least the same bytes.
  most = 16 * 16 / (361e9 / 1640e9)
  assert abs(estimate.speed(Choice(WHOLE, 16, "full")) - most) < 1e-6
  assert estimate.speed(Choice((16, 1, 1), 4, "full")) == float("inf")


def test_a_choice_far_above_the_hbm_is_not_compiled():
  """The best of all is found, with the memory of a v6e chip."""
  optimistic = {"full": 714.0, "dots": 930.0, "none": 950.0}
  found = [
    (choice, optimistic[choice.remat])
    for choice in search.choices(16, MODEL, samples=(1, 2, 4, 8, 16, 32))
    if choice.mesh[2] == 1
  ]
  speeds = {}
  for choice, bound in found:
    memory, traffic = _truth(choice)
    speed = min(bound, choice.samples * 16 * V6E.chip.bandwidth / traffic)
    speeds[choice] = speed * (memory <= V6E.chip.memory)
  estimate, compiled = _estimate(), []

  def measure(choice):
    assert estimate.memory(choice) <= MARGIN * V6E.chip.memory
    compiled.append(choice)
    memory, traffic = _truth(choice)
    fits = bool(speeds[choice])
    estimate.learn(Compiled(choice, memory, traffic * fits, speeds[choice]))
    return speeds[choice]

  winner, speed, proven = search.best(found, measure, 1000, estimate.refine)
  assert proven
  assert speed == speeds[winner] >= max(speeds.values()) / 1.01
  # Of each policy at most one choice far above the HBM teaches the rest.
  far = [c.remat for c in compiled if _truth(c)[0] > 1.5 * V6E.chip.memory]
  assert len(far) == len(set(far))
