"""Reference values that come with the project, made by `make.py`."""

import re
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).resolve().parent / "values"

# peft's names hold the layer; ours are stacked over layers.
_LORA = re.compile(
  r"base_model\.model\.model\.(language_model\.layers|visual\.blocks)"
  r"\.(\d+)\.(\w+)\.(\w+)\.lora_([AB])\.default\.weight"
)
_TLM = re.compile(r"film_mlp\.(\d)\.(weight|bias)")
_PARTS = {
  "language_model.layers": "model/layers",
  "visual.blocks": "visual/blocks",
}


@pytest.fixture(scope="session")
def reference() -> Path:
  """Folder of the values."""
  return FOLDER


@pytest.fixture(scope="session")
def read():
  """read(name) -> {array name: array} of one file."""

  def values(name: str) -> dict[str, np.ndarray]:
    with np.load(FOLDER / f"{name}.npz") as file:
      return dict(file)

  return values


@pytest.fixture(scope="session")
def close():
  """Equal to a share of the largest magnitude, 1e-4 unless stated."""

  def check(ours, theirs, share: float = 1e-4, name: str = "") -> None:
    limit = share * np.abs(theirs).max()
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=limit, err_msg=name)

  return check


@pytest.fixture(scope="session")
def published():
  """published(name, flat): our leaf of a reference name, as torch has it."""
  return _published


def _published(name: str, flat: dict) -> np.ndarray:
  if found := _LORA.fullmatch(name):
    part, layer, module, projection, half = found.groups()
    path = f"{_PARTS[part]}/{module}/{projection}/lora_{half.lower()}"
    return np.asarray(flat[path])[int(layer)].T
  index, kind = _TLM.fullmatch(name).groups()
  leaf = "kernel" if kind == "weight" else "bias"
  return np.asarray(flat[f"tlm/mlp_{index}/{leaf}"]).T
