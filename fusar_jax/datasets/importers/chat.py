"""Records of chats about images to triplets, in the layouts of training tools.

    python -m fusar_jax.datasets.importers.chat --dialogues train.json \
        --images images --task vqa --out data/chat \
        --source "..." --license "..."

LLaVA, ms-swift, OpenAI, EarthDial and GeoChat; `chat_layouts` shows a record of
each. A row has the last question with its answer; earlier turns are its
"history" (`data.dialogue`), and messages with "loss": false are not learned.
What follows the last answer that is learned is dropped, since it has no effect.

Images may be names below `--images`, or data URIs, which are written to
OUT/images. All images of a row precede its first question, in their order: a
record with text between them, or with images in later turns, is rejected.

Boxes become [x1, y1, x2, y2] in pixels of the first image, the notation that
the loader rescales (`chat_boxes`).

The task of a row is `--task`, or the record's "task"; without either it is
guessed from the question where it is needed.
"""

import collections
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fusar_jax.data import prompts, vision
from fusar_jax.data.triplets import raise_together
from fusar_jax.datasets.importers import (
  chat_boxes,
  command_line,
  embedded_images,
  image_files,
)
from fusar_jax.datasets.importers.annotation_json import read_records
from fusar_jax.datasets.importers.chat_boxes import Objects, Rewriter
from fusar_jax.datasets.importers.chat_layouts import (
  IMAGE,
  Message,
  Record,
  read_record,
)
from fusar_jax.datasets.importers.dataset_folder import (
  Origin,
  Picture,
  write_dataset,
)
from fusar_jax.datasets.importers.embedded_images import Embedded
from fusar_jax.io.atomic_write import check_new_folder, new_folder
from fusar_jax.tasks import predictions, sarchat

TASKS = (*predictions.TASKS, "vqa", "free-captioning", *sarchat.TASKS)

_IMAGES = re.compile(r"(?:<image>\s*)+")


def import_chat(
  dialogues: str | os.PathLike,
  images: str | os.PathLike | None,
  out: str | os.PathLike,
  *,
  origin: Origin,
  task: str | None = None,
  box_range: str | None = None,
  drop_system: bool = False,
  copy: bool = False,
  drop_rejected: bool = False,
) -> Path:
  """Writes OUT/manifest.jsonl and OUT/dataset.json; returns the manifest.

  Args:
    dialogues: JSON list or JSON lines of records.
    images: folder that the records' images are relative to; None: all images
      are data URIs.
    out: output folder; absent or empty.
    origin: recorded in dataset.json.
    task: of all rows, of TASKS; None: as the records declare.
    box_range: of boxes with four bare numbers, one of `chat_boxes.RANGES`.
    drop_system: drop system messages; otherwise records with another one than
      the model's are rejected.
    copy: copy the images to OUT/images; otherwise rows refer to their paths.
    drop_rejected: skip bad records and list them in OUT/rejected.txt.

  Raises:
    FileExistsError: `out` is not empty.
    FileNotFoundError: no such dialogues.
    ValueError: an unknown option, or bad records: all are listed, and nothing
      is written.
  """
  check_new_folder(out)
  if task not in (None, *TASKS):
    raise ValueError(f"task must be of {', '.join(TASKS)}, got {task!r}.")
  if box_range not in (None, *chat_boxes.RANGES):
    ranges = ", ".join(chat_boxes.RANGES)
    raise ValueError(f"box range must be of {ranges}, got {box_range!r}.")
  stem = Path(dialogues).stem
  sources = Sources(images)
  rows, rejected = collections.defaultdict(list), []
  systems = 0
  for number, value in read_records(dialogues):
    try:
      record = read_record(value)
      files = [sources.find(name) for name in record.images]
      messages = [m for m in record.messages if m.role != "system"]
      systems += len(messages) < len(record.messages)
      if not drop_system:
        messages = _without_default_system(record.messages)
      rewriters = [Rewriter(sources.sizes[f], box_range) for f in files]
      row = {
        "id": f"{stem}-{number}",
        **_declared(record, task),
        **_row(record, messages, rewriters),
        "image": files,
      }
    except (ValueError, OSError) as error:
      rejected.append(f"row {number}: {error}")
      continue
    for file in files[1:]:
      rows.setdefault(file, [])
    rows[files[0]].append(row)
  if not drop_rejected:
    raise_together(rejected, f"{dialogues}: bad records")
  card = {
    "importer": "chat",
    "dialogues": Path(dialogues).name,
    "task": task,
    "box_range": box_range,
    "system_messages_dropped": systems if drop_system else 0,
  }
  with new_folder(out) as folder:
    write_dataset(
      folder,
      [sources.picture(file, asked) for file, asked in rows.items()],
      origin,
      card,
      copy=copy,
      rejected=rejected,
      digests=sources.digests(rows),
    )
  return Path(out) / "manifest.jsonl"


