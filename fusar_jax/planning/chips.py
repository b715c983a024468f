"""Published rates of TPU chips, and TPU slices by their Cloud TPU names.

Peak, memory and memory bandwidth: Cloud TPU documentation, "TPU v4", "TPU v5e",
"TPU v5p", "TPU v6e", "TPU7x" (cloud.google.com/tpu/docs). Links: "How to Scale
Your Model", chapter "How to Think About TPUs" (jax-ml.github.io/scaling-book),
which gives the rate of one link in one direction; the Cloud documentation gives
the rounded sum of all links in both directions (v5e: 4 ports, 400 GB/s). For
TPU7x only that sum was found, 1200 GB/s. It equals that of v5p, which also has
6 ports: the rate of v5p's links is assumed.

Data-center network between slices, per chip: v5p as documented (50 Gbps), v5e
and v6e as the documented rate of a pod over its 256 chips (6.4 and 25.6 Tbps).
The rates of v4 and TPU7x are not known here.

A JAX device is a chip, but a chiplet of TPU7x: two a chip, each with half the
compute, memory and bandwidth. Rates here are those of a device. Both devices of
a chip share its links. The connection between them has no rate here, so that
traffic on it takes no time.

Most slices are meshes without wrap-around links. The wrap-around links of v4
and v5p are switches between cubes of 4x4x4 chips: a slice of full cubes wraps
around along all three axes, a smaller slice along none, even if an axis has 4
chips (v5p-64 is 2x4x4). Source: the page "TPU v5p" above, which documents a 3D
torus for slices of one cube or more, and the same chapter. TPU7x counts as v5p.
v5e and v6e wrap around only along an axis with the 16 chips of a full pod.
"""

import dataclasses
import math
import re

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
  """Peak rates of one device, and links of one chip.

  Attributes:
    name: "v5e".
    peak: bf16 FLOP/s of a device.
    memory: bytes of HBM of a device.
    bandwidth: bytes/s of HBM of a device.
    link: bytes/s of one interconnect link of a chip, one way.
    axes: number of torus axes, with two links each.
    ring: length of an axis with wrap-around links: in three dimensions along
      all axes (slices of full cubes) or none, in two along each axis
      separately.
    cores: TensorCores per chip; the names of three-dimensional slices count
      them.
    devices: JAX devices per chip.
    network: bytes/s of the data-center network of a chip, one way; None if
      unknown.
  """

  name: str
  peak: float
  memory: int
  bandwidth: float
  link: float
  axes: int
  ring: int
  cores: int
  devices: int = 1
  network: float | None = None


CHIPS = {
  chip.name: chip
  for chip in (
    Chip("v4", 275e12, 32 * GIB, 1228e9, 45e9, axes=3, ring=4, cores=2),
    Chip(
      "v5e",
      197e12,
      16 * GIB,
      819e9,
      45e9,
      axes=2,
      ring=16,
      cores=1,
      network=6.4e12 / 8 / 256,
    ),
    Chip(
      "v5p",
      459e12,
      95 * GIB,
      2765e9,
      90e9,
      axes=3,
      ring=4,
      cores=2,
      network=50e9 / 8,
    ),
    Chip(
      "v6e",
      918e12,
      32 * GIB,
      1640e9,
      90e9,
      axes=2,
      ring=16,
      cores=1,
      network=25.6e12 / 8 / 256,
    ),
    # Of a chip: 2307 TFLOP/s, 192 GiB, 7380 GB/s.
    Chip(
      "tpu7x",
      2307e12 / 2,
      192 * GIB // 2,
      7380e9 / 2,
      90e9,
      axes=3,
      ring=4,
      cores=2,
      devices=2,
    ),
  )
}

# {axes: {chips: chips along each axis}}.
_SHAPES = {
  2: {
    1: (1, 1),
    4: (2, 2),
    8: (2, 4),
    16: (4, 4),
    32: (4, 8),
    64: (8, 8),
    128: (8, 16),
    256: (16, 16),
  },
  3: {
    4: (2, 2, 1),
    8: (2, 2, 2),
    16: (2, 2, 4),
    32: (2, 4, 4),
    64: (4, 4, 4),
    128: (4, 4, 8),
    256: (4, 8, 8),
  },
}


