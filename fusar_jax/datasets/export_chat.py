"""Manifests as rows of ms-swift or LLaVA: others train on the same data.

    python -m fusar_jax.datasets.export_chat --layout ms-swift \
        --manifest data/voc/manifest.jsonl --images images \
        --out data/voc_swift.jsonl

Names of images are relative to `--images`: LLaVA's image folder, ms-swift's
ROOT_IMAGE_DIR. The importer `chat` reads both layouts back.

ms-swift rescales boxes that it knows as "objects", in pixels of the original
image, but none that a text holds. Every [x1, y1, x2, y2] in a text is
therefore <bbox> there, with its numbers in "objects". LLaVA rescales nothing:
boxes are in pixels of the original image, in the text.

AlphaEarth anchors have no place in either layout and are left out.
"""

import argparse
import dataclasses
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fusar_jax import command_line
from fusar_jax.data import vision
from fusar_jax.data.row_texts import texts
from fusar_jax.data.triplets import (
  Triplet,
  raise_together,
  read_manifests,
  require_answers,
  write_manifest,
)
from fusar_jax.tasks import boxes as boxes_lib

LAYOUTS = ("ms-swift", "llava")
# Texts that the readers of these layouts replace.
_RESERVED = ("<image>", "<video>", "<audio>", "<bbox>", "<ref-object>")
# Fields that both layouts keep, unused by their readers.
_KEPT = ("question_type", "references")


@dataclasses.dataclass(frozen=True)
class Exported:
  """What was written: rows, and how many of them lost their anchors."""

  rows: int
  without_anchors: int


def export_chat(
  manifest: str | os.PathLike,
  images: str | os.PathLike,
  out: str | os.PathLike,
  layout: str,
) -> Exported:
  """Writes OUT, JSON lines (ms-swift) or a JSON list (LLaVA).

  Args:
    manifest: path, or several with commas between; every row has an answer.
    images: folder below which all images are.
    out: file to create; .json is a list, any other name has JSON lines.
    layout: one of LAYOUTS.

  Raises:
    FileExistsError: `out` exists.
    FileNotFoundError: no such manifest or image.
    ValueError: an unknown layout, or rows that it cannot hold: all are listed,
      and nothing is written.
  """
  if layout not in LAYOUTS:
    raise ValueError(f"layout must be of {', '.join(LAYOUTS)}, got {layout!r}.")
  if Path(out).exists():
    raise FileExistsError(f"{out} exists; give another name, or delete it.")
  triplets = read_manifests(str(manifest))
  require_answers(triplets)
  rows, bad = [], []
  for triplet in triplets:
    try:
      rows.append(_row(triplet, Path(images), layout))
    except (ValueError, OSError) as error:
      bad.append(f"{triplet.where}: {error}")
  raise_together(bad, f"{manifest}: rows that {layout} cannot hold")
  write_manifest(out, rows)
  return Exported(len(rows), sum(any(t.anchors) for t in triplets))


def _row(triplet: Triplet, images: Path, layout: str) -> dict:
  names = [_name(file, images) for file in triplet.images]
  size = vision.image_size(triplet.images[0])
  asked, answer = texts(triplet, size, size)
  turns = [
    (turn.question, turn.answer, turn.supervised)
    for turn in getattr(asked, "history", ())
  ]
  last = asked if isinstance(asked, str) else asked.question
  turns.append((last, answer or "", True))
  for text in (text for turn in turns for text in turn[:2]):
    if found := [mark for mark in _RESERVED if mark in text]:
      raise ValueError(f"a text holds {found[0]}, which {layout} replaces")
  kept = {"task": triplet.task, **{k: triplet.extra.get(k) for k in _KEPT}}
  row: dict[str, Any] = {
    "id": triplet.id,
    **{k: v for k, v in kept.items() if v},
  }
  marks = "<image>" * len(names)
  if layout == "llava":
    return row | _llava(names, marks, turns)
  boxes: list[list[float]] = []
  messages = [
    message
    for place, turn in enumerate(turns)
    for message in _messages("" if place else marks, turn, boxes)
  ]
  row |= {"messages": messages, "images": names}
  if boxes:
    row["objects"] = {"ref": [], "bbox": boxes, "bbox_type": "real"}
  return row


def _name(file, images: Path) -> str:
  if not isinstance(file, Path):
    raise ValueError(
      f"{file} lies in an archive; export the manifest that it was made from"
    )
  name = Path(os.path.relpath(file.resolve(), images.resolve())).as_posix()
  if name.startswith("../"):
    raise ValueError(f"image {file} does not lie in --images {images}")
  return name


def _messages(
  marks: str, turn: tuple[str, str, bool], boxes: list[list[float]]
) -> Iterator[dict]:
  question, answer, supervised = turn
  asked = boxes_lib.take_boxes(question, "<bbox>", boxes)
  yield {"role": "user", "content": f"{marks}{asked}"}
  said = boxes_lib.take_boxes(answer, "<bbox>", boxes)
  masked = {} if supervised else {"loss": False}
  yield {"role": "assistant", "content": said, **masked}


def _llava(
  names: Sequence[str], marks: str, turns: Sequence[tuple[str, str, bool]]
) -> dict:
  if not all(supervised for _, _, supervised in turns):
    raise ValueError('an answer is marked "loss": false; LLaVA learns all')
  said = []
  for place, (question, answer, _) in enumerate(turns):
    asked = question if place else f"{marks}\n{question}"
    said.append({"from": "human", "value": asked})
    said.append({"from": "gpt", "value": answer})
  image = names[0] if len(names) == 1 else list(names)
  return {"image": image, "conversations": said}


def main(argv: Sequence[str] | None = None) -> int:
  """Command line; returns the exit code."""
  parser = argparse.ArgumentParser(
    prog="python -m fusar_jax.datasets.export_chat",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument(
    "--manifest", required=True, help="one, or several with commas between"
  )
  parser.add_argument(
    "--images", required=True, help="folder that names are relative to"
  )
  parser.add_argument("--layout", required=True, choices=LAYOUTS)
  parser.add_argument(
    "--out", required=True, help="file to create: .jsonl, or .json for a list"
  )

  def export(args: argparse.Namespace) -> None:
    done = export_chat(args.manifest, args.images, args.out, args.layout)
    note = ""
    if done.without_anchors:
      note = f"; the anchors of {done.without_anchors} are left out"
    print(f"{args.out}: {done.rows} rows of {args.layout}{note}")

  return command_line.run(parser, export, argv)


if __name__ == "__main__":
  sys.exit(main())
