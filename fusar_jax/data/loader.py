"""Data loader: triplets to batches of static shape, resumable.

Grain determines the order. It depends only on the seed and the global index, so
it is the same for any number of processes, workers and restarts. Every process
takes its slice of each global batch. Worker processes build the examples; this
module pads them.

A target positions, B batch, L text length.
"""

import hashlib
import math
from collections.abc import Iterator, Sequence

import grain
import numpy as np

from fusar_jax.data import sizes as sizes_lib
from fusar_jax.data.batch_order import batch_order
from fusar_jax.data.chip_augmentation import is_chip
from fusar_jax.data.example_sizes import measure_examples
from fusar_jax.data.loader_config import LoaderConfig
from fusar_jax.data.packing import pack, pack_by_image
from fusar_jax.data.padding import pad_batch
from fusar_jax.data.sizes import Sizes
from fusar_jax.data.tokenizer import Tokenizer
from fusar_jax.data.triplets import Triplet, raise_together
from fusar_jax.data.workers import Recipe, Seed, Workers
from fusar_jax.model.batch import Batch
from fusar_jax.model.config import FusarConfig


class Loader:
  """Iterates (Batch of numpy arrays, ids of its rows).

  Attributes:
    steps_per_epoch: batches that show every triplet at least once.
    most_patches: patches of the largest image.

  Batches continue across the end of an epoch, so none is short. Only the last
  batch of a finite loader may be short; its last rows are padding.

  Iteration starts at the position given to `set_state`, or where the previous
  iteration of this loader stopped. After the end it starts from the beginning.
  """

  def __init__(
    self,
    triplets: Sequence[Triplet],
    tokenizer: Tokenizer,
    model: FusarConfig,
    config: LoaderConfig,
  ):
    """Measures and checks every row.

    Raises:
      ValueError: bad rows (all reported together), or no rows.
    """
    if not triplets:
      raise ValueError("no triplets to load: the data set is empty.")
    recipe = Recipe(
      tokenizer=tokenizer,
      config=model,
      max_length=min(config.max_length, config.row_length or config.max_length),
      aux_targets=config.cell_weight > 0,
      anchors=config.anchors,
      cache_bytes=config.cache_bytes // max(1, config.num_workers),
      chip_shift=config.chip_shift,
    )
    self._triplets = config.anchors.arrange(triplets)
    self._sizes, problems = measure_examples(self._triplets, recipe)
    raise_together(problems, "bad rows")
    if config.chip_shift and not any(map(is_chip, self._triplets)):
      raise ValueError(
        "config.data.chip_shift is above 0, but no row is a chip (task"
        " classification, without boxes or with one around the entire image)."
      )
    self._model, self._config = model, config
    self._units = self._make_units()
    units = [self._row_sizes(unit) for unit in self._units]
    self._limits = Sizes.covering(units)
    self.most_patches = self._limits.patches
    # The last bucket is the size that these data need, not the upper limit.
    self._buckets = _buckets(config.buckets, self._limits.length, 64)
    self._answer_buckets = _buckets(
      config.answer_buckets, config.row_length or self._limits.answers, 32
    )
    # Per length: a second axis of shapes would multiply the programs.
    self._answers = {
      length: sizes_lib.bucket(
        max([0, *(u.answers for u in units if u.length <= length)]),
        self._answer_buckets,
        "answer tokens",
      )
      for length in self._buckets
    }
    self._windows = _windows_in(
      _buckets(config.patch_buckets, self._limits.patches, 1), self._sizes
    )
    mine = config.batch_size // config.process_count
    self._slices = [
      slice(k * mine, (k + 1) * mine) for k in range(config.process_count)
    ]
    self.steps_per_epoch = -(-len(units) // config.batch_size)
    self._settings = {
      "rows": len(self._triplets),
      "ids": _digest(t.id for t in self._triplets),
      "seed": config.seed,
      "shuffle": config.shuffle,
      "batch_size": config.batch_size,
      "pool_batches": config.pool_batches,
      **({"units": len(units)} if config.pack_by_image else {}),
    }
    self._order = batch_order(
      units,
      batch_size=config.batch_size,
      seed=config.seed,
      shuffle=config.shuffle,
      epochs=config.epochs,
      pool_batches=config.pool_batches,
    )
    self._workers = (
      Workers(config.num_workers, recipe) if config.num_workers else None
    )
    self._build = recipe.builder()
    threads = max(1, config.num_workers)
    self._dataset = self._order.map_with_index(self._batch).to_iter_dataset(
      grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads + 1)
    )
    self._iterator = None
    self._state = None

  def __iter__(self) -> Iterator[tuple[Batch, list[str]]]:
    if self._iterator is None:
      self._iterator = iter(self._dataset)
      if self._state is not None:
        self._iterator.set_state(self._state)
    iterator = self._iterator
    for item in iterator:
      self._state = iterator.get_state()
      yield item
    self._iterator = self._state = None

  def get_state(self) -> dict:
    """Returns the position of the next batch as a JSON-serialisable dict."""
    return {"position": self._state, "data": self._settings}

  def set_state(self, state: dict) -> None:
    """Resumes from a state that `get_state` returned, on the same data.

    Raises:
      ValueError: the data, their order or the batch size have changed.
    """
    changed = [
      f"{name}: {state['data'].get(name)} then, {value} now"
      for name, value in self._settings.items()
      if state["data"].get(name) != value
    ]
    raise_together(
      changed,
      "cannot resume the data where they stopped, because they changed; start a"
      " new run, or put these back",
    )
    self._state = state["position"]
    self._iterator = None

  def close(self) -> None:
    """Stops the worker processes; they also stop when this process exits."""
    self._iterator = None
    if self._workers:
      self._workers.close()

  def _batch(self, step: int, units: np.ndarray) -> tuple[Batch, list[str]]:
    """Builds this process's slice of a global batch of unit numbers."""
    parts = [[self._units[u] for u in units[part]] for part in self._slices]
    packed = self._packed(parts)
    mine = parts[self._config.process_index]
    seeds = [seed for unit in mine for seed in self._seeds(step, unit)]
    parts = [[row for unit in part for row in unit] for part in parts]
    mine = parts[self._config.process_index]
    triplets = [self._triplets[row] for row in mine]
    if self._workers:
      examples = self._workers.build(triplets, seeds)
    else:
      examples = list(map(self._build, triplets, seeds))
    batch = pad_batch(
      examples,
      config=self._model,
      rows=packed[self._config.process_index],
      one_image=self._config.pack_by_image,
      loss_weighting=self._config.loss_weighting,
      cell_weight=self._config.cell_weight,
      **self._shape(parts, packed),
    )
    return batch, [t.id for t in triplets]

  def _seeds(self, step: int, unit: list[int]) -> list[Seed]:
    """Returns one augmentation for all rows, which share an image."""
    augmented = self._config.chip_shift and all(
      is_chip(self._triplets[row]) for row in unit
    )
    seed = (self._config.seed, step, unit[0]) if augmented else None
    return [seed] * len(unit)

  def _make_units(self) -> list[list[int]]:
    """Returns the row numbers of each unit: what the order is an order of."""
    config = self._config
    if not config.pack_by_image:
      return [[row] for row in range(len(self._triplets))]
    # Auxiliary targets belong to an image: its rows must agree on them.
    aux = ("boxes", "labels") if config.cell_weight else ()
    keys = [
      (*t.images, *t.anchors, *(str(t.extra.get(name)) for name in aux))
      for t in self._triplets
    ]
    lengths = [size.length for size in self._sizes]
    return pack_by_image(lengths, keys, config.pack_length)

  def _row_sizes(self, rows) -> Sizes:
    return Sizes.in_one_row(
      (self._sizes[row] for row in rows), one_image=self._config.pack_by_image
    )

  def _packed(self, parts) -> list[list[list[int]]]:
    """Returns per process, per row, the samples; equal row counts."""
    if not self._config.row_length:
      size = self._config.batch_size // len(parts)
      return [_consecutive(part + [[]] * (size - len(part))) for part in parts]
    packed = [
      pack([self._sizes[row].length for [row] in part], self._config.row_length)
      for part in parts
    ]
    most = max(len(rows) for rows in packed)
    unit = self._config.row_multiple
    unit //= math.gcd(unit, len(parts))
    count = sizes_lib.round_up(most, unit)
    return [rows + [[]] * (count - len(rows)) for rows in packed]

  def _shape(self, parts, packed) -> dict[str, int]:
    """Returns the static shape of a global batch, equal in all processes."""
    here = Sizes.covering(
      self._row_sizes([part[i] for i in row])
      for part, rows in zip(parts, packed, strict=True)
      for row in rows
    )
    patches = sizes_lib.bucket(here.patches, tuple(self._windows), "patches")
    if length := self._config.row_length:
      answers = sizes_lib.bucket(
        here.answers, self._answer_buckets, "answer tokens"
      )
    else:
      length = sizes_lib.bucket(here.length, self._buckets, "tokens")
      answers = self._answers[length]
    return {
      "length": length,
      "images": (here if self._config.row_length else self._limits).images,
      "patches": patches,
      "windows": self._windows[patches],
      "answers": answers,
      "anchors": sizes_lib.round_up(self._limits.anchors, 8),
    }


def _consecutive(units) -> list[list[int]]:
  """Returns [[0, 1], [2]] for units of two and of one row."""
  ends = np.cumsum([len(unit) for unit in units]).tolist()
  return [list(range(end - len(unit), end)) for unit, end in zip(units, ends)]


def _windows_in(buckets, sizes) -> dict[int, int]:
  """Returns {bucket: maximum number of windows of its images}."""
  return {
    bucket: max([1, *(s.windows for s in sizes if s.patches <= bucket)])
    for bucket in buckets
  }


def _buckets(buckets, largest, multiple) -> list[int]:
  last = sizes_lib.round_up(largest, multiple)
  return [*(b for b in buckets if b < last), last]


def _digest(ids) -> str:
  lines = "".join(f"{identity}\n" for identity in ids)
  return hashlib.sha256(lines.encode()).hexdigest()[:16]
