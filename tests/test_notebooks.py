"""The notebooks of examples/ as stored; `make notebooks` runs them.

Nothing in them depends on the machine that ran them, and what does not run in
CI has no outputs.
"""

import copy
import doctest
import importlib.util
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NAMES = ("quickstart", "your_scene", "tpu")
# Of one cell's outputs: the repository keeps every version.
MOST_BYTES = 300_000
MACHINE = re.compile(r"/(?:tmp|home|root|Users|content|work|mnt)/|\x1b\[")


def load_check():
  spec = importlib.util.spec_from_file_location(
    "check", ROOT / "examples/check.py"
  )
  assert spec
  assert spec.loader
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


check = load_check()


@pytest.fixture(params=NAMES)
def notebook(request):
  path = ROOT / "examples" / f"{request.param}.ipynb"
  return json.loads(path.read_text(encoding="utf-8"))


def test_all_notebooks_are_tested():
  assert {p.stem for p in (ROOT / "examples").glob("*.ipynb")} == {*NAMES}


def test_ids_name_their_cells(notebook):
  assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
  ids = [cell["id"] for cell in notebook["cells"]]
  assert len({*ids}) == len(ids)
  assert all(re.fullmatch(r"[a-z][a-z-]*", name) for name in ids)


def test_the_first_cell_installs_and_names_no_address(notebook):
  first = check.code_cells(notebook)[0]
  assert first["metadata"]["tags"] == ["install"]
  source = "".join(first["source"])
  assert 'REPOSITORY = ""\n' in source
  assert "://" not in source
  assert not first["outputs"]


def test_outputs_are_of_one_run_and_of_no_machine(notebook):
  assert notebook["metadata"].keys() == {"kernelspec", "language_info"}
  count = 0
  for cell in check.code_cells(notebook):
    assert cell["metadata"].keys() <= {"tags"}
    if "skip-execution" in cell["metadata"].get("tags", ()):
      assert cell["execution_count"] is None
      assert not cell["outputs"]
      continue
    count += 1
    assert cell["execution_count"] == count
    text = json.dumps(cell["outputs"])
    assert len(text) <= MOST_BYTES, cell["id"]
    shown = text.encode().decode("unicode_escape")
    assert not MACHINE.search(shown), cell["id"]
    assert "error" not in check.kinds(cell)
    assert check.stored_form(copy.deepcopy(joined(cell)), "/x") == joined(cell)


def joined(cell):
  """Outputs with texts as one string, as nbformat reads them."""
  outputs = copy.deepcopy(cell["outputs"])
  for output in outputs:
    if "text" in output:
      output["text"] = "".join(output["text"])
  return outputs


def printed(*texts, tags=()):
  """A notebook of a cell that prints."""
  outputs = [
    {"output_type": "stream", "name": "stdout", "text": text} for text in texts
  ]
  cell = {"cell_type": "code", "id": "a", "outputs": outputs}
  return {"cells": [{**cell, "metadata": {"tags": tags}}]}


def test_examples_of_the_check():
  assert doctest.testmod(check).attempted


@pytest.mark.parametrize(
  ("tags", "now", "differs"),
  [
    (["exact"], "3 ships", False),
    (["exact"], "4 ships", True),
    (["close"], "4 ships", False),
    (["close"], "30 ships", True),
    (["close"], "3 planes", True),
    ([], "anything", False),
  ],
)
def test_what_differs(tags, now, differs):
  stored = printed("3 ships", tags=tags)
  assert bool(check.differences(stored, printed(now, tags=tags))) == differs


def test_a_cell_that_shows_nothing_more_differs():
  assert check.differences(printed("3 ships"), printed())


def test_stored_form_drops_what_passes():
  (cell,) = printed(
    "step 1 loss 0.5 samples/s 3.2 eta 00:10\n", "in /a/b/runs\n"
  )["cells"]
  (output,) = check.stored_form(cell["outputs"], "/a/b")
  assert output["text"] == "step 1 loss 0.5\nin runs\n"
