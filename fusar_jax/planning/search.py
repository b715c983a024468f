"""Which mesh, batch and rematerialisation are best: branch and bound.

For every choice an optimistic bound is known without compiling: the arithmetic,
the decoder's gathered weights, and the bytes that must be in memory in any
case. Choices are compiled in the order of their bounds, until none can beat the
best that was found by 1 %. So the answer is the best of all choices, not of
those tried.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction

from fusar_jax.model.config import FusarConfig
from fusar_jax.model.remat import POLICIES
from fusar_jax.planning.chips import Slice
from fusar_jax.planning.flops import Work
from fusar_jax.training import sharding
from fusar_jax.training.program import Weights

_BF16 = 2
# Policies of rematerialisation, from what keeps least.
_KEEPS = ("full", "dots", "none")
# A compilation pays for choices that may be so much faster, and bounds within
# this factor are about equal.
_WORTH, _ABOUT = 1.01, 1.05


@dataclasses.dataclass(frozen=True)
class Choice:
  """What can be chosen.

  Attributes:
    mesh: (data, fsdp, tensor).
    samples: of a micro-batch, on each chip; a fraction where "tensor" splits
      a sample.
    remat: policy.
  """

  mesh: tuple[int, int, int]
  samples: int | Fraction
  remat: str

  def flags(self, chips: int, accumulation: int) -> str:
    """The arguments of `train` that make this choice."""
    mesh = ",".join(map(str, self.mesh))
    rows = int(self.samples * chips * accumulation)
    return (
      f"--config.mesh={mesh} --config.remat={self.remat}"
      f" --config.batch_size={rows}"
      f" --config.accumulation={accumulation}"
    )


def choices(
  chips: int,
  model: FusarConfig,
  samples: Sequence[int] = (1, 2, 4, 8, 16, 32),
  remat: Sequence[str] = tuple(POLICIES),
) -> Iterator[Choice]:
  """Yields everything that divides."""
  for count in samples:
    for mesh in sharding.mesh_choices(chips, count * chips, model):
      for policy in remat:
        yield Choice(mesh, count, policy)


def optimistic(
  choice: Choice,
  where: Slice,
  model: FusarConfig,
  weights: Weights,
  work: Sequence[Work],
  length: int,
  rate: float,
) -> float:
  """Returns samples/s that the choice cannot exceed; 0: it cannot fit.

  Args:
    choice: what is chosen.
    where: the chips.
    model: shapes.
    weights: bytes of parameters.
    work: of one sample under the choice's rematerialisation.
    length: tokens of a sample.
    rate: bytes/s at which a chip gathers weights, `gathering_rate`.
  """
  _, fsdp, tensor = choice.mesh
  d = model.decoder
  # Every layer's input is kept for the backward pass, if there is one.
  kept = choice.samples * tensor * length * d.width * d.layers * _BF16
  kept *= any(w.part == "decoder" and w.backward for w in work)
  held = weights.all / (fsdp * tensor) + kept
  if held > where.chip.memory:
    return 0.0
  compute = choice.samples * sum(w.executed for w in work) / where.chip.peak
  # The decoder's layers are gathered for the forward pass at least, and for the
  # backward one if there is one; what lies before them has none.
  gathered = weights.layers / tensor * (1 - 1 / fsdp) * (1 + bool(kept))
  return choice.samples * where.chips / max(compute, gathered / rate)


def best(
  found: Sequence[tuple[Choice, float]],
  measure: Callable[[Choice], float],
  tries: int,
) -> tuple[Choice | None, float, bool]:
  """Returns (best choice, its samples/s, whether none is 1 % faster).

  Args:
    found: choices with their optimistic samples/s.
    measure: compiles one: samples/s at its bound, 0 if it does not fit.
    tries: compilations at most.
  """
  order = sorted(found, key=lambda item: _promise(*item))
  winner, speed = None, 0.0
  too_big: list[Choice] = []
  for choice, bound in order:
    if bound <= _WORTH * speed:
      continue
    if any(_harder(choice, other) for other in too_big):
      continue
    if not tries:
      return winner, speed, False
    tries -= 1
    measured = measure(choice)
    if not measured:
      too_big.append(choice)
    if measured > speed:
      winner, speed = choice, measured
  return winner, speed, True


def _promise(choice: Choice, bound: float) -> tuple:
  """What is compiled first: least.

  Of bounds that are about equal, those first that rather fit: little is kept
  and weights are split, but not by "tensor", whose exchanges the bound does not
  know.
  """
  about = -round(math.log(bound, _ABOUT)) if bound else math.inf
  _, fsdp, tensor = choice.mesh
  return about, _KEEPS.index(choice.remat), tensor, -fsdp, choice.samples


def _harder(choice: Choice, other: Choice) -> bool:
  """True if `choice` needs no less memory than `other`."""
  return (
    math.prod(choice.mesh[1:]) <= math.prod(other.mesh[1:])
    and choice.samples >= other.samples
    and _KEEPS.index(choice.remat) >= _KEEPS.index(other.remat)
  )
