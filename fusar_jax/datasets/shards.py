"""Packs a manifest and its files into ArrayRecord shards.

`python -m fusar_jax.datasets.shards --manifest M --out DIR --shards N` writes
DIR atomically. --config.data.train='DIR/*.array_record' reads it, and so does
every option that accepts a manifest. The order of rows and the bytes of files
are preserved: the same seed gives the same batches as the folder.

Each shard is self-contained (layout: `fusar_jax.data.records`), and the output
is deterministic. DIR/dataset.json is that of the manifest plus the sha256 of
the shards.
"""

import argparse
import dataclasses
import hashlib
import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from array_record.python.array_record_module import ArrayRecordWriter

from fusar_jax import command_line
from fusar_jax.data import records, vision
from fusar_jax.data.records import File, PackedFile, sha256_of
from fusar_jax.data.triplets import (
  Triplet,
  raise_together,
  read_manifests,
  write_text,
)
from fusar_jax.datasets.source_rows import describe_sources, row_of
from fusar_jax.geo.anchors import count_anchors
from fusar_jax.io.atomic_write import new_folder

# One record per group, for random access. Uncompressed: images are compressed
# already, and the output of a compressor depends on its version.
_OPTIONS = "group_size:1,uncompressed"


@dataclasses.dataclass(frozen=True)
class Entry:
  """Entry of one file in a table of contents.

  Attributes:
    name: as in its manifest.
    size: (height, width) of an image in pixels, (S,) of anchors.
    sha256: of its bytes.
  """

  name: str
  size: tuple[int, ...]
  sha256: str


def write_shards(
  manifest: str, out: str | os.PathLike, shards: int
) -> list[Path]:
  """Writes OUT/triplets-IIIII-of-NNNNN.array_record and OUT/dataset.json.

  Args:
    manifest: one, or several separated by commas; may be shards themselves.
    out: output folder; absent or empty.
    shards: number of shards; rows are split evenly, in order.

  Returns:
    The shards, in order.

  Raises:
    FileExistsError: `out` is not empty.
    FileNotFoundError, ValueError: more shards than rows, or bad rows or files;
      all are reported together, and nothing is written.
    OSError: a shard cannot be written, and nothing remains.
  """
  triplets = read_manifests(manifest)
  if not 1 <= shards <= len(triplets):
    raise ValueError(
      f"--shards {shards}: expected 1 to {len(triplets)}, the number of rows of"
      f" {manifest}."
    )
  with new_folder(out) as folder:
    entries = survey_files(triplets)
    hashes = {}
    for index in range(shards):
      first, last = (
        len(triplets) * edge // shards for edge in (index, index + 1)
      )
      name = f"triplets-{index:05d}-of-{shards:05d}{records.SUFFIX}"
      table = {"format": records.FORMAT, "shard": index, "shards": shards}
      try:
        _write_shard(folder / name, table, triplets[first:last], entries)
      except RuntimeError as error:
        raise write_error(Path(out) / name, error) from None
      hashes[name] = sha256_of(folder / name)
    description = {
      **describe_sources(triplets),
      "shards": {
        "rows": len(triplets),
        "files": len(entries),
        "sha256": hashes,
      },
    }
    text = json.dumps(description, indent=1, ensure_ascii=False)
    write_text(folder / "dataset.json", text + "\n")
  return [Path(out) / name for name in hashes]


def write_error(path: Path, error: RuntimeError) -> OSError:
  """Returns an error of ArrayRecord, as of a full disk, with a file's name."""
  # The rest names the file in the draft.
  return OSError(f"{path}: {str(error).partition('; writing')[0]}")


def survey_files(triplets: Iterable[Triplet]) -> dict[File, Entry]:
  """Returns the table entry of each file, per row images before anchors.

  Raises:
    ValueError: missing or bad files, reported together.
  """
  entries, problems = {}, []
  for triplet in triplets:
    wanted = [(image, vision.image_size) for image in triplet.images]
    wanted += [(a, lambda f: (count_anchors(f),)) for a in triplet.anchors if a]
    for file, size in wanted:
      try:
        if file not in entries:
          entries[file] = Entry(
            _name(file, triplet), tuple(size(file)), sha256_of(file)
          )
      except (ValueError, OSError) as error:
        problems.append(f"{triplet.where}: {error}")
  raise_together(problems, "files that cannot be packed")
  return entries


def _write_shard(
  path: Path,
  table: Mapping,
  triplets: Sequence[Triplet],
  entries: Mapping[File, Entry],
) -> None:
  numbers = {}

  def number(file):
    # Record 0 is the table.
    return None if file is None else numbers.setdefault(file, len(numbers) + 1)

  rows = [
    {
      **row_of(triplet),
      "image": [number(image) for image in triplet.images],
      "aef": [number(anchors) for anchors in triplet.anchors],
    }
    for triplet in triplets
  ]
  files = [dataclasses.asdict(entries[file]) for file in numbers]
  header = {**table, "rows": rows, "files": files}
  writer = ArrayRecordWriter(str(path), _OPTIONS)
  try:
    writer.write(json.dumps(header, ensure_ascii=False).encode())
    for file in numbers:
      content = file.read_bytes()
      if hashlib.sha256(content).hexdigest() != entries[file].sha256:
        raise ValueError(
          f"{file} changed while it was being packed; try again."
        )
      writer.write(content)
  finally:
    writer.close()


def _name(file: File, triplet: Triplet) -> str:
  if isinstance(file, PackedFile):
    return file.name
  folder = triplet.source.parent
  below = file.relative_to(folder) if file.is_relative_to(folder) else file
  # Local paths outside the data set are not published.
  outside = below.is_absolute() or ".." in below.parts
  return file.name if outside else below.as_posix()


def main(argv: Sequence[str] | None = None) -> int:
  """Command line; returns the exit code."""
  parser = argparse.ArgumentParser(
    prog="python -m fusar_jax.datasets.shards",
    description="Packs a manifest and its files into ArrayRecord shards.",
  )
  parser.add_argument(
    "--manifest", required=True, help="one, or several with commas between"
  )
  parser.add_argument("--out", required=True, help="folder to create")
  parser.add_argument(
    "--shards",
    required=True,
    type=int,
    help="number of shards; 100 MB to 1 GB each reads well from a network",
  )
  return command_line.run(parser, _write, argv)


def _write(args: argparse.Namespace) -> None:
  shards = write_shards(args.manifest, args.out, args.shards)
  card = json.loads((Path(args.out) / "dataset.json").read_text("utf-8"))
  size = sum(shard.stat().st_size for shard in shards)
  print(
    f"{args.out}/*{records.SUFFIX}: {card['shards']['rows']} rows and"
    f" {card['shards']['files']} files in {len(shards)} shards,"
    f" {size / 1e6:.1f} MB"
  )


if __name__ == "__main__":
  sys.exit(main())
