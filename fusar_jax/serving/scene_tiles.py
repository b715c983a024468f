"""Map tiles of a scene, made when they are asked for.

Level k shows 2^k x 2^k pixels of the scene as one; a tile has 256 x 256 pixels,
or less at the right and lower borders. Up to level 3 a tile is what
`geo.tiles.stretched` gives for its window. Beyond, that would read much of the
scene for each tile: these tiles average the intensities of level 3, which a
thread computes once, from top to bottom, when a scene is opened.
"""

import io
import math
import threading
from collections import OrderedDict

import numpy as np
from PIL import Image

from fusar_jax.geo import quantities
from fusar_jax.serving.limits import RefusedError
from fusar_jax.serving.scenes import Scene

SIDE = 256
# The level of the overview, and its source pixels that are read at a time.
BASE = 3
_CHUNK = 1024
# Tiles that are kept, about 60 kB each.
_KEPT = 256


class SceneTiles:
  """Tiles of one scene; safe for threads.

  Attributes:
    levels: number of levels; the last one shows the scene in one tile.
  """

  def __init__(self, scene: Scene):
    self._scene = scene
    height, width = scene.size
    self.levels = 1 + max(0, math.ceil(math.log2(max(height, width) / SIDE)))
    self._kept: OrderedDict[tuple[int, int, int], bytes] = OrderedDict()
    self._lock = threading.Lock()
    self._rows = 0
    shape = _reduced(scene.size, BASE)
    self._shape = shape
    self._power = self._valid = None
    self._failure: str | None = None
    if self.levels > BASE + 1:
      bands = len(scene.stretches)
      self._power = np.zeros((bands, *shape), np.float32)
      self._valid = np.zeros(shape, bool)
      threading.Thread(target=self._work, name="overview", daemon=True).start()

  @property
  def progress(self) -> float:
    """Share of the overview that is complete, 0..1."""
    if self._power is None:
      return 1.0
    return self._rows / self._shape[0]

  @property
  def failure(self) -> str | None:
    """Why the overview could not be completed, or None."""
    return self._failure

  def tile(self, level: int, x: int, y: int) -> bytes:
    """Returns a tile as PNG.

    Args:
      level: 0 is the scene's own pixels.
      x, y: column and row of the tile.

    Raises:
      RefusedError: 404, there is no such tile, or the scene was dropped.
      ValueError: damaged data.
    """
    height, width = _reduced(self._scene.size, level)
    if not (
      0 <= level < self.levels
      and 0 <= x * SIDE < width
      and 0 <= y * SIDE < height
    ):
      raise RefusedError(404, f"no tile {level}/{x}/{y} of this scene.")
    key = (level, x, y)
    with self._lock:
      if (kept := self._kept.get(key)) is not None:
        self._kept.move_to_end(key)
        return kept
    # Before the pixels: what is read meanwhile may be in them.
    complete = level <= BASE or self.progress == 1
    content = _png(self.pixels(level, x, y), len(self._scene.stretches) == 1)
    if complete:
      with self._lock:
        self._kept[key] = content
        while len(self._kept) > _KEPT:
          self._kept.popitem(last=False)
    return content

  def pixels(self, level: int, x: int, y: int) -> np.ndarray:
    """Returns uint8[h, w, 3] of a tile, as `tile`."""
    height, width = _reduced(self._scene.size, level)
    shape = min(SIDE, height - y * SIDE), min(SIDE, width - x * SIDE)
    step = 1 << level
    if level > BASE:
      return self._averaged(1 << (level - BASE), x, y, shape)
    left, top = x * SIDE * step, y * SIDE * step
    window = (left, top, left + shape[1] * step, top + shape[0] * step)
    return self._scene.pixels(window, shape)

  def _averaged(self, step, x, y, shape) -> np.ndarray:
    """Averages the overview's intensities over step x step of its pixels."""
    assert self._power is not None
    assert self._valid is not None
    top, left = y * SIDE * step, x * SIDE * step
    rows = slice(top, top + shape[0] * step)
    cols = slice(left, left + shape[1] * step)
    valid = _blocks(self._valid[rows, cols].astype(np.float32), shape, step)
    # As everywhere in `geo.rasters`: valid if at least half of it is.
    there = valid >= 0.5
    planes = []
    for stretch, power in zip(self._scene.stretches, self._power, strict=True):
      sums = _blocks(power[rows, cols], shape, step)
      means = np.divide(sums, valid, out=np.ones_like(sums), where=there)
      values = quantities.from_power(means, stretch.quantity)
      planes.append(stretch.apply(values, there))
    return np.stack(planes * (3 // len(planes)), axis=-1)

  def _work(self) -> None:
    try:
      self._fill()
    except (ValueError, OSError, MemoryError) as error:  # Damaged data.
      self._failure = str(error).replace(str(self._scene.path), "the image")

  def _fill(self) -> None:
    assert self._power is not None
    assert self._valid is not None
    bands = [stretch.band for stretch in self._scene.stretches]
    step, chunk = 1 << BASE, _CHUNK >> BASE
    height, width = self._shape
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
          place = (slice(top, top + rows), slice(left, left + cols))
          power = quantities.to_power(values, raster.detected) * valid
          self._power[:, *place], self._valid[place] = power, valid
        self._rows = top + rows


def _reduced(size, level) -> tuple[int, int]:
  """Returns (h, w) of a scene at a level; the last pixels may reach beyond."""
  step = 1 << max(level, 0)
  return -(-size[0] // step), -(-size[1] // step)


def _blocks(plane: np.ndarray, shape, step) -> np.ndarray:
  """Returns float32[shape], means of step x step; beyond the border is 0."""
  full = np.zeros((shape[0] * step, shape[1] * step), np.float32)
  full[: plane.shape[0], : plane.shape[1]] = plane
  return full.reshape(shape[0], step, shape[1], step).mean(axis=(1, 3))


def _png(pixels: np.ndarray, is_grey: bool) -> bytes:
  file = io.BytesIO()
  image = Image.fromarray(pixels[..., 0] if is_grey else pixels)
  image.save(file, "PNG", compress_level=1)
  return file.getvalue()
