"""Reader of a TFDS split of triplets: rows, and random access to their files.

`tfds.data_source` returns the records. Images are returned as encoded bytes, so
batches equal those of the folder from which the data set was built. TFDS
shuffles its records; this module restores the manifest order.

Unlike this project's shards (`fusar_jax.data.records`), a TFDS data set has no
table of contents: every record is read before the first step.

S anchors, E = 64 embedding bands.
"""

import dataclasses
import functools
import io
import json
from pathlib import Path
from typing import Any, cast

import numpy as np

from fusar_jax.data.records import PackedFile, Table


@dataclasses.dataclass(frozen=True)
class TfdsSplit:
  """One split of a TFDS data set.

  Attributes:
    folder: folder with features.json, such as DIR/tfds_fusar/1.0.0.
    name: "train", or a slice in TFDS notation: "train[:80%]".
    built: build time in nanoseconds; distinguishes builds.
  """

  folder: Path
  name: str
  built: int

  def read(self, key: tuple[int, str, int]) -> bytes:
    """Returns a file of a record.

    Args:
      key: (record, "image" | "anchors", which image of the record).

    Returns:
      The encoded bytes of an image; anchors always in the official `.npz`.

    Raises:
      ValueError: the record is corrupt.
    """
    record, kind, place = key
    try:
      example = _source(self)[record]
      if kind == "image":
        return bytes(example["images"][place])
      return _npz(example["anchors"], place)
    except Exception as error:  # TFDS and protobuf raise nearly anything
      raise ValueError(f"{self}: record {record} is damaged: {error}") from None

  def __str__(self) -> str:
    return f"{self.folder}/{self.name}"


def is_split(path: Path) -> bool:
  """Returns whether a path names a split, as DIR/tfds_fusar/1.0.0/train."""
  return (path.parent / "features.json").is_file() and not path.exists()


def read_table(path: Path) -> Table:
  """Returns rows and files of a split, in manifest order.

  Raises:
    ValueError: no such split, another kind of data set, or a corrupt one.
  """
  built = (path.parent / "features.json").stat().st_mtime_ns
  return _table(TfdsSplit(path.parent, path.name, built))


# Cached, because a run reads the table twice: for its rows and for their hash.
@functools.lru_cache(maxsize=4)
def _table(split: TfdsSplit) -> Table:
  found = []
  try:
    for record, example in enumerate(_source(split)):
      found.append((example["index"], record, json.loads(example["record"])))
  except Exception as error:  # TFDS and protobuf raise nearly anything
    raise ValueError(
      f"{split}: not a readable split of triplets: {error!s:.200}. They are"
      " built by `python -m fusar_jax.datasets.tfds_fusar`."
    ) from None
  found.sort(key=lambda item: item[0])
  rows, files = [], {}

  def number(record, kind, place, file):
    if file is None:
      return None
    files[len(files)] = PackedFile.listed(split, (record, kind, place), file)
    return len(files) - 1

  for _, record, entry in found:
    rows.append(
      {
        **entry["row"],
        "image": [
          number(record, "image", place, file)
          for place, file in enumerate(entry["images"])
        ],
        "aef": [
          number(record, "anchors", place, file)
          for place, file in enumerate(entry["anchors"])
        ],
      }
    )
  content = json.dumps([entry for _, _, entry in found], ensure_ascii=False)
  return Table(rows, files, content.encode())


@functools.lru_cache(maxsize=16)
def _source(split: TfdsSplit):
  """Returns the records with undecoded images; opened once per process."""
  import tensorflow_datasets as tfds

  class Undecoded(tfds.decode.SkipDecoding):
    """TFDS skips the decoding of image lists in TensorFlow only."""

    def decode_batch_example_np(self, serialized_example):
      return serialized_example

  builder = tfds.builder_from_directory(split.folder)
  # TFDS wraps the method; the wrapper's type has no parameters.
  source = cast(Any, builder).as_data_source
  return source(split.name, decoders={"images": Undecoded()})


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
