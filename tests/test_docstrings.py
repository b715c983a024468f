"""The worked examples of all docstrings are true."""

import doctest
import importlib
from pathlib import Path

import numpy as np
import pytest

# Examples that take an archive, an image or a mesh that the reader has.
SKETCHES = {
  "fusar_jax.geo.alphaearth",
  "fusar_jax.geo.georeference",
  "fusar_jax.geo.grid_points",
  "fusar_jax.model.activations",
  "fusar_jax.simulation.embeddings",
}
PACKAGE = Path(__file__).resolve().parent.parent / "fusar_jax"
MODULES = [
  ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
  for path in sorted(PACKAGE.rglob("*.py"))
  if ">>> " in path.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("name", sorted({*MODULES} - SKETCHES))
def test_examples(name):
  module = importlib.import_module(name)
  found = doctest.testmod(
    module,
    extraglobs={"np": np},
    optionflags=doctest.NORMALIZE_WHITESPACE,
  )
  assert found.attempted
  assert not found.failed
