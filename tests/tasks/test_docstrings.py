"""The examples of the docstrings of tasks."""

import doctest
import importlib

import pytest


@pytest.mark.parametrize(
  "name",
  [
    "captioning",
    "class_names",
    "classification",
    "counting",
    "grounding",
    "sarchat",
    "scores",
    "text_scores",
  ],
)
def test_examples(name):
  found = doctest.testmod(importlib.import_module(f"fusar_jax.tasks.{name}"))
  assert found.attempted
  assert not found.failed
