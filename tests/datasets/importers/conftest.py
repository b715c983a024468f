"""Shared fixtures of the importer tests: an origin and image files."""

import numpy as np
import pytest
from PIL import Image

from fusar_jax.datasets.importers.dataset_folder import Origin


@pytest.fixture(scope="session")
def origin():
  return Origin("made for this test", "none stated")


@pytest.fixture
def save():
  """save(path, size=(60, 90), value=0): a picture of one grey.

  Two pictures of one size and value have the same bytes.
  """

  def write(path, size=(60, 90), value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), value, np.uint8)).save(path)
    return path

  return write