@dataclasses.dataclass(frozen=True)
class Slice:
  """A TPU slice, or several equal ones connected by the data-center network.

  Attributes:
    name: as requested, e.g. "v5e-16".
    chip: type of its chips.
    shape: chips along each axis of the torus of one slice.
    count: slices.
  """

  name: str
  chip: Chip
  shape: tuple[int, ...]
  count: int = 1

  @property
  def chips(self) -> int:
    """Chips of all slices."""
    return math.prod(self.shape) * self.count

  @property
  def devices(self) -> int:
    """JAX devices, and partitions of a program."""
    return self.chips * self.chip.devices

  @property
  def topology(self) -> str:
    """Name for `jax.experimental.topologies`, e.g. "v5e:4x4"."""
    return f"{self.chip.name}:{'x'.join(map(str, self.shape))}"

  def links(self, axis: int) -> int:
    """Returns the links of every chip to its neighbours along an axis."""
    length = self.shape[axis]
    if length == 1:
      return 0
    # 3D: all axes wrap around or none; 2D: each axis separately.
    lengths = self.shape if self.chip.axes == 3 else (length,)
    return 2 if all(n % self.chip.ring == 0 for n in lengths) else 1


def slices(chip: Chip) -> list[str]:
  """Returns the names of all supported slices of a chip type."""
  return [f"{chip.name}-{n * chip.cores}" for n in _SHAPES[chip.axes]]


def find_slices(name: str, count: int = 1) -> Slice:
  """Returns `count` slices of a name; see `find_slice`.

  Raises:
    ValueError: also if slices of this chip cannot be planned together.
  """
  where = find_slice(name)
  if count < 1:
    raise ValueError(f"slices {count}: expected 1 or more.")
  if count > 1 and where.chip.network is None:
    known = ", ".join(c.name for c in CHIPS.values() if c.network)
    raise ValueError(
      f"slices {count}: the data-center network of {where.chip.name} has no"
      f" known rate; plan one slice, or several of {known}."
    )
  return dataclasses.replace(where, count=count)


def find_slice(name: str) -> Slice:
  """Returns a slice by its name, "v5e-16", or by its shape, "v5e:4x4".

  As in the Cloud TPU documentation, the number counts TensorCores for v4, v5p
  and tpu7x (v5p-16 has 8 chips) and chips for v5e and v6e.

  Raises:
    ValueError: unknown chip or size; the message lists the supported ones.

  Example:
    >>> find_slice("v5p-16").topology, find_slice("v5e-16").topology
    ('v5p:2x2x2', 'v5e:4x4')
    >>> find_slice("tpu7x-8").chips, find_slice("tpu7x-8").devices
    (4, 8)
  """
  match = re.fullmatch(r"(\w+?)(?:-(\d+)|:(\d+(?:x\d+)+))", name)
  if not match or match[1] not in CHIPS:
    raise ValueError(
      f"topology {name!r}: expected a slice such as v5e-16 or v5e:4x4, of"
      f" {', '.join(CHIPS)}."
    )
  chip = CHIPS[match[1]]
  shapes = _SHAPES[chip.axes]
  if match[3]:
    shape = tuple(map(int, match[3].split("x")))
    if len(shape) != chip.axes or not 1 <= math.prod(shape) <= max(shapes):
      raise ValueError(
        f"topology {name!r}: {chip.name} has {chip.axes} axes, and at most"
        f" {max(shapes)} chips can be planned for."
      )
    return Slice(name, chip, shape)
  chips, rest = divmod(int(match[2]), chip.cores)
  if rest or chips not in shapes:
    raise ValueError(
      f"topology {name!r}: known slices are {', '.join(slices(chip))}."
    )
  return Slice(name, chip, shapes[chips])
