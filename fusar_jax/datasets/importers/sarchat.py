"""SARChat-Bench-2M dialogues to triplets: six tasks and their box notation.

    python -m fusar_jax.datasets.importers.sarchat --dialogues count_test.json \
        --images images --out data/sarchat_count --tasks counting --scored \
        --source "SARChat-Bench-2M, arXiv 2502.08168" --license "CC BY-NC 4.0"

A record is an image and one question with its answer, in one of the two layouts
of common training tools:

  {"image": "a.jpg", "conversations": [{"from": "human", "value": ...},
                                       {"from": "gpt", "value": ...}]}
  {"images": ["a.jpg"], "messages": [{"role": "user", "content": ...},
                                     {"role": "assistant", "content": ...}]}

Published (arXiv 2502.08168, sections 3 and A.4): the six tasks; the tags
[count], [grounding], [identify] and [refer] that begin a question; boxes as
{<x1><y1><x2><y2>}, pixels of the image; the six categories. Not published: the
layout of a record, and how to distinguish classification from description,
which have no tag. Both layouts are supported. `untagged` gives the task of a
file without tags; otherwise each record must declare it ("task").

Boxes are rewritten as [x1, y1, x2, y2], the notation that the loader rescales
to the model's input image; it would not rescale boxes in braces. All other text
is unchanged, and the rows' tasks are "sarchat-counting" and so on, which
`tasks.sarchat` scores as SARChat does. With `scored`, counting and
identification (classification of a given box) use this project's prompts and
scoring instead; the other four tasks have no counterpart.
"""

import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from fusar_jax.data import prompts, vision
from fusar_jax.data.triplets import raise_together
from fusar_jax.datasets.importers import command_line, image_files
from fusar_jax.datasets.importers.annotation_json import read_records
from fusar_jax.datasets.importers.dataset_folder import (
  Origin,
  Picture,
  write_dataset,
)
from fusar_jax.datasets.importers.targets import (
  Target,
  check_overlap,
  pixels,
  task_row,
)
from fusar_jax.io.atomic_write import check_new_folder, new_folder
from fusar_jax.tasks import counting
from fusar_jax.tasks.sarchat import CATEGORIES
from fusar_jax.tasks.sarchat import SUBTASKS as TASKS
from fusar_jax.tasks.sarchat import TAGS as _TAGS

UNTAGGED = ("classification", "description")

_TAG = re.compile(r"^\s*\[([a-z]+)\]\s*", re.IGNORECASE)
# Whatever stands in <> must be a box as published, or nothing at all.
_BRACES = re.compile(r"\{?(?:<[^<>]*>)+\}?")
_NUMBER = r"<\s*(-?\d+(?:\.\d+)?)\s*>"
_BOX = re.compile(rf"\{{{_NUMBER * 4}\}}")
_SPEAKERS = {
  "human": "user",
  "user": "user",
  "gpt": "assistant",
  "assistant": "assistant",
  "system": "system",
}


Box = tuple[float, float, float, float]


def read_boxes(text: str) -> tuple[str, list[Box]]:
  """Returns (the text with its boxes in brackets, the boxes xyxy in pixels).

  Raises:
    ValueError: braces or angles that are no box.

  Example:
    >>> read_boxes("There are 2. {<1><2><30><40>}{<5><6><7><8>}")[0]
    'There are 2. [1, 2, 30, 40][5, 6, 7, 8]'
  """
  boxes = []

  def rewrite(match):
    whole = _BOX.fullmatch(match[0])
    if not whole:
      raise ValueError(
        f"{match[0]!r:.60} is no box; expected {{<x1><y1><x2><y2>}}"
      )
    x0, y0, x1, y1 = (pixels(number, match[0]) for number in whole.groups())
    boxes.append((x0, y0, x1, y1))
    return str(list(boxes[-1]))

  return _BRACES.sub(rewrite, text), boxes


