"""The overview of a large scene, for tiles that show much of it.

Averaging intensities, as `geo.rasters` does, reads all pixels below a tile. A
thread reads them once, from top to bottom, and keeps the averages of 4 x 4
pixels in a temporary file and those of 16 x 16 in memory. What is not read yet
is black.
"""

import tempfile
import threading
from pathlib import Path

import numpy as np

from fusar_jax.geo import quantities
from fusar_jax.serving.scenes import Scene

# Levels, log2 of the scene's pixels per pixel.
BASE, TOP = 2, 4
# Source pixels along the sides of what is read at a time.
_CHUNK = 2048


class Overview:
  """Averages of one scene, which a thread completes.

  Attributes:
    failure: why it cannot be completed, or None.
  """

  def __init__(self, scene: Scene, folder: Path):
    """Starts the thread.

    Args:
      scene: with one stretch or three.
      folder: for a temporary file of 4 bytes for 16 pixels of each band.
    """
    self.failure: str | None = None
    self._scene, self._rows = scene, 0
    bands = len(scene.stretches)
    shape = (bands, *reduced(scene.size, BASE))
    # Intensities; below 0 where there are none. The file has no name, and ends
    # with the array.
    with tempfile.TemporaryFile(dir=folder) as file:
      base = np.memmap(file, np.float32, "w+", shape=shape)
    top = np.full((bands, *reduced(scene.size, TOP)), -1, np.float32)
    self._levels = {BASE: base, TOP: top}
    threading.Thread(target=self._work, name="overview", daemon=True).start()

  @property
  def progress(self) -> float:
    """Share that is complete, 0..1."""
    return self._rows / self._levels[BASE].shape[1]

  def pixels(
    self, level: int, top: int, left: int, shape: tuple[int, int]
  ) -> np.ndarray:
    """Returns uint8[h, w, 3], a part of the scene at a level.

    Args:
      level: BASE or above.
      top, left: in pixels of the level.
      shape: (h, w).
    """
    start = TOP if level >= TOP else BASE
    step = 1 << (level - start)
    rows = slice(top * step, (top + shape[0]) * step)
    cols = slice(left * step, (left + shape[1]) * step)
    done = self._rows
    power = self._levels[start][:, rows, cols]
    if start == BASE:
      # Rows that are not read yet are 0 in the file.
      power = np.array(power)
      power[:, max(0, done - rows.start) :] = -1
    means = _averaged(power, shape, step)
    planes = []
    for stretch, mean in zip(self._scene.stretches, means, strict=True):
      values = quantities.from_power(np.maximum(mean, 0), stretch.quantity)
      planes.append(stretch.apply(values, mean >= 0))
    return np.stack(planes * (3 // len(planes)), axis=-1)

  def _work(self) -> None:
    try:
      self._fill()
    except (ValueError, OSError, MemoryError) as error:  # Damaged data.
      self.failure = str(error).replace(str(self._scene.path), self._scene.name)

  def _fill(self) -> None:
    base, coarse = self._levels[BASE], self._levels[TOP]
    bands = [stretch.band for stretch in self._scene.stretches]
    step, chunk = 1 << BASE, _CHUNK >> BASE
    ratio = 1 << (TOP - BASE)
    height, width = base.shape[1:]
    # A handle of its own, so that tiles need not wait for it.
    with self._scene.reopened() as raster:
      for top in range(0, height, chunk):
        rows = min(chunk, height - top)
        for left in range(0, width, chunk):
          if self._scene.closed:
            return
          cols = min(chunk, width - left)
          window = (top * step, left * step, rows * step, cols * step)
          values, valid = raster.read(window, bands, (rows, cols))
          power = quantities.to_power(values, raster.detected)
          power = np.where(valid, power, np.float32(-1))
          base[:, top : top + rows, left : left + cols] = power
          shape = -(-rows // ratio), -(-cols // ratio)
          y, x = top // ratio, left // ratio
          coarse[:, y : y + shape[0], x : x + shape[1]] = _averaged(
            power, shape, ratio
          )
        self._rows = top + rows


def reduced(size: tuple[int, int], level: int) -> tuple[int, int]:
  """Returns (h, w) of a scene at a level; the last pixels may reach beyond."""
  step = 1 << level
  return -(-size[0] // step), -(-size[1] // step)


def _averaged(power: np.ndarray, shape, step: int) -> np.ndarray:
  """Returns float32[bands, h, w], means of step x step; -1 where invalid.

  As in `geo.rasters`, at least half of a mean must be valid.
  """
  if step == 1:
    return power
  full = np.full((len(power), shape[0] * step, shape[1] * step), -1, np.float32)
  full[:, : power.shape[1], : power.shape[2]] = power
  blocks = full.reshape(len(power), shape[0], step, shape[1], step)
  there = blocks >= 0
  count = there.sum(axis=(2, 4))
  sums = np.where(there, blocks, 0).sum(axis=(2, 4))
  return np.where(
    2 * count >= step * step, sums / np.maximum(count, 1), np.float32(-1)
  ).astype(np.float32)
