"""Roofline bound on the speed of a program, from published rates.

The roofline has three limits: matrix products at peak FLOP/s, HBM traffic at
the memory bandwidth, and collectives at the rate of the links they use; between
slices a fourth, the data-center network. The roofline step takes the maximum of
the times, which assumes complete overlap. The serial step overlaps no
collective: max(compute, HBM) + links + network. Both are lower bounds on time,
so both MFUs are upper bounds: no product runs at peak throughout.

Useful FLOPs over executed FLOPs is no bound. It is a constant of the remat
policy and the model, and equals the MFU of a compute-bound step.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from jax.sharding import Mesh

from fusar_jax.planning.chips import Slice
from fusar_jax.planning.flops import Work
from fusar_jax.planning.hlo import Collective, Traffic

COMPUTE, HBM, LINKS = "compute", "HBM", "interconnect"
NETWORK = "network between slices"


@dataclasses.dataclass(frozen=True)
class CollectiveCost:
  """All collectives of one kind over the same axes of the torus.

  Attributes:
    kind: "all-gather", ...
    axes: numbers of the torus axes.
    times: executions per step.
    bytes: received by one device per step.
    seconds: per step.
    started: asynchronous, started before they are awaited.
  """

  kind: str
  axes: tuple[int, ...]
  times: int
  bytes: float
  seconds: float
  started: bool = False


@dataclasses.dataclass(frozen=True)
class Prediction:
  """Roofline bound on the speed of a program.

  Attributes:
    where: the slice.
    samples: processed by one run of the program on all chips.
    useful, executed: FLOPs of one device in one run.
    hbm: bytes of HBM that one device reads and writes.
    collectives: collectives between the devices of a slice.
    network: bytes that one device hands to the network between slices in one
      run. With more than two slices the network carries more.
  """

  where: Slice
  samples: int
  useful: float
  executed: float
  hbm: float
  collectives: tuple[CollectiveCost, ...]
  network: float = 0.0

  @property
  def seconds(self) -> dict[str, float]:
    """Seconds of one run under each roofline limit."""
    chip = self.where.chip
    seconds = {
      COMPUTE: self.executed / chip.peak,
      HBM: self.hbm / chip.bandwidth,
      LINKS: sum(e.seconds for e in self.collectives),
    }
    if chip.network and self.where.count > 1:
      seconds[NETWORK] = self.network * chip.devices / chip.network
    return seconds

  @property
  def bound(self) -> str:
    """The limit with the longest time."""
    seconds = self.seconds
    return max(seconds, key=seconds.__getitem__)

  @property
  def step_seconds(self) -> float:
    return max(self.seconds.values())

  @property
  def serial_seconds(self) -> float:
    """Seconds of a step without overlap of collectives."""
    seconds = self.seconds
    exchanged = seconds[LINKS] + seconds.get(NETWORK, 0.0)
    return max(seconds[COMPUTE], seconds[HBM]) + exchanged

  @property
  def samples_per_second(self) -> float:
    return self.samples / self.step_seconds

  @property
  def useful_share(self) -> float:
    """Useful over executed FLOPs; the rest is recomputation or padding."""
    return self.useful / self.executed

  @property
  def mfu(self) -> float:
    """Model FLOPs utilisation of the roofline step: an upper bound."""
    return self.useful / self.step_seconds / self.where.chip.peak

  @property
  def serial_mfu(self) -> float:
    """Model FLOPs utilisation of the serial step: also an upper bound."""
    return self.useful / self.serial_seconds / self.where.chip.peak


def predict(
  where: Slice,
  mesh: Mesh,
  samples: int,
  work: Sequence[Work],
  traffic: Traffic,
) -> Prediction:
  """Returns the roofline bound of a compiled program.

  Args:
    where: the slice.
    mesh: its devices in the order of the program's partition numbers.
    samples: processed by one run on all chips.
    work: FLOPs of one sample.
    traffic: of one device in one run.
  """
  share = samples / where.devices
  return Prediction(
    where,
    samples,
    useful=share * sum(w.useful for w in work),
    executed=share * sum(w.executed for w in work),
    hbm=traffic.hbm,
    collectives=_collective_costs(where, mesh, traffic.collectives),
    network=traffic.network,
  )


def _collective_costs(where, mesh, collectives) -> tuple[CollectiveCost, ...]:
  coordinates = [device.coords for device in mesh.devices.flat]
  sums: dict[tuple, tuple[int, float, float]] = {}
  for c in collectives:
    if not c.bytes:
      continue
    axes, links = route(where, coordinates, c)
    key = c.kind, axes, c.started
    times, received, seconds = sums.get(key, (0, 0.0, 0.0))
    sums[key] = (
      times + c.times,
      received + c.total,
      seconds
      + c.total
      * _over_links(where, coordinates, c)
      / (links * where.chip.link),
    )
  return tuple(
    CollectiveCost(kind, axes, *row, started)
    for (kind, axes, started), row in sorted(
      sums.items(), key=lambda i: -i[1][2]
    )
  )


def _over_links(where: Slice, coordinates, collective: Collective) -> float:
  """Returns bytes that a chip receives over links per byte of one device.

  A chip with one device receives what its device does. Two devices of one group
  need the shards of other chips once, and those of each other not over links;
  two devices of different groups receive twice as much over the same links.

  Example: all eight devices of four chips gather. A device receives seven
  shards; its chip receives two shards of each of three chips: 6 / 7.
  """
  devices, groups = where.chip.devices, collective.groups
  if collective.kind == "collective-permute":
    apart = sum(
      tuple(coordinates[a]) != tuple(coordinates[b]) for a, b in groups
    )
    return devices * apart / max(len(groups), 1)
  size = len(groups[0])
  chips = len({tuple(coordinates[p]) for p in groups[0]})
  if size == 1:
    return 0.0
  factor = devices * (chips - 1) / (size - 1)
  # Nothing of an exchange is needed by both devices of a chip.
  return factor * size / chips if collective.kind == "all-to-all" else factor


def gathering_rate(where: Slice, mesh: Mesh, axis: str) -> float:
  """Returns the bytes/s a device can receive from its group on an axis."""
  numbers = np.arange(mesh.size).reshape(mesh.devices.shape)
  groups = np.moveaxis(numbers, mesh.axis_names.index(axis), -1)
  groups = groups.reshape(-1, mesh.shape[axis])
  coordinates = [device.coords for device in mesh.devices.flat]
  gather = Collective("all-gather", tuple(map(tuple, groups)), 1, 0.0)
  share = _over_links(where, coordinates, gather)
  rate = route(where, coordinates, gather)[1] * where.chip.link
  return rate / share if share else math.inf


def route(
  where: Slice, coordinates: Sequence[Sequence[int]], collective: Collective
) -> tuple[tuple[int, ...], int]:
  """Returns (torus axes, links) by which a chip receives from its group.

  The chip with the fewest links limits the group: on an axis without
  wrap-around links the chips at both ends have one link.

  Example: all 16 chips of v5e-16 communicate over both axes, each 4 chips long
  and without wrap-around: 2 links.
  """
  groups = collective.groups
  if collective.kind == "collective-permute":
    spanned = {
      axis
      for pair in groups
      for axis in range(len(where.shape))
      if len({coordinates[p][axis] for p in pair}) > 1
    }
    whole = dict.fromkeys(spanned, True)
  else:
    whole = {}
    for axis, length in enumerate(where.shape):
      seen = len({coordinates[p][axis] for p in groups[0]})
      if seen > 1:
        whole[axis] = seen == length
  # A part of a ring has no wrap-around link.
  links = sum(where.links(a) if full else 1 for a, full in whole.items())
  return tuple(sorted(whole)), max(links, 1)