def import_sarchat(
  dialogues: str | os.PathLike,
  images: str | os.PathLike,
  out: str | os.PathLike,
  *,
  origin: Origin,
  tasks: Sequence[str] = TASKS,
  untagged: str | None = None,
  scored: bool = False,
  copy: bool = False,
  drop_rejected: bool = False,
) -> Path:
  """Writes OUT/manifest.jsonl and OUT/dataset.json; returns the manifest.

  Args:
    dialogues: JSON list or JSON lines of records.
    images: folder that the records' images are relative to.
    out: output folder; absent or empty.
    origin: recorded in dataset.json.
    tasks: those to import, of `TASKS`; the card counts the others' records.
    untagged: the task of a question without a tag, of `UNTAGGED`.
    scored: ask counting and identification in this project's words.
    copy: copy the images to OUT/images; otherwise rows refer to their paths.
    drop_rejected: skip bad records and list them in OUT/rejected.txt.

  Raises:
    FileExistsError: `out` is not empty.
    FileNotFoundError: no such dialogues.
    ValueError: bad records: all are listed, and nothing is written.
  """
  check_new_folder(out)
  if not tasks or not set(tasks) <= set(TASKS):
    raise ValueError(f"tasks must be of {TASKS}, got {tuple(tasks)}.")
  if untagged not in (None, *UNTAGGED):
    raise ValueError(f"untagged must be of {UNTAGGED}, got {untagged!r}.")
  stem = Path(dialogues).stem
  # Most images are asked about many times.
  rows, known, rejected, others = {}, {}, [], 0
  for number, record in read_records(dialogues):
    try:
      name, question, answer = _dialogue(record)
      task = _task(record, question, untagged)
      if task not in tasks:
        others += 1
        continue
      if name not in known:
        file = image_files.named(images, name)
        known[name] = file, vision.image_size(file)
      file, size = known[name]
      row = _row(f"{stem}-{number}", task, question, answer, size, scored)
    except (ValueError, OSError) as error:
      rejected.append(f"row {number}: {error}")
      continue
    if "id" in record:
      row["source_id"] = record["id"]
    rows.setdefault(file, []).append(row)
  if not drop_rejected:
    raise_together(rejected, f"{dialogues}: bad records")
  pictures = [
    Picture(file, file.relative_to(images).as_posix(), asked)
    for file, asked in rows.items()
  ]
  card = {
    "importer": "sarchat",
    "dialogues": Path(dialogues).name,
    "tasks": list(tasks),
    "untagged": untagged,
    "scored": scored,
    "records_of_other_tasks": others,
  }
  with new_folder(out) as folder:
    write_dataset(folder, pictures, origin, card, copy=copy, rejected=rejected)
  return Path(out) / "manifest.jsonl"


def _dialogue(record) -> tuple[str, str, str]:
  """Returns (name of the image, question, answer) of either layout."""
  if not isinstance(record, Mapping):
    raise ValueError(f"expected an object, got {type(record).__name__}")
  turns = record.get("conversations", record.get("messages"))
  if not isinstance(turns, list):
    raise ValueError('no "conversations" and no "messages"')
  parsed = [_turn(turn) for turn in turns]
  if parsed and parsed[0] == ("system", prompts.SYSTEM):
    parsed = parsed[1:]
  speakers = [speaker for speaker, _ in parsed]
  if speakers != ["user", "assistant"]:
    raise ValueError(
      "expected one question and its answer, got turns of"
      f" {', '.join(speakers) or 'none'}"
    )
  names = record.get("image", record.get("images"))
  names = names if isinstance(names, list) else [names]
  if len(names) != 1 or not isinstance(names[0], str):
    raise ValueError(f'expected one name in "image", got {names!r:.60}')
  question, marks = re.subn(r"\s*<image>\s*", " ", parsed[0][1])
  if marks > 1:
    raise ValueError(f"{marks} times <image> for one image")
  return names[0], question.strip(), parsed[1][1].strip()


