"""Data loader: triplets to batches of static shape, resumable.

Grain determines the order. It depends only on the seed and the global index, so
it is the same for any number of processes, workers and restarts. Every process
takes its slice of each global batch. Worker processes build the examples; this
module pads them.

A target positions, B batch, L text length.
"""

import dataclasses
import hashlib
import math
from collections.abc import Iterator, Sequence

import grain
import numpy as np

from fusar_jax.data import sizes as sizes_lib
from fusar_jax.data.anchor_conditions import ALIGNED, AnchorCondition
from fusar_jax.data.batch_order import batch_order
from fusar_jax.data.example_sizes import measure_examples
from fusar_jax.data.examples import MAX_LENGTH
from fusar_jax.data.packing import pack
from fusar_jax.data.padding import pad_batch
from fusar_jax.data.sizes import Sizes
from fusar_jax.data.tokenizer import Tokenizer
from fusar_jax.data.triplets import Triplet, raise_together
from fusar_jax.data.workers import Recipe, Workers
from fusar_jax.model.batch import Batch
from fusar_jax.model.config import FusarConfig

ANSWER_BUCKETS = (32, 128, 512)


@dataclasses.dataclass(frozen=True)
class LoaderConfig:
  """How a data set becomes batches; ValueError for conflicting options.

  Attributes:
    batch_size: global B, over all processes.
    seed: of the shuffle; each epoch is shuffled differently.
    shuffle: False preserves the order of the triplets.
    epochs: None repeats without end.
    max_length: maximum L; a longer example is an error.
    buckets: values of L. A last bucket that fits the longest row is added.
    answer_buckets: values of A; likewise.
    patch_buckets: values of P; likewise. For images that are not all resized to
      one size.
    pack_length: length in tokens of a packed row, which contains as many
      samples as fit; replaces `buckets`. 0: one sample per row. See `packing`.
    row_multiple: the number of rows of a global packed batch is a multiple of
      this; some rows may be empty.
    loss_weighting: see `pad_batch`.
    cell_weight: see `pad_batch`; 0: no auxiliary visual-token targets.
    anchors: control condition of the anchors, see `anchor_conditions`.
    num_workers: processes that build examples; 0: threads of this process.
    cache_bytes: limit of the cache of decoded images, over all workers.
    pool_batches: number of batches that are drawn at a time and sorted by
      length, which reduces padding; 1: no sorting.
    process_index, process_count: this process's slice of each batch.
  """

  batch_size: int
  seed: int = 0
  shuffle: bool = True
  epochs: int | None = None
  max_length: int = MAX_LENGTH
  buckets: Sequence[int] = ()
  answer_buckets: Sequence[int] = ANSWER_BUCKETS
  patch_buckets: Sequence[int] = ()
  pack_length: int = 0
  row_multiple: int = 1
  loss_weighting: str = "example"
  cell_weight: float = 0.0
  anchors: AnchorCondition = ALIGNED
  num_workers: int = 0
  cache_bytes: int = 512 << 20
  pool_batches: int = 1
  process_index: int = 0
  process_count: int = 1

  def __post_init__(self):
    if self.pack_length and self.cell_weight:
      raise ValueError(
        "packed rows cannot have auxiliary visual-token targets. Set"
        " config.data.pack_length or config.data.cell_weight to 0."
      )
    if self.batch_size < 1 or self.batch_size % self.process_count:
      raise ValueError(
        f"batch_size {self.batch_size} must be a positive multiple of the"
        f" {self.process_count} processes."
      )


class Loader:
  """Iterates (Batch of numpy arrays, ids of its rows).

  Attributes:
    steps_per_epoch: batches that show every triplet at least once.

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
      max_length=min(
        config.max_length, config.pack_length or config.max_length
      ),
      aux_targets=config.cell_weight > 0,
      anchors=config.anchors,
      cache_bytes=config.cache_bytes // max(1, config.num_workers),
    )
    self._triplets = config.anchors.arrange(triplets)
    self._sizes, problems = measure_examples(self._triplets, recipe)
    raise_together(problems, "bad rows")
    self._model, self._config = model, config
    self._limits = Sizes.covering(self._sizes)
    # The last bucket is the size that these data need, not the upper limit.
    self._buckets = _buckets(config.buckets, self._limits.length, 64)
    self._answer_buckets = _buckets(
      config.answer_buckets, config.pack_length or self._limits.answers, 32
    )
    self._windows = _windows_in(
      _buckets(config.patch_buckets, self._limits.patches, 1), self._sizes
    )
    mine = config.batch_size // config.process_count
    self._slices = [
      slice(k * mine, (k + 1) * mine) for k in range(config.process_count)
    ]
    rows = len(self._triplets)
    self.steps_per_epoch = -(-rows // config.batch_size)
    self._settings = {
      "rows": rows,
      "ids": _digest(t.id for t in self._triplets),
      "seed": config.seed,
      "shuffle": config.shuffle,
      "batch_size": config.batch_size,
      "pool_batches": config.pool_batches,
    }
    self._order = batch_order(
      self._sizes,
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

  def _batch(self, rows: np.ndarray) -> tuple[Batch, list[str]]:
    """Builds this process's slice of a global batch of row numbers."""
    parts = [rows[part] for part in self._slices]
    mine = parts[self._config.process_index]
    packed = self._packed(parts)
    triplets = [self._triplets[row] for row in mine]
    if self._workers:
      examples = self._workers.build(triplets)
    else:
      examples = [self._build(triplet) for triplet in triplets]
    batch = pad_batch(
      examples,
      config=self._model,
      rows=packed[self._config.process_index],
      loss_weighting=self._config.loss_weighting,
      cell_weight=self._config.cell_weight,
      **dataclasses.asdict(self._shape(parts, packed)),
    )
    return batch, [t.id for t in triplets]

  def _packed(self, parts) -> list[list[list[int]]]:
    """Returns per process, per row, the samples; equal row counts."""
    if not self._config.pack_length:
      size = self._config.batch_size // len(parts)
      return [
        [[i] if i < len(part) else [] for i in range(size)] for part in parts
      ]
    packed = [
      pack([self._sizes[row].length for row in part], self._config.pack_length)
      for part in parts
    ]
    most = max(len(rows) for rows in packed)
    unit = self._config.row_multiple
    unit //= math.gcd(unit, len(parts))
    count = sizes_lib.round_up(most, unit)
    return [rows + [[]] * (count - len(rows)) for rows in packed]

  def _shape(self, parts, packed) -> Sizes:
    """Returns the static shape of a global batch, equal in all processes."""
    here = Sizes.covering(
      Sizes.in_one_row(self._sizes[part[i]] for i in row)
      for part, rows in zip(parts, packed, strict=True)
      for row in rows
    )
    patches = sizes_lib.bucket(here.patches, tuple(self._windows), "patches")
    return dataclasses.replace(
      self._limits,
      length=self._config.pack_length
      or sizes_lib.bucket(here.length, self._buckets, "tokens"),
      images=here.images if self._config.pack_length else self._limits.images,
      patches=patches,
      windows=self._windows[patches],
      answers=sizes_lib.bucket(
        here.answers, self._answer_buckets, "answer tokens"
      ),
      anchors=sizes_lib.round_up(self._limits.anchors, 8),
    )


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
