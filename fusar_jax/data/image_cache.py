"""LRU cache of decoded and resized images, shared by epochs and tasks."""

import collections
import threading

import numpy as np

from fusar_jax.data.examples import decode
from fusar_jax.data.records import File
from fusar_jax.model.config import FusarConfig


class ImageCache:
  """Drop-in replacement for `decode` with an LRU cache of limited size.

  Thread-safe. Files are assumed not to change during a run.
  """

  def __init__(self, max_bytes: int):
    self._max_bytes = max_bytes
    self._held = 0
    self._images = collections.OrderedDict()
    self._lock = threading.Lock()

  def __call__(
    self, path: File, config: FusarConfig
  ) -> tuple[np.ndarray, tuple[int, int]]:
    """Returns (uint8[H, W, 3] at model size, (h, w) of the file)."""
    with self._lock:
      if path in self._images:
        self._images.move_to_end(path)
        return self._images[path]
    image, original = decode(path, config)
    image.setflags(write=False)  # Shared.
    with self._lock:
      if path not in self._images:
        self._images[path] = image, original
        self._held += image.nbytes
      while self._held > self._max_bytes:
        _, (dropped, _) = self._images.popitem(last=False)
        self._held -= dropped.nbytes
    return image, original
