"""Hashes of the data of a run: its manifests, images and anchors.

By them a resumed run notices that its data has changed, and scores and exports
identify theirs on any machine.
"""

import hashlib
import itertools
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from fusar_jax.data.triplets import (
  Triplet,
  is_readable,
  local_manifest,
  manifest_bytes,
  manifest_files,
  split_paths,
)
from fusar_jax.io.object_store import url_of
from fusar_jax.io.strict_json import read_object

# Bytes of each part of a file that identifies its content.
_PART = 4096
_FILES_AT_ONCE = 256
_THREADS = 8


def describe_data(
  manifests: Mapping[str, str], triplets: Sequence[Triplet] = ()
) -> dict[str, Any]:
  """Hash of each manifest and the content of `dataset.json` next to it.

  Args:
    manifests: paths, separated by commas, by their use.
    triplets: rows of them, to include their images and anchors.
  """
  return {
    name: [
      _manifest(path, triplets)
      for path in split_paths(paths)
      if all(is_readable(file) for file in manifest_files(path))
    ]
    for name, paths in manifests.items()
    if paths
  }


def hash_manifest(path: str | os.PathLike) -> str:
  """sha256 over the files that hold a manifest's rows.

  Of shards it covers the images, too; see `manifest_bytes`.
  """
  digest = hashlib.sha256()
  for file in manifest_files(path):
    digest.update(f"{file.name}\0".encode())
    digest.update(hashlib.sha256(manifest_bytes(file)).digest())
  return digest.hexdigest()


def _manifest(path: str, triplets: Sequence[Triplet]) -> dict[str, Any]:
  source = local_manifest(path)
  about = source.parent / "dataset.json"
  return {
    "path": url_of(source) or str(source.absolute()),
    "sha256": hash_manifest(path),
    **hash_examples([t for t in triplets if t.source == source]),
    "dataset": read_object(about) if about.is_file() else None,
  }


def hash_examples(triplets: Sequence[Triplet]) -> dict[str, str]:
  """Hashes of sizes and content of images and anchors, if all are readable.

  A large data set takes too long to read at each start, so a long file is
  represented by its first, middle and last 4 KiB. Compressed formats and
  archives end with checksums. Times are not compared: copies change them.
  """
  hashes = {}
  for kind in ("images", "anchors"):
    files = dict.fromkeys(f for t in triplets for f in getattr(t, kind))
    files = [f for f in files if isinstance(f, Path)]
    chunks = [
      files[start : start + _FILES_AT_ONCE]
      for start in range(0, len(files), _FILES_AT_ONCE)
    ]
    try:
      # Threads wait for storage in parallel.
      with ThreadPoolExecutor(_THREADS) as pool:
        found = list(itertools.chain(*pool.map(_identify, chunks)))
    except OSError:
      continue  # The loader lists all files that are missing.
    if found:
      sizes = " ".join(str(size) for size, _ in found).encode()
      content = b"".join(digest for _, digest in found)
      hashes[f"sizes of {kind}"] = hashlib.sha256(sizes).hexdigest()
      hashes[f"content of {kind}"] = hashlib.sha256(content).hexdigest()
  return hashes


def _identify(files: Sequence[Path]) -> list[tuple[int, bytes]]:
  """Returns (size in bytes, digest of parts of the content) of each file."""
  found = []
  for path in files:
    with path.open("rb", buffering=0) as file:
      size = os.fstat(file.fileno()).st_size
      digest = hashlib.sha256()
      # Of a file of up to 12 KiB, these are all bytes.
      for start in (0, (size - _PART) // 2, size - _PART):
        file.seek(max(start, 0))
        digest.update(file.read(_PART))
    found.append((size, digest.digest()))
  return found
