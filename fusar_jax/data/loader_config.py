"""How a data set becomes batches."""

import dataclasses
from collections.abc import Sequence

from fusar_jax.data.anchor_conditions import ALIGNED, AnchorCondition
from fusar_jax.data.lengths import MAX_LENGTH

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
    pack_by_image: a row contains the samples of one image, up to pack_length
      tokens; batch_size counts such rows, and `buckets` apply. See `packing`.
    row_multiple: the number of rows of a global packed batch is a multiple of
      this; some rows may be empty.
    loss_weighting: see `pad_batch`.
    cell_weight: see `pad_batch`; 0: no auxiliary visual-token targets.
    anchors: control condition of the anchors, see `anchor_conditions`.
    chip_shift: see `augment_chip`; 0: no augmentation.
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
  pack_by_image: bool = False
  row_multiple: int = 1
  loss_weighting: str = "example"
  cell_weight: float = 0.0
  anchors: AnchorCondition = ALIGNED
  chip_shift: float = 0.0
  num_workers: int = 0
  cache_bytes: int = 512 << 20
  pool_batches: int = 1
  process_index: int = 0
  process_count: int = 1

  def __post_init__(self):
    if self.row_length and self.cell_weight:
      raise ValueError(
        "rows of several images cannot have auxiliary visual-token targets. Set"
        " config.data.pack_by_image, or one of config.data.pack_length and"
        " config.data.cell_weight to 0."
      )
    if self.pack_by_image and not self.pack_length:
      raise ValueError(
        "config.data.pack_by_image requires config.data.pack_length: tokens of"
        " a row."
      )
    if self.batch_size < 1 or self.batch_size % self.process_count:
      raise ValueError(
        f"batch_size {self.batch_size} must be a positive multiple of the"
        f" {self.process_count} processes."
      )

  @property
  def row_length(self) -> int:
    """L of all rows; 0: each batch takes a bucket."""
    return 0 if self.pack_by_image else self.pack_length
