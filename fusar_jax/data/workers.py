"""Worker processes that build examples without importing JAX.

A forked process can deadlock in JAX's threads. Workers of Grain's `mp_prefetch`
import grain, which imports JAX, and a process spawned by `multiprocessing`
imports the user's main module; either may claim the accelerator. A worker is
therefore a plain `python -m` of this module. It reads pickled triplets from
stdin, writes pickled examples to stdout, and exits at end of input, even if its
parent was killed.
"""

import concurrent.futures
import dataclasses
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from fusar_jax.data.anchor_conditions import ALIGNED, AnchorCondition
from fusar_jax.data.chip_augmentation import augment_chip
from fusar_jax.data.examples import Example, build_example
from fusar_jax.data.image_cache import ImageCache
from fusar_jax.data.lengths import MAX_LENGTH
from fusar_jax.data.records import File
from fusar_jax.data.tokenizer import Tokenizer
from fusar_jax.data.triplets import Triplet
from fusar_jax.model.config import FusarConfig

# Of the augmentation of one row in one step; None: as it is.
Seed = tuple[int, ...] | None


@dataclasses.dataclass(frozen=True)
class Recipe:
  """Settings with which workers build examples; the same for an entire run.

  Attributes:
    tokenizer, config, with_answer, max_length, aux_targets, anchors: of
      `fusar_jax.data.examples.build_example`.
    cache_bytes: limit of the decoded-image cache, per process.
    chip_shift: of `augment_chip`, for rows that come with a seed.
  """

  tokenizer: Tokenizer
  config: FusarConfig
  with_answer: bool = True
  max_length: int = MAX_LENGTH
  aux_targets: bool = False
  anchors: AnchorCondition = ALIGNED
  cache_bytes: int = 256 << 20
  chip_shift: float = 0.0

  def builder(self):
    """Returns build(triplet, seed) -> Example, with a separate image cache.

    With a seed, the images of the row are augmented; None: they are not.
    """
    cache = ImageCache(self.cache_bytes)

    def build(triplet: Triplet, seed: Seed = None) -> Example:
      def read_image(path: File, config: FusarConfig):
        image, original = cache(path, config)
        if seed is not None:
          image = augment_chip(image, self.chip_shift, seed)
        return image, original

      return build_example(
        triplet,
        self.tokenizer,
        self.config,
        with_answer=self.with_answer,
        max_length=self.max_length,
        aux_targets=self.aux_targets,
        anchors=self.anchors,
        read_image=read_image,
      )

    return build


class Workers:
  """Pool of worker processes; `build` preserves the order of its rows."""

  def __init__(self, count: int, recipe: Recipe):
    self._recipe = recipe
    self._mine = threading.local()
    self._processes = []
    # One thread per process; it only waits for that process.
    self._threads = concurrent.futures.ThreadPoolExecutor(
      count, thread_name_prefix="data-worker", initializer=self._start
    )

  def build(
    self, triplets: Sequence[Triplet], seeds: Sequence[Seed] | None = None
  ) -> list[Example]:
    """Returns the examples; errors are those of `build_example`.

    Raises:
      RuntimeError: a worker died.
    """
    seeds = seeds or [None] * len(triplets)
    return list(self._threads.map(self._build_one, triplets, seeds))

  def close(self) -> None:
    """Stops the workers after their current example."""
    self._threads.shutdown(cancel_futures=True)
    for process in self._processes:
      process.stdin.close()
      process.stdout.close()
      process.wait()
    self._processes = []

  def _start(self) -> None:
    package = str(Path(__file__).resolve().parents[2])
    paths = [package, os.environ.get("PYTHONPATH", "")]
    process = subprocess.Popen(
      [sys.executable, "-m", "fusar_jax.data.workers"],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      # Without the terminal's Ctrl-C: the parent closes its workers.
      start_new_session=True,
      env={
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "OMP_NUM_THREADS": "1",
      },
    )
    self._processes.append(process)
    self._mine.process = process
    self._mine.fresh = True

  def _build_one(self, triplet: Triplet, seed: Seed) -> Example:
    process = self._mine.process
    try:
      if self._mine.fresh:
        _send(process.stdin, self._recipe)
        self._mine.fresh = False
      _send(process.stdin, (triplet, seed))
      result = pickle.load(process.stdout)
    except (OSError, EOFError, pickle.UnpicklingError):
      raise RuntimeError(
        f"{triplet.where}: the data worker died with exit code"
        f" {process.wait()} (-9: killed, most often for want of memory; lower"
        " data.num_workers). Its error is printed above."
      ) from None
    if isinstance(result, Exception):
      raise result
    return result


def _send(file, value) -> None:
  pickle.dump(value, file, protocol=pickle.HIGHEST_PROTOCOL)
  file.flush()


def _main() -> None:
  # A scheduler may signal all processes of a job; the parent decides.
  signal.signal(signal.SIGTERM, signal.SIG_IGN)
  # A stray print must not fall among the pickles.
  results = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
  os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
  try:
    build = pickle.load(sys.stdin.buffer).builder()
    while True:
      row = pickle.load(sys.stdin.buffer)
      try:
        result = build(*row)
      except Exception as error:
        result = error
      _send(results, result)
  except (EOFError, BrokenPipeError):
    pass  # The parent is done, or gone.


if __name__ == "__main__":
  # Under its real name: pickled classes must not belong to `__main__`.
  from fusar_jax.data import workers

  workers._main()
