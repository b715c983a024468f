"""Benchmarks with lettered options to triplets: OmniEarth, GEOBench-VLM.

    python -m fusar_jax.datasets.importers.options --records qa.json \
        --images Single/images --out data/geobench \
        --source "GEOBench-VLM" --license "..."

A record is one image with its options and up to several wordings of one
question, each of which becomes a row:

  {"image_path": "a.jpg", "prompts": ["What ...?", ...], "question_id": 1,
   "options": "A. race track   B. golf course",
   "ground_truth": "golf_course", "ground_truth_option": "B"}

"options" is one string, or a list ("options_list" is read if it is there). The
letter is the truth. "ground_truth" may be spelt otherwise than its option, as
above, and may be none of the options; a record is rejected if it is another
option than the letter's. "task" is kept as the type of the question.
"""

import os
import re
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

_LETTERED = re.compile(r"^\s*\(?([A-Z])[.):]\s+")


def import_options(
  records: str | os.PathLike,
  images: str | os.PathLike,
  out: str | os.PathLike,
  *,
  origin: Origin,
  copy: bool = False,
  drop_rejected: bool = False,
) -> Path:
  """Writes OUT/manifest.jsonl and OUT/dataset.json; returns the manifest.

  Args:
    records: JSON list of records, or one record.
    images: folder that the records' images are relative to.
    out: output folder; absent or empty.
    origin: recorded in dataset.json.
    copy: copy the images to OUT/images; otherwise rows refer to their paths.
    drop_rejected: skip bad records and list them in OUT/rejected.txt.

  Raises:
    FileExistsError: `out` is not empty.
    FileNotFoundError: no such file.
    ValueError: bad records: all are listed, and nothing is written.
  """
  check_new_folder(out)
  value = read_json(records)
  if value == []:
    raise ValueError(f"{records}: no records; expected a list of them.")
  known, rows, rejected, spelt = {}, {}, [], 0
  for number, record in enumerate(
    value if isinstance(value, list) else [value], start=1
  ):
    try:
      if not isinstance(record, Mapping):
        raise ValueError(f"expected an object, got {type(record).__name__}")
      listed = options_of(record)
      letter = truth_of(record, listed)
      name = record.get("image_path", record.get("image"))
      if not isinstance(name, str) or name not in known:
        file = image_files.named(images, name)
        known[name] = file, vision.image_size(file)
      file, size = known[name]
      found = _rows(f"{Path(records).stem}-{number}", record, listed, letter)
    except (ValueError, OSError) as error:
      rejected.append(f"record {number}: {error}")
      continue
    spelt += record.get("ground_truth", listed[letter]) != listed[letter]
    rows.setdefault(file, []).extend(
      {**row, "coordinate_size": list(size)} for row in found
    )
  if not drop_rejected:
    raise_together(rejected, f"{records}: bad records")
  pictures = [
    Picture(file, file.relative_to(images).as_posix(), of)
    for file, of in rows.items()
  ]
  card = {
    "importer": "options",
    "records": Path(records).name,
    "truths_spelt_otherwise": spelt,
  }
  with new_folder(out) as folder:
    write_dataset(folder, pictures, origin, card, copy=copy, rejected=rejected)
  return Path(out) / "manifest.jsonl"


def options_of(record: Mapping) -> dict[str, str]:
  """Returns letter -> text of the options of a record.

  Raises:
    ValueError: fewer than two options or more than letters, or letters that do
      not run from A.

  Example:
    >>> options_of({"options": "A. race track   B. golf course"})
    {'A': 'race track', 'B': 'golf course'}
  """
  given = record.get("options_list") or record.get("options")
  listed = {}
  if isinstance(given, str):
    listed = vqa.options(given)
  elif isinstance(given, list) and all(isinstance(o, str) for o in given):
    listed = _lettered(given)
  if not listed or not all(map(vqa.normal, listed.values())):
    raise ValueError(
      'expected options "A. ...   B. ..." or a list of at least two and at most'
      f" {len(vqa.LETTERS)}, whose letters, if it has any, run from A; got"
      f" {given!r:.60}"
    )
  return listed


def _lettered(given: Sequence[str]) -> dict[str, str]:
  """Letter -> text; {} if number or letters are not those of options."""
  texts = [" ".join(text.split()) for text in given]
  marks = [_LETTERED.match(text) for text in texts]
  letters = vqa.LETTERS[: len(texts)]
  if all(marks) and [mark and mark[1] for mark in marks] == [*letters]:
    texts = [text[mark.end() :] for text, mark in zip(texts, marks) if mark]
  elif any(marks):
    return {}
  return dict(zip(letters, texts)) if 1 < len(texts) == len(letters) else {}


def truth_of(record: Mapping, listed: Mapping[str, str]) -> str:
  """Returns the letter of the true option.

  Raises:
    ValueError: neither a letter nor the text of an option, or two that differ.
  """
  truth, letter = record.get("ground_truth"), record.get("ground_truth_option")
  named = vqa.parse(str(letter or ""), "option", listed)
  # A number is the text of an option, not its place.
  wanted = vqa.normal(str(truth)) if isinstance(truth, (str, int)) else ""
  same = [key for key, text in listed.items() if vqa.normal(text) == wanted]
  if named.error is not None:
    if letter is None and len(same) == 1:
      return same[0]
    raise ValueError(
      f"'ground_truth_option' {letter!r:.40} and 'ground_truth' {truth!r:.40}"
      f" name none of the options {', '.join(listed)}"
    )
  if same and named.value not in same:
    raise ValueError(
      f"'ground_truth' {truth!r:.40} is option {same[0]}, but"
      f" 'ground_truth_option' is {letter!r:.40}"
    )
  return named.value


def _rows(identity, record, listed, letter) -> list[dict]:
  asked = record.get("prompts") or record.get("question")
  asked = [asked] if isinstance(asked, str) else asked
  if (
    not isinstance(asked, list)
    or not asked
    or not all(isinstance(text, str) and text.strip() for text in asked)
  ):
    raise ValueError(f"'prompts' must be a list of texts, got {asked!r:.60}")
  questions = [
    vqa.question(text, options=list(listed.values())) for text in asked
  ]
  if any(vqa.options(question) != listed for question in questions):
    raise ValueError(f"options or question hold letters: {questions[0]!r:.200}")
  kept = {"question_type": record.get("task"), "source_id": _source_id(record)}
  return [
    {
      "id": f"{identity}-{place}",
      "task": "vqa",
      "question": question,
      "answer": letter,
      **{key: value for key, value in kept.items() if value},
    }
    for place, question in enumerate(questions, start=1)
  ]


def _source_id(record: Mapping) -> str | None:
  value = record.get("question_id")
  return str(value) if isinstance(value, (str, int)) else None


def main(argv: Sequence[str] | None = None) -> int:
  """Command line; returns the exit code."""
  parser = command_line.parser(
    "options", "Benchmarks with lettered options to a manifest of triplets."
  )
  parser.add_argument("--records", required=True, help="JSON list")
  parser.add_argument("--images", required=True, help="folder of images")
  return command_line.run(parser, import_options, argv)


if __name__ == "__main__":
  sys.exit(main())
