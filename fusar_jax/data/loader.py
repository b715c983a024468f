"""Triplets to batches of static shape, in an order that can be resumed.

Grain gives the order: a function of the seed and of the global index alone, the
same for any number of processes, workers and restarts. Every process takes its
slice of each global batch. Worker processes build the examples; they are padded
here.

A answer slots, B batch, L text length.
"""

import dataclasses
import hashlib
import math
import sys
from collections.abc import Iterator, Sequence

import grain
import numpy as np

from fusar_jax.data import sizes as sizes_lib
from fusar_jax.data.anchor_conditions import ALIGNED, AnchorCondition
from fusar_jax.data.examples import MAX_LENGTH
from fusar_jax.data.packing import pack
from fusar_jax.data.padding import pad_batch
from fusar_jax.data.sizes import Sizes
from fusar_jax.data.survey import survey
from fusar_jax.data.tokenizer import Tokenizer
from fusar_jax.data.triplets import Triplet, raise_together
from fusar_jax.data.workers import Recipe, Workers
from fusar_jax.model.batch import Batch
from fusar_jax.model.config import FusarConfig

ANSWER_BUCKETS = (32, 128, 512)


class Loader:
  """Iterates (Batch of numpy arrays, ids of its rows).

  Attributes:
    steps_per_epoch: batches that show every triplet at least once.
    refused: messages of rows left out (strict=False).

  Batches run on across the end of an epoch, so none is short; only the last one
  of a finite loader is, and its last rows are padding.

  Iterating begins where `set_state` put it, or where the last iteration of this
  loader stopped; after the end, at the beginning.
  """

  def __init__(
    self,
    triplets: Sequence[Triplet],
    tokenizer: Tokenizer,
    config: FusarConfig,
    *,
    batch_size: int,
    seed: int = 0,
    shuffle: bool = True,
    epochs: int | None = None,
    max_length: int = MAX_LENGTH,
    buckets: Sequence[int] = (),
    answer_buckets: Sequence[int] = ANSWER_BUCKETS,
    patch_buckets: Sequence[int] = (),
    pack_length: int = 0,
    row_multiple: int = 1,
    loss_weighting: str = "example",
    cell_weight: float = 0.0,
    with_answer: bool = True,
    clip_boxes: bool = False,
    anchors: AnchorCondition = ALIGNED,
    num_workers: int = 0,
    cache_bytes: int = 512 << 20,
    pool_batches: int = 1,
    strict: bool = True,
    process_index: int = 0,
    process_count: int = 1,
  ):
    """Looks at every row.

    Args:
      triplets: the data set.
      tokenizer: of the model.
      config: shapes of the model.
      batch_size: B of all processes together.
      seed: of the shuffle; each epoch has an order of its own.
      shuffle: False keeps the order of the triplets.
      epochs: None: for ever.
      max_length: a longer example is an error.
      buckets: values of L; a last one, that holds the longest row, is added.
      answer_buckets: values of A; likewise.
      patch_buckets: values of P; likewise. For images that are not all squashed
        to one size.
      pack_length: tokens of a row that holds as many samples as fit, in place
        of `buckets`; 0: a row to each sample. See `packing`.
      row_multiple: the rows of a packed batch, of all processes together, are a
        multiple of this; some may be empty.
      loss_weighting: see `pad_batch`.
      cell_weight: see `pad_batch`; 0: visual tokens say nothing.
      with_answer, clip_boxes: see `fusar_jax.data.examples.build_example`.
      anchors: what the model is shown of them, see `anchor_conditions`.
      num_workers: processes that build examples; 0: threads of this one.
      cache_bytes: bound of decoded pictures, all workers together.
      pool_batches: this many batches are drawn at a time and their rows dealt
        out by length, so that batches hold less padding; 1: as drawn.
      strict: False leaves bad rows out and lists them in `refused`.
      process_index, process_count: this process's slice of each batch.

    Raises:
      ValueError: bad rows, all told together; no row left; sizes that do not
        divide.
    """
    if pack_length and cell_weight:
      raise ValueError(
        "visual tokens cannot be asked in rows of several samples. Set"
        " config.data.pack_length or config.data.cell_weight to 0."
      )
    if batch_size < 1 or batch_size % process_count:
      raise ValueError(
        f"batch_size {batch_size} must be a positive multiple of the"
        f" {process_count} processes."
      )
    recipe = Recipe(
      tokenizer=tokenizer,
      config=config,
      with_answer=with_answer,
      max_length=min(max_length, pack_length or max_length),
      clip_boxes=clip_boxes,
      cells=cell_weight > 0,
      anchors=anchors,
      cache_bytes=cache_bytes // max(1, num_workers),
    )
    triplets = anchors.arrange(triplets)
    rows, refused = survey(triplets, recipe)
    if strict:
      raise_together(refused, "bad rows")
    self.refused = refused
    good = [(t, s) for t, s in zip(triplets, rows, strict=True) if s]
    if not good:
      raise ValueError(
        "no triplets to load: the data set is empty, or every row was refused."
      )
    self._triplets = [triplet for triplet, _ in good]
    self._sizes = [size for _, size in good]
    self._whole = Sizes.covering(self._sizes)
    self._config = config
    self._loss_weighting = loss_weighting
    self._cell_weight = cell_weight
    # The last bucket is as large as these data need, not as they might.
    self._buckets = _buckets(buckets, self._whole.length, 64)
    self._answer_buckets = _buckets(
      answer_buckets, pack_length or self._whole.answers, 32
    )
    self._windows = _windows_in(
      _buckets(patch_buckets, self._whole.patches, 1), self._sizes
    )
    self._pack_length, self._row_multiple = pack_length, row_multiple
    self._process = process_index
    self._batch_size = batch_size
    mine = batch_size // process_count
    self._slices = [
      slice(k * mine, (k + 1) * mine) for k in range(process_count)
    ]
    self.steps_per_epoch = -(-len(good) // batch_size)
    self._settings = {
      "rows": len(good),
      "ids": _digest(t.id for t in self._triplets),
      "seed": seed,
      "shuffle": shuffle,
      "batch_size": batch_size,
      "pool_batches": pool_batches,
    }
    order = grain.MapDataset.range(len(good)).seed(seed)
    if shuffle:
      order = order.shuffle()
    # "For ever" must stay countable: Grain counts batches in floating point.
    forever = max(1, 2**50 // len(good))
    self._order = _dealt(
      order.repeat(epochs or forever),
      batch_size,
      pool_batches,
      seed,
      self._sizes,
    )
    self._workers = Workers(num_workers, recipe) if num_workers else None
    self._build = recipe.builder()
    threads = max(1, num_workers)
    self._dataset = self._order.map(self._batch).to_iter_dataset(
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

  def ids(self, step: int) -> list[str]:
    """Returns the ids of the global batch of a step, counted from 0."""
    return [self._triplets[row].id for row in self._order[step]]

  def get_state(self) -> dict:
    """Returns where the next batch begins; JSON."""
    return {"position": self._state, "data": self._settings}

  def set_state(self, state: dict) -> None:
    """Continues where `get_state` was called, on the same data.

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
    """Ends the worker processes; they also end with this process."""
    self._iterator = None
    if self._workers:
      self._workers.close()

  def _batch(self, rows: np.ndarray) -> tuple[Batch, list[str]]:
    """Builds this process's part of a global batch of row numbers."""
    parts = [rows[part] for part in self._slices]
    mine = parts[self._process]
    packed = self._packed(parts)
    triplets = [self._triplets[row] for row in mine]
    if self._workers:
      examples = self._workers.build(triplets)
    else:
      examples = [self._build(triplet) for triplet in triplets]
    batch = pad_batch(
      examples,
      config=self._config,
      rows=packed[self._process],
      loss_weighting=self._loss_weighting,
      cell_weight=self._cell_weight,
      **dataclasses.asdict(self._shape(parts, packed)),
    )
    return batch, [t.id for t in triplets]

  def _packed(self, parts) -> list[list[list[int]]]:
    """The samples of each row of each process, in each the same number."""
    if not self._pack_length:
      size = self._batch_size // len(parts)
      return [
        [[i] if i < len(part) else [] for i in range(size)] for part in parts
      ]
    packed = [
      pack([self._sizes[row].length for row in part], self._pack_length)
      for part in parts
    ]
    most = max(len(rows) for rows in packed)
    unit = self._row_multiple // math.gcd(self._row_multiple, len(parts))
    count = sizes_lib.round_up(most, unit)
    return [rows + [[]] * (count - len(rows)) for rows in packed]

  def _shape(self, parts, packed) -> Sizes:
    """The static shape of a global batch: the same in every process."""
    here = Sizes.covering(
      Sizes.in_one_row(self._sizes[part[i]] for i in row)
      for part, rows in zip(parts, packed, strict=True)
      for row in rows
    )
    patches = sizes_lib.bucket(here.patches, tuple(self._windows), "patches")
    return dataclasses.replace(
      self._whole,
      length=self._pack_length
      or sizes_lib.bucket(here.length, self._buckets, "tokens"),
      images=here.images if self._pack_length else self._whole.images,
      patches=patches,
      windows=self._windows[patches],
      answers=sizes_lib.bucket(
        here.answers, self._answer_buckets, "answer tokens"
      ),
      anchors=sizes_lib.round_up(self._whole.anchors, 8),
    )


def _windows_in(buckets, sizes) -> dict[int, int]:
  """{bucket: windows of the images in it that have most}."""
  return {
    bucket: max([1, *(s.windows for s in sizes if s.patches <= bucket)])
    for bucket in buckets
  }


def _buckets(buckets, largest, multiple) -> list[int]:
  last = sizes_lib.round_up(largest, multiple)
  return [*(b for b in buckets if b < last), last]


def _dealt(order, batch_size, pool_batches, seed, sizes):
  """Cuts an order of rows into batches, rows of like length together.

  A step's rows follow from the seed and the step alone: the pool it belongs to
  is drawn and sorted by length, and the pool's batches are shuffled, lest every
  pool begin with its short ones.
  """
  if pool_batches == 1:
    return order.batch(batch_size)
  pools = order.batch(batch_size * pool_batches)

  def batch(step):
    pool, turn = divmod(int(step), pool_batches)
    rows = sorted(pools[pool], key=lambda row: (sizes[row].length, row))
    count = -(-len(rows) // batch_size)
    if count == pool_batches:  # The last pool of a finite order is in order.
      turn = np.random.default_rng((seed, pool)).permutation(count)[turn]
    return np.asarray(rows[turn * batch_size : (turn + 1) * batch_size])

  steps = min(-(-len(order) // batch_size), sys.maxsize)
  return grain.MapDataset.range(steps).map(batch)


def _digest(ids) -> str:
  digest = hashlib.sha256()
  for identity in ids:
    digest.update(identity.encode() + b"\n")
  return digest.hexdigest()[:16]
