"""Doctests of the package."""

import doctest
import importlib

import pytest


@pytest.mark.parametrize(
  "name",
  [
    "fusar_jax.data.anchor_weights",
    "fusar_jax.data.prompts",
    "fusar_jax.data.vision",
  ],
)
def test_examples(name):
  found = doctest.testmod(importlib.import_module(name))
  assert found.attempted
  assert not found.failed
