"""FUSAR-GEOVL captions to triplets: eight fields, joined in their order.

    python -m fusar_jax.datasets.importers.geovl --captions caption_part1.json \
        --images images --out data/geovl --field-dropout 0.2 \
        --source "FUSAR-GEOVL, Yang et al." --license "none stated"

A record is {"image_id": 17, "Terrain": "The terrain is classified as ...", ...}
with the eight fields of `tasks.captioning`. It names no file: its image is the
one whose stem is the image_id, ignoring leading zeros. A record without an
image is rejected, because a triplet requires an image.

With dropout, each field of each caption is omitted with the given probability
(at least one remains), and the question asks only for the remaining fields. The
draw depends on the seed and the image_id, not on the order of the records or on
other imported records.
"""

import collections
import hashlib
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from fusar_jax.data import vision
from fusar_jax.data.triplets import raise_together
from fusar_jax.datasets.importers import command_line, image_files
from fusar_jax.datasets.importers.annotation_json import read_records
from fusar_jax.datasets.importers.dataset_folder import (
  Origin,
  Picture,
  write_dataset,
)
from fusar_jax.io.atomic_write import check_new_folder, new_folder
from fusar_jax.tasks import captioning

# The published training seed.
SEED = 42


def kept_fields(image_id: int | str, dropout: float, seed: int = SEED):
  """Returns the names of the fields that a caption keeps, in fixed order.

  Args:
    image_id: of the record.
    dropout: probability that a field is left out, 0 <= dropout < 1.
    seed: of the draw.

  Example:
    >>> len(kept_fields(17, 0.0)), 1 <= len(kept_fields(17, 0.9)) <= 8
    (8, True)
  """
  names = list(captioning.FIELDS)
  digest = hashlib.sha256(str(image_id).encode()).digest()
  draws = np.random.default_rng([seed, *digest[:8]]).random(len(names))
  # The field of the largest draw would be left out last.
  limit = min(dropout, draws.max())
  return tuple(name for name, draw in zip(names, draws) if draw >= limit)


def import_geovl(
  captions: str | os.PathLike,
  images: str | os.PathLike | None,
  out: str | os.PathLike,
  *,
  origin: Origin,
  field_dropout: float = 0.0,
  seed: int = SEED,
  copy: bool = False,
  drop_rejected: bool = False,
) -> Path:
  """Writes OUT/manifest.jsonl and OUT/dataset.json; returns the manifest.

  Args:
    captions: JSON list or JSON lines of records.
    images: folder of the images; folders below it count too.
    out: output folder; absent or empty.
    origin: recorded in dataset.json.
    field_dropout, seed: see `kept_fields`.
    copy: copy the images to OUT/images; otherwise rows refer to their paths.
    drop_rejected: skip bad records and list them in OUT/rejected.txt.

  Raises:
    FileExistsError: `out` is not empty.
    FileNotFoundError: no such captions, or no such folder.
    ValueError: no folder of images, a dropout outside [0, 1), or bad records:
      all are listed, and nothing is written.
  """
  check_new_folder(out)
  if not 0 <= field_dropout < 1:
    raise ValueError(f"field_dropout must be in [0, 1), got {field_dropout}.")
  records = read_records(captions)
  if images is None:
    raise ValueError(
      f"{captions}: {len(records)} captions, but no images; a triplet needs"
      " the image that its caption describes. Give the folder (--images) whose"
      " files are named by image_id."
    )
  files = _by_stem(image_files.listed(images))
  pictures, rejected, seen = [], [], {}
  for number, record in records:
    try:
      identity, texts = _record(record)
      if identity in seen:
        raise ValueError(f"image_id was used by row {seen[identity]} already")
      seen[identity] = number
      file = _image(identity, files, images)
      row = _row(identity, texts, file, field_dropout, seed)
    except (ValueError, OSError) as error:
      rejected.append(f"row {number}: {error}")
      continue
    path = file.relative_to(images).as_posix()
    pictures.append(Picture(file, path, [row]))
  if not drop_rejected:
    raise_together(rejected, f"{captions}: bad records")
  card = {
    "importer": "geovl",
    "captions": Path(captions).name,
    "field_dropout": field_dropout,
    "seed": seed,
  }
  with new_folder(out) as folder:
    write_dataset(folder, pictures, origin, card, copy=copy, rejected=rejected)
  return Path(out) / "manifest.jsonl"


def _record(record) -> tuple[str, dict[str, str]]:
  """Returns (image_id as text, fields)."""
  if not isinstance(record, Mapping):
    raise ValueError(f"expected an object, got {type(record).__name__}")
  identity = record.get("image_id")
  if isinstance(identity, bool) or not isinstance(identity, (int, str)):
    raise ValueError(f'expected an "image_id", got {identity!r:.40}')
  fields = {key: text for key, text in record.items() if key != "image_id"}
  blank = [
    key
    for key, text in fields.items()
    if not isinstance(text, str) or not text.strip()
  ]
  if blank:
    raise ValueError(f"no text in {', '.join(map(str, blank))}")
  return str(identity), fields


def _row(identity, fields, file: Path, dropout, seed) -> dict:
  kept = kept_fields(identity, dropout, seed)
  # The eight fields are checked here, whatever is kept of them.
  answer = captioning.answer(fields, kept)
  return {
    "id": f"{identity}-captioning",
    "task": "captioning",
    "coordinate_size": list(vision.image_size(file)),
    "question": captioning.question(kept),
    "answer": answer,
  }


def _by_stem(files: Sequence[Path]) -> Mapping[str, list[Path]]:
  found = collections.defaultdict(list)
  for file in files:
    found[_key(file.stem)].append(file)
  return found


def _key(name: str) -> str:
  """Numbers are the same with leading zeros and without."""
  return str(int(name)) if name.isdecimal() else name


def _image(identity, files, folder) -> Path:
  found = files.get(_key(identity), [])
  if not found:
    raise FileNotFoundError(f"no image {identity}.* in {folder}")
  if len(found) > 1:
    names = ", ".join(path.relative_to(folder).as_posix() for path in found)
    raise ValueError(f"several images of one name: {names}")
  return found[0]


def main(argv: Sequence[str] | None = None) -> int:
  """Command line; returns the exit code."""
  parser = command_line.parser(
    "geovl", "FUSAR-GEOVL captions to a manifest of triplets."
  )
  parser.add_argument("--captions", required=True, help="JSON or JSON lines")
  parser.add_argument("--images", help="folder of images, named by image_id")
  parser.add_argument(
    "--field-dropout",
    type=float,
    default=0.0,
    help="probability that a field of a caption is left out",
  )
  parser.add_argument("--seed", type=int, default=SEED, help="of the dropout")
  return command_line.run(parser, import_geovl, argv)


if __name__ == "__main__":
  sys.exit(main())
