"""Reads a split of the TFDS data set: rows, and files where they lie.

`tfds.data_source` gives the records; pictures keep their bytes, undecoded, so
that batches are those of the folder the data set was built from. TFDS shuffles
its records; here they stand in the order of the manifest again.

Unlike our own shards (`fusar_jax.data.records`) a TFDS data set has no table of
contents: every record is looked at before the first step.

S anchors, E = 64 embedding bands.
"""

import dataclasses
import functools
import io
import json
from pathlib import Path

import numpy as np

from fusar_jax.data.records import PackedFile, Table

# What a data set that was not built by us, or damaged, gives rise to.
_DAMAGE = (RuntimeError, ValueError, TypeError, KeyError, AttributeError)


@dataclasses.dataclass(frozen=True)
class TfdsSplit:
  """One split of a TFDS data set.

  Attributes:
    folder: that holds its features.json: DIR/tfds_fusar/1.0.0.
    name: "train", or a part of it as TFDS writes it: "train[:80%]".
    built: when, in nanoseconds: another build is another split.
  """

  folder: Path
  name: str
  built: int

  def read(self, key: tuple[int, str, int]) -> bytes:
    """Returns a file of a record.

    Args:
      key: (record, "image" | "anchors", which image of the record).

    Returns:
      An image's own bytes; anchors as the official `.npz`, whatever they were.

    Raises:
      ValueError: the record is damaged.
    """
    record, kind, place = key
    try:
      example = _source(self)[record]
      if kind == "image":
        return bytes(example["images"][place])
      return _npz(example["anchors"], place)
    except _DAMAGE as error:
      raise ValueError(f"{self}: record {record} is damaged: {error}") from None

  def __str__(self) -> str:
    return f"{self.folder}/{self.name}"


def is_split(path: Path) -> bool:
  """Tells whether a path means a split: DIR/tfds_fusar/1.0.0/train."""
  return (path.parent / "features.json").is_file() and not path.exists()


def read_table(path: Path) -> Table:
  """Returns rows and files of a split, in the order of its manifest.

  Raises:
    ValueError: no such split, a data set of something else, or a damaged one.
  """
  built = (path.parent / "features.json").stat().st_mtime_ns
  return _table(TfdsSplit(path.parent, path.name, built))


# A run asks twice: for its rows, and for their hash.
@functools.lru_cache(maxsize=4)
def _table(split: TfdsSplit) -> Table:
  found = []
  try:
    for record, example in enumerate(_source(split)):
      found.append((example["index"], record, json.loads(example["record"])))
  except _DAMAGE as error:
    raise ValueError(
      f"{split}: not a readable split of triplets: {error!s:.200}. They are"
      " built by `python -m fusar_jax.data.tfds_fusar`."
    ) from None
  found.sort(key=lambda item: item[0])
  rows, files = [], {}

  def number(record, kind, place, file):
    if file is None:
      return None
    files[len(files)] = PackedFile.listed(split, (record, kind, place), file)
    return len(files) - 1

  for _, record, told in found:
    rows.append(
      {
        **told["row"],
        "image": [
          number(record, "image", place, file)
          for place, file in enumerate(told["images"])
        ],
        "aef": [
          number(record, "anchors", place, file)
          for place, file in enumerate(told["anchors"])
        ],
      }
    )
  content = json.dumps([told for _, _, told in found], ensure_ascii=False)
  return Table(rows, files, content.encode())


@functools.lru_cache(maxsize=16)
def _source(split: TfdsSplit):
  """The records, pictures undecoded; opened once a process."""
  import tensorflow_datasets as tfds

  class Undecoded(tfds.decode.SkipDecoding):
    """TFDS skips decoding of lists of pictures in TensorFlow only."""

    def decode_batch_example_np(self, serialized_example):
      return serialized_example

  builder = tfds.builder_from_directory(split.folder)
  return builder.as_data_source(split.name, decoders={"images": Undecoded()})


def _npz(anchors, place: int) -> bytes:
  ends = np.cumsum(anchors["counts"])
  part = slice(ends[place] - anchors["counts"][place], ends[place])
  content = io.BytesIO()
  np.savez(
    content,
    features=anchors["features"][part],
    positions=anchors["positions"][part],
  )
  return content.getvalue()
