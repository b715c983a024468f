"""Memory and speed of choices that are not compiled, from those that are.

Assumed of one mesh and remat policy: temporaries, HBM traffic and the time of
each roofline limit are a + b * samples, with a of the weights, b of the
activations, and neither negative. Then

- fewer samples per device are never faster;
- t samples take at least min(1, t / s) of what s samples take.

Temporaries are also compared across meshes and policies: a larger tensor axis,
or a policy that stores more, takes at least as much. Meshes differ in buffers
for gathered weights, which `MARGIN` covers.

D model width, F feed-forward width, H head width, K key/value heads, L text
length, N query heads.
"""

import dataclasses
from collections.abc import Mapping

from fusar_jax.model.config import FusarConfig
from fusar_jax.planning.chips import Slice
from fusar_jax.planning.search import KEEPS, Choice
from fusar_jax.training.device_mesh import WeightBytes

# A choice is left out if its estimate exceeds the HBM by this factor.
MARGIN = 1.1
_BF16 = 2


@dataclasses.dataclass(frozen=True)
class Compiled:
  """What the compiler reports of a choice.

  Attributes:
    choice: mesh, samples and remat policy.
    memory: bytes of one device; 0 if unknown.
    hbm: bytes that one device reads and writes in a step; 0 if it does not fit.
    speed: samples/s of the slice; 0 if it does not fit.
  """

  choice: Choice
  memory: float
  hbm: float = 0.0
  speed: float = 0.0


def stored_bytes(model: FusarConfig, length: int) -> dict[str, float]:
  """Returns a lower bound on the bytes stored per sample, by remat policy.

  Every policy stores the input of each decoder layer, L x D. All but "full"
  also store the products that the backward pass needs: queries, keys, values,
  output projection, gate and up projection.
  """
  d = model.decoder
  rows = length * d.layers * _BF16
  inputs = float(rows * d.hidden_size)
  attention = (d.heads + 2 * d.kv_heads) * d.head_dim + d.hidden_size
  products = rows * (attention + 2 * d.intermediate_size)
  return {policy: inputs + products * (policy != "full") for policy in KEEPS}


class Estimate:
  """Lower bounds on memory, upper bounds on speed; both learn."""

  def __init__(
    self, where: Slice, weights: WeightBytes, stored: Mapping[str, float]
  ):
    """Starts without compiled choices.

    Args:
      where: the slice.
      weights: bytes of parameters and optimizer state on all devices.
      stored: bytes per sample that a policy stores at least; zeros without a
        backward pass through the decoder.
    """
    self._where, self._weights, self._stored = where, weights, stored
    self._compiled: list[Compiled] = []

  def learn(self, compiled: Compiled) -> None:
    self._compiled.append(compiled)

  def memory(self, choice: Choice) -> float:
    """Returns the bytes that one device needs at least, in estimate."""
    samples = choice.samples
    stored = self._stored[choice.remat]
    least = float(samples * stored)
    for c in self._compiled:
      if not c.memory or not _no_harder(c.choice, choice):
        continue
      temporaries = max(c.memory - self._held(c.choice), 0.0)
      other = c.choice.samples
      least = max(
        least,
        temporaries * float(min(1, samples / other))
        + stored * float(max(0, samples - other)),
      )
    return self._held(choice) + least

  def refine(self, choice: Choice, optimistic: float) -> tuple[float, float]:
    """Returns (bound, expected) samples/s; zeros if the choice cannot fit."""
    if self.memory(choice) > MARGIN * self._where.chip.memory:
      return 0.0, 0.0
    bound = min(optimistic, self.speed(choice))
    return bound, self.expected(choice, bound)

  def speed(self, choice: Choice) -> float:
    """Returns samples/s that a choice does not exceed; infinity if unknown."""
    where, bound = self._where, float("inf")
    for c in self._compiled:
      same = (c.choice.mesh, c.choice.remat) == (choice.mesh, choice.remat)
      if not same or not c.speed:
        continue
      if c.choice.samples >= choice.samples:
        bound = min(bound, c.speed)
      else:
        seconds = c.hbm / where.chip.bandwidth
        bound = min(bound, choice.samples * where.devices / seconds)
    return bound

  def expected(self, choice: Choice, bound: float) -> float:
    """Returns a guess of samples/s, to order choices by; at most `bound`.

    HBM traffic of activations: of the nearest compiled policy. Traffic of
    weights: each layer is read for the forward and the backward pass, and
    written before if it is gathered.
    """
    known = [c for c in self._compiled if c.hbm]
    if not known or not bound:
      return bound

    def distance(c: Compiled) -> tuple[int, int]:
      here = KEEPS.index(choice.remat)
      return (
        abs(KEEPS.index(c.choice.remat) - here),
        c.choice.mesh != choice.mesh,
      )

    near = min(known, key=distance)
    rest = max(near.hbm - self._moved(near.choice), 0.0)
    hbm = self._moved(choice) + rest * float(
      choice.samples / near.choice.samples
    )
    seconds = hbm / self._where.chip.bandwidth
    return min(bound, float(choice.samples * self._where.devices) / seconds)

  def _held(self, choice: Choice) -> float:
    _, fsdp, tensor = choice.mesh
    return self._weights.all / (fsdp * tensor)

  def _moved(self, choice: Choice) -> float:
    _, fsdp, tensor = choice.mesh
    return (4 if fsdp > 1 else 2) * self._weights.layers / tensor


def _no_harder(known: Choice, choice: Choice) -> bool:
  """Whether a sample of `known` takes no more temporaries than of `choice`."""
  return known.mesh[2] <= choice.mesh[2] and KEEPS.index(
    known.remat
  ) <= KEEPS.index(choice.remat)