class Sources:
  """Image files and data URIs of records, each looked up once.

  Attributes:
    sizes: path -> (height, width); the path of a data URI is its name.
  """

  def __init__(self, folder: str | os.PathLike | None):
    self._folder = folder
    self._embedded: dict[Path, Embedded] = {}
    self._known: dict[str, Path] = {}
    self.sizes: dict[Path, tuple[int, int]] = {}

  def find(self, name: str) -> Path:
    """Returns the path of an image.

    Raises:
      ValueError, FileNotFoundError: an address, a bad data URI, no such file,
        or one outside of the folder.
    """
    if name.startswith("data:"):
      found = embedded_images.decode(name)
      path = Path(found.name)
      self._embedded[path] = found
      self.sizes[path] = found.size
      return path
    if name not in self._known:
      path = self._named(name)
      self.sizes[path] = vision.image_size(path)
      self._known[name] = path
    return self._known[name]

  def _named(self, name: str) -> Path:
    if "://" in name:
      raise ValueError(
        f"{name!r:.80} is an address; download the images, and give their names"
      )
    if self._folder is None:
      raise ValueError(
        f"{name!r:.80}: give the folder of the images (--images)"
      )
    path, folder = Path(name), Path(self._folder).resolve()
    if path.is_absolute() and path.is_relative_to(folder):
      name = path.relative_to(folder).as_posix()
    return image_files.named(self._folder, name)

  def picture(self, path: Path, rows: Sequence[Mapping]) -> Picture:
    """Returns the picture of a path, with its rows."""
    if found := self._embedded.get(path):
      return Picture(path, found.name, rows, lambda: found.content)
    assert self._folder is not None  # `find` has checked it.
    return Picture(path, path.relative_to(self._folder).as_posix(), rows)

  def digests(self, paths: Iterable[Path]) -> dict[Path, str]:
    """Returns the SHA-256 hex digest of each image."""
    files = [path for path in paths if path not in self._embedded]
    given = {path: one.sha256 for path, one in self._embedded.items()}
    return image_files.digests(files) | given


def _declared(record: Record, task: str | None) -> dict:
  if task is None and record.task not in (None, *TASKS):
    raise ValueError(
      f'"task" {record.task!r:.40} is none of {", ".join(TASKS)}; state the'
      " task of all rows with --task"
    )
  found = {
    "task": task or record.task,
    "question_type": record.question_type,
    "source_id": record.identity,
    "references": list(record.references),
  }
  return {key: value for key, value in found.items() if value or value == 0}


def _without_default_system(messages: Sequence[Message]) -> list[Message]:
  system = [message for message in messages if message.role == "system"]
  if any(message.text.strip() != prompts.SYSTEM for message in system):
    raise ValueError(
      f"a system message other than {prompts.SYSTEM!r}, which prompts of this"
      f" model have: {system[0].text!r:.60}; --drop-system drops it"
    )
  return [message for message in messages if message.role != "system"]


