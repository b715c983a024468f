"""Manifest rows and data set cards of triplets that were read."""

import json
from collections.abc import Iterable

from fusar_jax.data.triplets import Triplet


def row_of(triplet: Triplet) -> dict:
  """Returns the manifest row without "image" and "aef"."""
  return {
    **triplet.extra,
    "id": triplet.id,
    "coordinate_size": triplet.coordinate_size,
    "task": triplet.task,
    "question": triplet.question,
    "answer": triplet.answer,
  }


def describe_sources(triplets: Iterable[Triplet]) -> dict:
  """Returns the dataset.json in the folder of the triplets' manifest.

  Several give {"sources": [one each]}; none gives {}.
  """
  folders = dict.fromkeys(triplet.source.parent for triplet in triplets)
  found = [
    json.loads(path.read_text(encoding="utf-8"))
    for folder in folders
    if (path := folder / "dataset.json").is_file()
  ]
  return found[0] if len(found) == 1 else {"sources": found} if found else {}
