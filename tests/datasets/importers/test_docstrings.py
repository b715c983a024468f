"""Doctests of the importers."""

import doctest
import importlib

import pytest


@pytest.mark.parametrize("name", ["duplicates", "geovl", "sarchat"])
def test_examples(name):
  module = importlib.import_module(f"fusar_jax.datasets.importers.{name}")
  found = doctest.testmod(module)
  assert found.attempted
  assert not found.failed
