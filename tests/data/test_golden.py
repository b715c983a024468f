"""Preprocessing against values of transformers and of the official TLM."""

import json

import numpy as np
import pytest
from PIL import Image

from fusar_jax.data import anchor_weights, vision
from fusar_jax.data.positions import mrope_positions
from fusar_jax.model.config import SpecialTokens, VisionConfig

TOKENS = SpecialTokens(
  image=301, vision_start=302, vision_end=303, end_of_turn=300, pad=0
)


def test_pixel_values(golden):
  """Equal to the processor's to 1e-3; each of its two frames is ours."""
  theirs = np.load(golden / "official_tiny" / "pixel_values_280x392.npy")
  theirs = theirs.reshape(-1, 3, 2, 196)
  image = vision.load_image(golden / "official_tiny" / "sar_280x392.png")
  ours = vision.normalise(vision.to_patches(image), VisionConfig())
  for frame in range(2):
    np.testing.assert_allclose(
      ours.reshape(-1, 3, 196), theirs[:, :, frame], atol=1e-3
    )


@pytest.mark.parametrize(
  "name", ["base_504", "base_280x392", "base_two_images"]
)
def test_position_ids(golden, name):
  values = np.load(golden / "official_tiny" / f"{name}.npz")
  grids = [(int(h), int(w)) for _, h, w in values["image_grid_thw"]]
  ours = mrope_positions(values["input_ids"][0], grids, TOKENS)
  np.testing.assert_array_equal(ours, values["position_ids"][:, 0])


def test_spatial_weights(golden):
  """The Gaussian of every case that publishes it, to float32 rounding."""
  compared = 0
  for case in json.loads((golden / "tlm" / "index.json").read_text()):
    values = np.load(golden / "tlm" / case["file"])
    if not values["spatial_weights"].size:
      continue
    ours = anchor_weights.patch_weights(
      values["positions"],
      tuple(values["grid_hw"].tolist()),
      sigma=float(values["sigma"]),
    )
    np.testing.assert_allclose(
      ours.T, values["spatial_weights"], rtol=1e-4, atol=1e-7
    )
    compared += 1
  assert compared == 7


def test_images_are_decoded_as_they_are(golden):
  path = golden / "official_tiny" / "sar_504.png"
  image = vision.load_image(path)
  np.testing.assert_array_equal(
    image, np.asarray(Image.open(path).convert("RGB"))
  )
  assert vision.resize(image, (504, 504)) is image