def _turn(turn) -> tuple[str, str]:
  if not isinstance(turn, Mapping):
    raise ValueError(f"a turn is {type(turn).__name__}, expected an object")
  speaker = turn.get("from", turn.get("role"))
  text = turn.get("value", turn.get("content"))
  if not isinstance(speaker, str) or speaker not in _SPEAKERS:
    raise ValueError(
      f"speaker {speaker!r:.40} is none of {', '.join(_SPEAKERS)}"
    )
  if not isinstance(text, str) or not text.strip():
    raise ValueError(f"turn of {speaker} has no text: {text!r:.40}")
  return _SPEAKERS[speaker], text


def _task(record, question: str, untagged: str | None) -> str:
  declared = record.get("task")
  tag = _TAG.match(question)
  if tag and tag[1].lower() not in _TAGS:
    raise ValueError(f"tag {tag[0].strip()} is none of {', '.join(_TAGS)}")
  if not tag:
    task = declared if declared in TASKS else untagged
  elif declared in TASKS and declared != _TAGS[tag[1].lower()]:
    raise ValueError(
      f'"task" is {declared}, but the question is tagged {tag[0]}'
    )
  else:
    task = _TAGS[tag[1].lower()]
  if task is None:
    raise ValueError(
      "a question without a tag; state whether it is classification or"
      ' description, in the record ("task") or for all (--untagged)'
    )
  return task


def _row(identity, task, question, answer, size, scored) -> dict:
  question, given = read_boxes(question)
  answer, found = read_boxes(answer)
  for box in given + found:
    check_overlap(box, size)
  label, boxes = _subject(task, question, answer, given, found)
  if task == "counting":
    _check_count(answer, found)
  if scored and task in ("counting", "identification"):
    label = _check_scored(task, label, boxes)
    targets = [Target(label, box) for box in boxes]
    ours = "classification" if task == "identification" else task
    return task_row(identity, ours, label, size, targets, CATEGORIES)
  row = {
    "id": identity,
    "task": f"sarchat-{task}",
    "coordinate_size": list(size),
    "question": question,
    "answer": answer,
  }
  if label:
    row |= {"boxes": [list(b) for b in boxes], "labels": [label] * len(boxes)}
  return row


def _subject(task, question, answer, given, found):
  """Returns (the one category that is mentioned, or None; its boxes).

  Grounding, description and classification mention several, and which box is
  whose is not published.
  """
  if task in ("counting", "referring"):
    return _category(question), found
  if task == "identification":
    return _category(answer), given
  return None, []


def _category(text: str) -> str | None:
  words = re.findall(r"[a-z]+", text.lower())
  found = {name for name in CATEGORIES if name in words or f"{name}s" in words}
  return found.pop() if len(found) == 1 else None


def _check_count(answer: str, boxes) -> None:
  count = counting.parse(re.sub(r"\[[^\[\]]*\]", "", answer))
  if boxes and count.value is not None and count.value != len(boxes):
    raise ValueError(
      f"the answer counts {count.value} but holds {len(boxes)} boxes:"
      f" {answer!r:.60}"
    )


def _check_scored(task, label, boxes) -> str:
  if label is None:
    where = "question" if task == "counting" else "answer"
    raise ValueError(
      f"to be scored, the {where} must name one of {', '.join(CATEGORIES)}"
    )
  if not boxes or (task == "identification" and len(boxes) > 1):
    raise ValueError(f"to be scored, {task} needs its boxes, got {len(boxes)}")
  return label


def main(argv: Sequence[str] | None = None) -> int:
  """Command line; returns the exit code."""
  parser = command_line.parser(
    "sarchat", "SARChat-Bench-2M dialogues to a manifest of triplets."
  )
  parser.add_argument("--dialogues", required=True, help="JSON or JSON lines")
  parser.add_argument("--images", required=True, help="folder of images")
  parser.add_argument("--tasks", nargs="+", default=TASKS, choices=TASKS)
  parser.add_argument(
    "--untagged", choices=UNTAGGED, help="what a question without a tag is"
  )
  parser.add_argument(
    "--scored",
    action="store_true",
    help="ask counting and identification as `evaluate` scores them",
  )
  return command_line.run(parser, import_sarchat, argv)


if __name__ == "__main__":
  sys.exit(main())