def _row(
  record: Record, messages: Sequence[Message], rewriters: Sequence[Rewriter]
) -> dict:
  """Returns the fields of the texts."""
  _check_turns(messages)
  if not rewriters:
    raise ValueError("the record names no image; a triplet needs one")
  texts = _without_marks([m.text for m in messages], len(rewriters))
  texts = _with_boxes(texts, record.objects, rewriters)
  turns = list(zip(texts[::2], texts[1::2]))
  learned = [m.loss is not False for m in messages if m.role == "assistant"]
  row: dict[str, Any] = {"coordinate_size": list(rewriters[0].size)}
  if len(texts) % 2:
    # A question without an answer, which only prediction can do without.
    row |= {"question": texts[-1]}
    learned = [False] * len(learned)
  elif not any(learned):
    raise ValueError('every answer is marked "loss": false')
  else:
    last = max(i for i, on in enumerate(learned) if on)
    question, answer = turns[last]
    row |= {"question": question, "answer": answer}
    turns = turns[:last]
  if turns:
    row["history"] = [
      {"question": asked, "answer": said, **({} if on else {"loss": False})}
      for (asked, said), on in zip(turns, learned)
    ]
  return row


def _check_turns(messages: Sequence[Message]) -> None:
  roles = [message.role for message in messages]
  expected = ["user", "assistant"] * (len(roles) // 2 + 1)
  if not roles or roles != expected[: len(roles)]:
    raise ValueError(
      "expected user and assistant by turns, got"
      f" {', '.join(roles[:8]) or 'no message'}"
    )


def _without_marks(texts: Sequence[str], count: int) -> list[str]:
  """Returns the texts without "<image>", after checking where these stand."""
  marks = [text.count(IMAGE) for text in texts]
  if any(marks[1:]):
    raise ValueError(
      "an image in a later turn; all images of a row precede its first question"
    )
  if marks[0] not in (0, count):
    raise ValueError(f"{marks[0]} times <image> for {count} images")
  if len(_IMAGES.findall(texts[0])) > 1:
    raise ValueError(
      "text between the images; all images of a row precede its question"
    )
  around = [text.strip() for text in _IMAGES.split(texts[0])]
  first = " ".join(filter(None, around))
  return [first, *(text.strip() for text in texts[1:])]


def _with_boxes(
  texts: Sequence[str], objects: Mapping | None, rewriters: Sequence[Rewriter]
) -> list[str]:
  first = rewriters[0]
  found = [first.rewrite(text) for text in texts]
  sizes = {rewriter.size for rewriter in rewriters}
  if len(sizes) > 1 and any(map(chat_boxes.has_boxes, texts)):
    raise ValueError(
      f"boxes, and images of {len(sizes)} sizes: it is not known whose they are"
    )
  if objects is not None:
    values = Objects(objects, rewriters)
    found = [values.fill(text) for text in found]
    values.check_used()
  return found


def main(argv: Sequence[str] | None = None) -> int:
  """Command line; returns the exit code."""
  parser = command_line.parser(
    "chat", "Records of chats about images to a manifest of triplets."
  )
  parser.add_argument("--dialogues", required=True, help="JSON or JSON lines")
  parser.add_argument(
    "--images", help="folder of images; none needed for data URIs"
  )
  parser.add_argument(
    "--task", choices=TASKS, help="of all rows (default: of the records)"
  )
  parser.add_argument(
    "--box-range",
    choices=chat_boxes.RANGES,
    help="what {<x1><y1><x2><y2>} and [x1, y1, x2, y2] in texts range over",
  )
  parser.add_argument(
    "--drop-system",
    action="store_true",
    help="drop system messages (default: reject other ones than the model's)",
  )
  return command_line.run(parser, import_chat, argv)


if __name__ == "__main__":
  sys.exit(main())
