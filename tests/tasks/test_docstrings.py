"""Doctests of tasks and metrics."""

import doctest
import importlib

import pytest


@pytest.mark.parametrize(
  "name",
  [
    "metrics.intervals",
    "metrics.text_metrics",
    "tasks.captioning",
    "tasks.class_names",
    "tasks.classification",
    "tasks.counting",
    "tasks.grounding",
    "tasks.sarchat",
  ],
)
def test_examples(name):
  found = doctest.testmod(importlib.import_module(f"fusar_jax.{name}"))
  assert found.attempted
  assert not found.failed
