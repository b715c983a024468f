"""FLOPs of convolutions in a compiled program, without padding and dilation.

The TPU compiler expresses every matrix product as a convolution. A batched
product becomes a convolution with a window in which only one value at a time
falls on input. The other positions fall on padding or dilation and cost
nothing.
"""

import re

from fusar_jax.planning.hlo_text import Instruction


def convolution_flops(i: Instruction, left: tuple, right: tuple) -> float:
  """Returns the FLOPs of a convolution.

  Args:
    i: the convolution instruction.
    left, right: shapes of its operands.
  """
  inputs, kernel, result = i.match(r"dim_labels=(\w+)_(\w+)->(\w+)").groups()
  found = re.search(r"window=\{([^}]*)\}", i.rest)
  window = dict(part.split("=") for part in found[1].split()) if found else {}
  flops = 2.0 * right[kernel.index("i")]
  for name, size in zip(result, i.arrays[0].shape, strict=True):
    if name in "bf":
      flops *= size
      continue

    def field(what, default, axis=int(name)):
      values = window.get(what)
      return values.split("x")[axis] if values else default

    flops *= _meetings(
      size,
      left[inputs.index(name)],
      taps=int(field("size", "1")),
      stride=int(field("stride", "1")),
      before=int(field("pad", "0_0").split("_")[0]),
      spread=int(field("lhs_dilate", "1")),
      reach=int(field("rhs_dilate", "1")),
    )
  return flops


def _meetings(
  results: int,
  values: int,
  *,
  taps: int,
  stride: int,
  before: int,
  spread: int,
  reach: int,
) -> int:
  """Returns the (result, tap) pairs of one axis that fall on input values."""
  last = (values - 1) * spread
  places = (
    result * stride + tap * reach - before
    for result in range(results)
    for tap in range(taps)
  )
  return sum(0 <= place <= last and place % spread == 0 for place in places)
