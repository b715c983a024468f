"""Embedded images of a page: each image and its anchors once, within a limit.

All cards about an image share one copy. The limit keeps large pages usable on
a phone. The browser decodes an image only when its card nears the viewport.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from fusar_jax.data import vision
from fusar_jax.geo.anchors import Anchors, read_anchors
from fusar_jax.report.anchor_colours import anchor_colours, hex_colour
from fusar_jax.report.choice import Chosen
from fusar_jax.report.data_uri import data_uri

# Total characters of all embedded images.
MOST_CHARACTERS = 16_000_000
# Images with a longer side above this many pixels are downscaled.
LARGEST = 504
# Most anchors drawn per image; more would hide it.
MOST_ANCHORS = 256
# A larger PNG becomes a JPEG: speckle compresses badly without loss, and the
# loss is invisible.
_LARGEST_PNG = 64_000
_JPEG_QUALITY = 85


@dataclasses.dataclass(frozen=True, eq=False)
class Picture:
  """An image of the page, defined once and used by its cards.

  Attributes:
    name: id of its SVG element in a unit square; use it with `scale(w h)`.
    uri: data URI of the image.
    shape: (height, width) of the embedded image.
    dots: (x, y, "#rrggbb") of the drawn anchors, x and y in [0, 1].
    anchors: number of anchors of the image.
  """

  name: str
  uri: str
  shape: tuple[int, int]
  dots: Sequence[tuple[float, float, str]] = ()
  anchors: int = 0

  @property
  def dots_name(self) -> str:
    """The id of the SVG element of the anchors."""
    return f"{self.name}-anchors"


def fill(
  chosen: Sequence[Chosen], most: int = MOST_CHARACTERS
) -> tuple[list[Chosen], dict[str, Picture]]:
  """Returns (items whose images fit the limit, pictures by image name).

  Args:
    chosen: earlier items have priority; items without an image always fit.
    most: character limit for all images together. The image that crosses it is
      the last one embedded.

  Raises:
    FileNotFoundError, ValueError: an image or anchors that cannot be read.
  """
  kept, images, anchors_of, room = [], {}, {}, most
  for item in chosen:
    answer = item.answer
    name = answer.image_name
    if answer.image is not None and name not in images:
      if room <= 0:
        continue
      images[name] = _embedded(vision.load_image(answer.image))
      room -= len(images[name][0])
      if answer.anchors is not None:
        anchors_of[name] = read_anchors(answer.anchors)
    kept.append(item)
  colours = _colours(anchors_of)
  pictures = {}
  for k, (name, (uri, shape)) in enumerate(images.items()):
    pictures[name] = Picture(f"image{k}", uri, shape)
    if name in anchors_of:
      pictures[name] = dataclasses.replace(
        pictures[name],
        dots=_dots(anchors_of[name], colours[name]),
        anchors=len(anchors_of[name]),
      )
  return kept, pictures


def _embedded(image: np.ndarray) -> tuple[str, tuple[int, int]]:
  """Returns (data URI, embedded shape) of uint8[H, W, 3]."""
  h, w = image.shape[:2]
  shrink = max(h, w) / LARGEST
  if shrink > 1:
    image = vision.resize(
      image, (max(1, round(h / shrink)), max(1, round(w / shrink)))
    )
  uri = data_uri(image)
  if len(uri) > _LARGEST_PNG:
    uri = data_uri(image, "JPEG", quality=_JPEG_QUALITY)
  return uri, image.shape[:2]


def _colours(anchors_of: dict[str, Anchors]) -> dict[str, np.ndarray]:
  """Returns name -> uint8[S, 3], computed jointly to be comparable."""
  if not anchors_of:
    return {}
  features = np.concatenate([a.features for a in anchors_of.values()])
  colours, _ = anchor_colours(features)
  ends = np.cumsum([len(a) for a in anchors_of.values()])[:-1]
  return dict(zip(anchors_of, np.split(colours, ends)))


def _dots(
  anchors: Anchors, colours: np.ndarray
) -> list[tuple[float, float, str]]:
  n = len(anchors)
  shown = np.unique(np.linspace(0, n - 1, min(n, MOST_ANCHORS)).astype(int))
  return [
    (x, y, hex_colour(rgb))
    for (y, x), rgb in zip(anchors.positions[shown].tolist(), colours[shown])
  ]
