"""RSVQA's three files to triplets of short answers.

    python -m fusar_jax.datasets.importers.rsvqa --images Images_LR \
        --records LR_split_test_images.json LR_split_test_questions.json \
        LR_split_test_answers.json --extension .tif --out data/rsvqa_lr \
        --source "RSVQA, Lobry et al." --license "..."

The files hold {"images": [{"id", "active", "questions_ids"}]}, {"questions":
[{"id", "img_id", "type", "question", "answers_ids", "active"}]} and {"answers":
[{"id", "question_id", "answer", "active"}]}, in any order. The files of a split
list the entries of all splits, of which only its own are active: the others are
skipped, and the card counts them. An image's file is its id with the extension.

Of several answers to a question, the first active one is the truth. Answers are
unchanged: counts are numbers, and published accuracies bin them first.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from fusar_jax.data import vision
from fusar_jax.data.triplets import raise_together
from fusar_jax.datasets.importers import command_line, image_files
from fusar_jax.datasets.importers.annotation_json import read_json
from fusar_jax.datasets.importers.dataset_folder import (
  Origin,
  Picture,
  write_dataset,
)
from fusar_jax.io.atomic_write import check_new_folder, new_folder
from fusar_jax.tasks import vqa

FILES = ("images", "questions", "answers")
EXTENSION = ".tif"


def import_rsvqa(
  records: Sequence[str | os.PathLike],
  images: str | os.PathLike,
  out: str | os.PathLike,
  *,
  origin: Origin,
  extension: str = EXTENSION,
  copy: bool = False,
  drop_rejected: bool = False,
) -> Path:
  """Writes OUT/manifest.jsonl and OUT/dataset.json; returns the manifest.

  Args:
    records: the files of images, questions and answers, in any order.
    images: folder of the image files.
    out: output folder; absent or empty.
    origin: recorded in dataset.json.
    extension: of the image files, ".tif".
    copy: copy the images to OUT/images; otherwise rows refer to their paths.
    drop_rejected: skip bad questions and list them in OUT/rejected.txt.

  Raises:
    FileExistsError: `out` is not empty.
    FileNotFoundError: no such file.
    ValueError: not the three files, or bad questions: all are listed, and
      nothing is written.
  """
  check_new_folder(out)
  known, asked, answers = _read(records)
  skipped = {
    name: sum(not _is_active(entry) for entry in entries)
    for name, entries in zip(FILES, (known, asked, answers))
  }
  said, active = _active(answers), _active(known)
  if not any(map(_is_active, asked)):
    names = ", ".join(map(str, records))
    raise ValueError(f"{names}: none of {len(asked)} questions is active")
  files, rows, rejected = {}, {}, []
  for number, entry in enumerate(asked, start=1):
    if not _is_active(entry):
      continue
    try:
      name = _id(entry, "img_id")
      if name not in active:
        raise ValueError(f"image {name} is not active, or not in the images")
      if name not in files:
        file = image_files.named(images, f"{name}{extension}")
        files[name] = file, vision.image_size(file)
      row = _row(entry, said, files[name][1])
    except (ValueError, OSError) as error:
      rejected.append(f"question {number}: {error}")
      continue
    rows.setdefault(files[name][0], []).append(row)
  if not drop_rejected:
    raise_together(rejected, f"{records[0]} and its siblings: bad questions")
  pictures = [
    Picture(file, file.relative_to(images).as_posix(), of)
    for file, of in rows.items()
  ]
  card = {
    "importer": "rsvqa",
    "records": [Path(path).name for path in records],
    "inactive": skipped,
  }
  with new_folder(out) as folder:
    write_dataset(folder, pictures, origin, card, copy=copy, rejected=rejected)
  return Path(out) / "manifest.jsonl"


def _read(paths: Sequence[str | os.PathLike]) -> list[list[Mapping]]:
  """Returns the entries of FILES."""
  found: dict[str, list[Mapping]] = {}
  for path in paths:
    value = read_json(path)
    names = [n for n in FILES if isinstance(value, dict) and n in value]
    if len(names) != 1 or names[0] in found:
      raise ValueError(
        f'{path}: expected one of "images", "questions" and "answers", each in'
        f" one file, got {names or type(value).__name__}"
      )
    entries = value[names[0]]
    if not isinstance(entries, list) or not all(
      isinstance(entry, dict) for entry in entries
    ):
      raise ValueError(f"{path}: {names[0]!r} must be a list of objects")
    found[names[0]] = entries
  if missing := [name for name in FILES if name not in found]:
    raise ValueError(
      f"{', '.join(map(str, paths))}: no file of {', '.join(missing)}"
    )
  return [found[name] for name in FILES]


def _is_active(entry: Mapping) -> bool:
  return entry.get("active") is True


def _active(entries: Sequence[Mapping]) -> dict[int, Mapping]:
  """Returns id -> entry of the active ones."""
  return {e["id"]: e for e in entries if _is_active(e) and _has_id(e)}


def _has_id(entry: Mapping) -> bool:
  return type(entry.get("id")) is int


def _id(entry: Mapping, key: str) -> int:
  value = entry.get(key)
  if not isinstance(value, int) or isinstance(value, bool) or value < 0:
    raise ValueError(f"{key!r} must be a number, got {value!r:.40}")
  return value


def _row(entry: Mapping, answers: Mapping, size: tuple[int, int]) -> dict:
  identity, text = _id(entry, "id"), entry.get("question")
  given = entry.get("answers_ids")
  if not isinstance(text, str) or not text.strip():
    raise ValueError(f"'question' has no text: {text!r:.40}")
  if not isinstance(given, list):
    raise ValueError(f"'answers_ids' must be a list, got {given!r:.40}")
  found = [answers[i] for i in given if type(i) is int and i in answers]
  if not found:
    raise ValueError(f"no active answer among {given!r:.60}")
  answer = found[0].get("answer")
  if not isinstance(answer, str) or not vqa.normal(answer):
    raise ValueError(f"'answer' has no text: {answer!r:.40}")
  row = {
    "id": f"rsvqa-{identity}",
    "task": "vqa",
    "coordinate_size": list(size),
    "question": vqa.question(text, vqa.kind_of(text, answer)),
    "answer": answer.strip(),
  }
  kind = entry.get("type")
  return row | ({"question_type": kind} if isinstance(kind, str) else {})


def main(argv: Sequence[str] | None = None) -> int:
  """Command line; returns the exit code."""
  parser = command_line.parser(
    "rsvqa", "RSVQA's images, questions and answers to a manifest of triplets."
  )
  parser.add_argument(
    "--records",
    nargs=3,
    required=True,
    help="JSON files of images, questions and answers",
  )
  parser.add_argument("--images", required=True, help="folder of images")
  parser.add_argument(
    "--extension",
    default=EXTENSION,
    help="of the image files (default: %(default)s)",
  )
  return command_line.run(parser, import_rsvqa, argv)


if __name__ == "__main__":
  sys.exit(main())
