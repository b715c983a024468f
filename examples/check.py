"""Runs the notebooks and compares what they print with what they store.

COMMAND (pip install -e '.[notebooks]'):
  python examples/check.py examples/quickstart.ipynb examples/your_scene.ipynb
  python examples/check.py --write examples/quickstart.ipynb

Each notebook runs from top to bottom in an empty folder, so that no run of a
reader is continued; the first error ends it. Then every cell must have outputs
of the stored kinds, and by its tags:

  exact           the stored text
  close           the stored text, in which numbers may differ by TOLERANCE: of
                  a short training, whose last digits depend on the processor
  skip-execution  it is not run: it needs what CI has not got

--write stores the outputs instead, without durations and the folder's name.
"""

import argparse
import copy
import difflib
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
# Of numbers in cells tagged "close", most of which are percent.
TOLERANCE = 25.0
# Only a cell that hangs takes longer.
SECONDS = 1800
# What differs from run to run: progress and cost of answers, speed of training.
_PASSING = re.compile(
  r"^(?:predict \d+/|decoded |goodput ).*\n"
  r"| (?:samples/s|tokens/s|eta) \S+",
  re.MULTILINE,
)
_NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e[-+]\d+)?")
# A cell or an output, as in the file.
Node = dict[str, Any]


def main() -> int:
  import nbformat  # Of the extra; the tests of this file need none.

  options = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  options.add_argument("notebooks", nargs="+", type=Path, metavar="NOTEBOOK")
  options.add_argument(
    "--write", action="store_true", help="store the outputs in the notebooks"
  )
  args = options.parse_args()
  problems = []
  for path in args.notebooks:
    stored = nbformat.read(path, as_version=4)
    print(f"{path}: running", flush=True)
    made = run(stored)
    if args.write:
      nbformat.write(made, path)
    else:
      problems += [f"{path}: {text}" for text in differences(stored, made)]
  if problems:
    print("\n".join(problems), file=sys.stderr)
  return bool(problems)


def run(notebook):
  """Returns an executed copy of a notebook, with outputs in stored form.

  Raises:
    nbclient.exceptions.CellExecutionError: a cell failed; with its traceback.
  """
  from nbclient import NotebookClient

  made = copy.deepcopy(notebook)
  with tempfile.TemporaryDirectory() as folder:
    for name in ("configs", "launch"):  # The commands name their files.
      (Path(folder) / name).symlink_to(ROOT / name)
    paths = [str(ROOT), os.environ.get("PYTHONPATH")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    NotebookClient(
      made,
      timeout=SECONDS,
      record_timing=False,
      resources={"metadata": {"path": folder}},
    ).execute()
    for cell in code_cells(made):
      cell["outputs"] = stored_form(cell["outputs"], folder)
  # Without the versions of the machine that ran it.
  made["metadata"] = notebook["metadata"]
  return made


def stored_form(outputs: list[Node], folder: str) -> list[Node]:
  """Returns outputs without what differs from run to run.

  The text of a stream is one output, where the stream began. Empty lines around
  it remain of moving bars and go.

  Args:
    outputs: of a cell; they are changed.
    folder: in which it ran.
  """
  kept: list[Node] = []
  streams: dict[str, Node] = {}
  for output in outputs:
    if output["output_type"] == "stream":
      text = output["text"].replace(folder + os.sep, "")
      if output["name"] in streams:
        streams[output["name"]]["text"] += text
        continue
      output["text"] = text
      streams[output["name"]] = output
    elif output["output_type"] == "display_data":
      output["data"].pop("text/plain", None)  # "<Figure size ...>"
    kept.append(output)
  for output in streams.values():
    output["text"] = _PASSING.sub("", output["text"]).strip("\n") + "\n"
  return [output for output in kept if output.get("text") != "\n"]


def differences(stored: Node, made: Node) -> list[str]:
  """Returns what differs, one text per cell."""
  found = []
  for before, now in zip(code_cells(stored), code_cells(made), strict=True):
    name = f"cell {before['id']}"
    tags = before["metadata"].get("tags", ())
    if kinds(before) != kinds(now):
      found.append(f"{name}: outputs {kinds(now)}, stored {kinds(before)}.")
    elif {"exact", "close"} & {*tags}:
      old, new = text_of(before), text_of(now)
      if not (old == new or ("close" in tags and is_close(old, new))):
        lines = difflib.unified_diff(
          old.splitlines(), new.splitlines(), "stored", "now", lineterm="", n=0
        )
        found.append("\n  ".join([f"{name}:", *lines]))
  return found


def is_close(old: str, new: str) -> bool:
  """Whether texts are equal but for numbers that differ by TOLERANCE.

  Example: columns may move, words may not.
    >>> is_close("F1  61.2 (55-68)", "F1 59.9 (54-66)")
    True
    >>> is_close("F1 61.2", "F1 46.1"), is_close("3 ships", "3 planes")
    (False, False)
  """
  if _NUMBER.sub("#", old).split() != _NUMBER.sub("#", new).split():
    return False
  pairs = zip(_NUMBER.findall(old), _NUMBER.findall(new), strict=True)
  return all(abs(float(a) - float(b)) <= TOLERANCE for a, b in pairs)


def code_cells(notebook: Node) -> list[Node]:
  """Returns the cells that can run."""
  return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def kinds(cell: Node) -> list[str]:
  """Returns what a cell shows: names of streams, MIME types; sorted."""
  return sorted(
    output.get("name") or ", ".join(sorted(output.get("data", {"error": 0})))
    for output in cell["outputs"]
  )


def text_of(cell: Node) -> str:
  """Returns the text that a cell printed, streams by name, and its value."""
  parts = sorted(cell["outputs"], key=lambda output: output.get("name", ""))
  return "".join(
    "".join(output.get("text") or output.get("data", {}).get("text/plain", ""))
    for output in parts
  )


if __name__ == "__main__":
  sys.exit(main())
