"""Map tiles of a scene, made when they are asked for.

Level k shows 2^k x 2^k pixels of the scene as one; a tile has 256 x 256 pixels,
or less at the right and lower borders. A tile is what `geo.tiles.stretched`
gives for its window; of large scenes, levels from 2 come from an overview.
"""

import io
import math
import threading
from collections import OrderedDict
from pathlib import Path

import numpy as np
from PIL import Image

from fusar_jax.serving.limits import RequestError
from fusar_jax.serving.scene_overview import BASE, Overview, reduced
from fusar_jax.serving.scenes import Scene

SIDE = 256
# Scenes of more pixels get an overview.
_SMALL = 2**21
# Tiles that are kept, about 60 kB each.
_KEPT = 256


class SceneTiles:
  """Tiles of one scene; safe for threads.

  Attributes:
    levels: number of levels; the last one shows the scene in one tile.
  """

  def __init__(self, scene: Scene, folder: Path):
    """See the class.

    Args:
      scene: whose tiles they are.
      folder: for temporary files.
    """
    self._scene = scene
    height, width = scene.size
    self.levels = 1 + max(0, math.ceil(math.log2(max(height, width) / SIDE)))
    self._kept: OrderedDict[tuple[int, int, int], bytes] = OrderedDict()
    self._lock = threading.Lock()
    large = height * width > _SMALL
    self._overview = Overview(scene, folder) if large else None

  @property
  def progress(self) -> float:
    """Share of the overview that is complete, 0..1."""
    return 1.0 if self._overview is None else self._overview.progress

  @property
  def failure(self) -> str | None:
    """Why the overview could not be completed, or None."""
    return self._overview and self._overview.failure

  def tile(self, level: int, x: int, y: int) -> bytes:
    """Returns a tile as PNG.

    Args:
      level: 0 is the scene's own pixels.
      x, y: column and row of the tile.

    Raises:
      RequestError: 404, there is no such tile, or the scene was dropped.
      ValueError: damaged data.
    """
    shape = self._shape(level, x, y)
    key = (level, x, y)
    with self._lock:
      if (kept := self._kept.get(key)) is not None:
        self._kept.move_to_end(key)
        return kept
    # Before the pixels: the overview may grow meanwhile.
    complete = self.is_complete(level)
    content = _png(
      self._pixels(level, x, y, shape), len(self._scene.stretches) == 1
    )
    if complete:
      with self._lock:
        self._kept[key] = content
        while len(self._kept) > _KEPT:
          self._kept.popitem(last=False)
    return content

  def is_complete(self, level: int) -> bool:
    """Whether a level's tiles show all there is."""
    return level < BASE or self.progress == 1

  def _shape(self, level, x, y) -> tuple[int, int]:
    if 0 <= level < self.levels and min(x, y) >= 0:
      height, width = reduced(self._scene.size, level)
      shape = min(SIDE, height - y * SIDE), min(SIDE, width - x * SIDE)
      if min(shape) > 0:
        return shape
    raise RequestError(404, f"no tile {level}/{x}/{y} of this scene.")

  def _pixels(self, level, x, y, shape) -> np.ndarray:
    top, left = y * SIDE, x * SIDE
    if self._overview is not None and level >= BASE:
      return self._overview.pixels(level, top, left, shape)
    step = 1 << level
    window = (left, top, left + shape[1], top + shape[0])
    return self._scene.pixels([side * step for side in window], shape)


def _png(pixels: np.ndarray, is_grey: bool) -> bytes:
  file = io.BytesIO()
  image = Image.fromarray(pixels[..., 0] if is_grey else pixels)
  image.save(file, "PNG", compress_level=1)
  return file.getvalue()
