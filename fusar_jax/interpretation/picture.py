"""A scene as one picture, and the same picture with boxes drawn on it."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fusar_jax.geo.rasters import Raster
from fusar_jax.geo.tiles import stretched
from fusar_jax.interpretation.findings import Finding
from fusar_jax.interpretation.scene import SceneAnswers

# Longest side, pixels.
SIDE = 2048
# Distinct also in grey and to most colour-blind eyes (Okabe and Ito).
COLOURS = (
  (230, 159, 0),
  (86, 180, 233),
  (0, 158, 115),
  (240, 228, 66),
  (213, 94, 0),
  (204, 121, 167),
)


def scene_picture(
  scene: SceneAnswers, raster: Raster, side: int = SIDE
) -> np.ndarray:
  """Returns uint8[h, w, 3], the scene at `side` pixels or less.

  Pixels are averaged as `prepare` averages them; invalid ones are black.
  """
  height, width = scene.size
  factor = min(1.0, side / max(height, width))
  shape = (max(1, round(height * factor)), max(1, round(width * factor)))
  return stretched(raster, scene.stretches, shape=shape)[0]


def colours_of(scene: SceneAnswers) -> dict[str, tuple[int, int, int]]:
  """Returns a colour for each label, in the order of their numbers."""
  labels = sorted({finding.label for finding in scene.findings})
  return {label: COLOURS[i % len(COLOURS)] for i, label in enumerate(labels)}


def with_boxes(scene: SceneAnswers, picture: np.ndarray) -> Image.Image:
  """Returns the picture with a box around each finding, and its label."""
  image = Image.fromarray(picture)
  draw = ImageDraw.Draw(image)
  font = ImageFont.load_default(12)
  colours = colours_of(scene)
  for finding in scene.findings:
    x1, y1, x2, y2 = _scaled(finding, scene, picture)
    colour = colours[finding.label]
    # A ship of two pixels would vanish behind its own box.
    draw.rectangle((x1 - 2, y1 - 2, x2 + 1, y2 + 1), outline=colour, width=2)
    draw.text((x1, y1 - 16), finding.label, colour, font)
  return image


def _scaled(finding: Finding, scene: SceneAnswers, picture: np.ndarray):
  height, width = picture.shape[:2]
  factors = np.tile([width / scene.size[1], height / scene.size[0]], 2)
  return (np.array(finding.box) * factors).tolist()
