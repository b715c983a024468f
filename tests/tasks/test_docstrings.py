"""Doctests of all modules of tasks and metrics that have any."""

import doctest
import importlib
import pkgutil

import pytest

from fusar_jax import metrics, tasks


def _modules():
  for package in (metrics, tasks):
    for found in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
      module = importlib.import_module(found.name)
      if any(test.examples for test in doctest.DocTestFinder().find(module)):
        yield module


@pytest.mark.parametrize("module", _modules(), ids=lambda m: m.__name__)
def test_examples(module):
  assert doctest.testmod(module).failed == 0


def test_most_modules_have_examples():
  assert len([*_modules()]) >= 14
