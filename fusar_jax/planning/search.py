"""Search for the best mesh, batch and remat policy by branch and bound.

An optimistic bound on the speed of a choice needs no compilation: it follows
from the FLOPs, the gathered weights of the decoder and the minimum memory.
Choices are compiled in the order of their bounds, until no bound exceeds the
best measured speed by more than 1 %. The result is therefore the best of all
choices, not only of the compiled ones.

HBM traffic is no part of the bound, because it depends on what the compiler
keeps in vector memory: fewer samples may be faster. A best choice that is below
its bound, as where HBM limits it, is therefore followed by those that differ
from it in one respect, its remat policy first.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction

from fusar_jax.model.config import FusarConfig
from fusar_jax.model.remat import POLICIES
from fusar_jax.planning.chips import Slice
from fusar_jax.planning.flops import Work
from fusar_jax.training import device_mesh
from fusar_jax.training.device_mesh import WeightBytes

_BF16 = 2
# Remat policies, in the order of stored activations, least first.
_KEEPS = ("full", "dots", "none")
# A choice is compiled if it may be faster by the first factor. Bounds within
# the second factor count as equal.
_WORTH, _ABOUT = 1.01, 1.05


@dataclasses.dataclass(frozen=True)
class Choice:
  """One point of the search space.

  Attributes:
    mesh: (data, fsdp, tensor).
    samples: per chip and micro-batch; a fraction if the tensor axis splits a
      sample.
    remat: rematerialisation policy.
  """

  mesh: tuple[int, int, int]
  samples: int | Fraction
  remat: str

  def flags(self, devices: int, accumulation: int) -> str:
    """Returns the arguments of `train` for this choice."""
    mesh = ",".join(map(str, self.mesh))
    rows = int(self.samples * devices * accumulation)
    return (
      f"--config.mesh={mesh} --config.remat={self.remat}"
      f" --config.batch_size={rows}"
      f" --config.accumulation={accumulation}"
    )


def choices(
  devices: int,
  model: FusarConfig,
  samples: Sequence[int] = (1, 2, 4, 8, 16, 32),
  remat: Sequence[str] = tuple(POLICIES),
  slices: int = 1,
) -> Iterator[Choice]:
  """Yields all choices whose sizes are divisible."""
  for count in samples:
    rows = count * devices
    for mesh in device_mesh.mesh_choices(devices, rows, model, slices):
      for policy in remat:
        yield Choice(mesh, count, policy)


def optimistic(
  choice: Choice,
  where: Slice,
  model: FusarConfig,
  weights: WeightBytes,
  work: Sequence[Work],
  length: int,
  rate: float,
) -> float:
  """Returns an upper bound in samples/s; 0 if the choice cannot fit.

  Args:
    choice: mesh, samples and remat policy.
    where: the slice.
    model: shapes.
    weights: bytes of parameters.
    work: FLOPs of one sample under the remat policy of the choice.
    length: tokens per sample.
    rate: bytes/s at which a chip gathers weights, `gathering_rate`.
  """
  _, fsdp, tensor = choice.mesh
  kept = choice.samples * stored_bytes(choice, model, length)
  kept *= any(w.part == "decoder" and w.backward for w in work)
  if weights.all / (fsdp * tensor) + kept > where.chip.memory:
    return 0.0
  compute = choice.samples * sum(w.executed for w in work) / where.chip.peak
  # The decoder's layers are gathered for the forward pass, and again for the
  # backward pass if there is one.
  gathered = weights.layers / tensor * (1 - 1 / fsdp) * (1 + bool(kept))
  return choice.samples * where.devices / max(compute, gathered / rate)


def stored_bytes(choice: Choice, model: FusarConfig, length: int) -> float:
  """Returns the bytes that a sample stores at least for the backward pass.

  The input of every decoder layer, which a tensor axis does not split; unless
  the policy is "full", also the results of products whose gradient needs them:
  queries, keys, values, output projection, gate and up projection.
  """
  d, tensor = model.decoder, choice.mesh[2]
  stored = d.hidden_size * tensor
  if choice.remat != "full":
    stored += (d.heads + 2 * d.kv_heads) * d.head_dim
    stored += d.hidden_size * tensor + 2 * d.intermediate_size
  return float(_BF16 * length * d.layers * stored)


def best(
  found: Sequence[tuple[Choice, float]],
  measure: Callable[[Choice], float],
  tries: int,
) -> tuple[Choice | None, float, bool]:
  """Returns (best choice, its samples/s, whether no other is 1 % faster).

  Args:
    found: choices with their optimistic samples/s.
    measure: compiles a choice and returns its roofline samples/s, 0 if it does
      not fit.
    tries: maximum number of compilations.
  """
  left = dict(sorted(found, key=lambda item: _promise(*item)))
  winner, speed = None, 0.0
  while True:
    left = {c: bound for c, bound in left.items() if bound > _WORTH * speed}
    if not left:
      return winner, speed, True
    if not tries:
      return winner, speed, False
    tries -= 1
    choice = min(left, key=lambda c: _apart(c, winner))
    del left[choice]
    measured = measure(choice)
    if not measured:
      left = {c: b for c, b in left.items() if not _harder(c, choice)}
    if measured > speed:
      winner, speed = choice, measured


def _apart(choice: Choice, winner: Choice | None) -> tuple[bool, int]:
  """Returns the sort key by distance from the best choice, next to it first.

  Next to it: one respect differs, remat policy, samples by a factor of two, or
  mesh. All others are equal, and stay in order of their promise.
  """
  if winner is None:
    return True, 0
  differs = [
    choice.remat != winner.remat,
    choice.samples != winner.samples,
    choice.mesh != winner.mesh,
  ]
  twice = choice.samples / winner.samples in (Fraction(1, 2), 1, 2)
  beside = sum(differs) == 1 and twice
  return not beside, differs.index(True) if beside else 0


def _promise(choice: Choice, bound: float) -> tuple:
  """Returns the sort key of the compilation order, lowest first.

  Among about equal bounds, choices that are more likely to fit come first: few
  stored activations and sharded weights, but no tensor axis, whose collectives
  the bound ignores.
  """
  about = -round(math.log(bound, _ABOUT)) if bound else math.inf
  _, fsdp, tensor = choice.mesh
  return about, _KEEPS.index(choice.remat), tensor, -fsdp, choice.samples


def _harder(choice: Choice, other: Choice) -> bool:
  """Returns whether `choice` needs at least the memory of `other`."""
  return (
    math.prod(choice.mesh[1:]) <= math.prod(other.mesh[1:])
    and choice.samples >= other.samples
    and _KEEPS.index(choice.remat) >= _KEEPS.index(other.remat)
  )
