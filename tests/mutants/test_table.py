"""Every planted fault still applies; `make mutants` runs them."""

import dataclasses
import importlib.util
import sys
from pathlib import Path

import pytest

_RUN = Path(__file__).with_name("run.py")


@pytest.fixture(scope="module")
def mutants():
  spec = importlib.util.spec_from_file_location("mutants_run", _RUN)
  module = importlib.util.module_from_spec(spec)
  sys.modules[spec.name] = module  # Dataclasses look their module up.
  spec.loader.exec_module(module)
  yield module
  del sys.modules[spec.name]


def test_every_mutant_applies(mutants):
  table = mutants.read_table()
  assert len(table) >= 60
  assert mutants.problems(table) == []


def test_a_mutant_that_no_longer_applies_is_an_error(mutants):
  mutant = mutants.Mutant("a", "b.py", "x = 1", "x = 2", ())
  assert mutants.apply(mutant, "x = 1\n") == "x = 2\n"
  for text in ("x = 3\n", "x = 1\nx = 1\n"):
    with pytest.raises(ValueError, match=r"'a'.* times in .*table\.toml"):
      mutants.apply(mutant, text)
  with pytest.raises(ValueError, match="no Python"):
    mutants.apply(dataclasses.replace(mutant, new="x = ("), "x = 1\n")
  with pytest.raises(ValueError, match="changes nothing"):
    mutants.apply(dataclasses.replace(mutant, new="x = 1"), "x = 1\n")


def test_the_page_is_that_of_the_table(mutants):
  """A row each, in order; the last run's results stand in it."""
  rows = mutants.PAGE.read_text("utf-8").split("|---|---|---|\n")[1]
  named = [row.split(" | ")[0].removeprefix("| ") for row in rows.splitlines()]
  assert named == [mutant.name for mutant in mutants.read_table()]
