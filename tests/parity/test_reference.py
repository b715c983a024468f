"""The stored values of tests/reference match the output of their script.

The tolerance is float32 rounding, because the summation order depends on the
torch version and the CPU.
"""

import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest

if os.environ.get("FUSAR_REQUIRE_PARITY") != "1":
  for package in ("torch", "transformers", "peft"):
    pytest.importorskip(package)

from safetensors.torch import load_file

REFERENCE = Path(__file__).resolve().parents[1] / "reference"


def test_the_values_are_those_of_the_script(tmp_path):
  spec = importlib.util.spec_from_file_location(
    "reference_make", REFERENCE / "make.py"
  )
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  module.make(tmp_path / "values")
  kept = REFERENCE / "values"
  made = sorted(p.relative_to(tmp_path / "values") for p in _files(tmp_path))
  assert made == sorted(p.relative_to(kept) for p in _files(kept))
  for path in made:
    if path.suffix == ".npz":
      new, old = (np.load(at / path) for at in (tmp_path / "values", kept))
      assert sorted(new.files) == sorted(old.files)
      for name in old.files:
        _same(new[name], old[name], f"{path}: {name}")
    elif path.suffix == ".safetensors":
      new, old = (load_file(at / path) for at in (tmp_path / "values", kept))
      assert new.keys() == old.keys()
      for name, tensor in old.items():
        _same(new[name].float().numpy(), tensor.float().numpy(), name)


def _files(folder: Path) -> list[Path]:
  return [path for path in folder.rglob("*") if path.is_file()]


def _same(new, old, name: str) -> None:
  if old.dtype.kind in "iu":
    np.testing.assert_array_equal(new, old, err_msg=name)
  else:
    scale = np.abs(old).max(initial=0)
    np.testing.assert_allclose(
      new, old, rtol=0, atol=2e-5 * scale, err_msg=name
    )
