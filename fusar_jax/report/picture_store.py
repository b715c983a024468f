"""Embedded images of a page: each image and its anchors once, within a limit.

All cards about an image share one copy. The limit keeps large pages usable on
a phone. The browser decodes an image only when its card nears the viewport.

S anchors.
"""

import base64
import dataclasses
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from fusar_jax.data import vision
from fusar_jax.geo.anchors import Anchors, read_anchors
from fusar_jax.report.anchor_colours import anchor_colours
from fusar_jax.report.answers import Answer
from fusar_jax.report.choice import Chosen
from fusar_jax.report.sample_card import data_uri

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

STYLE = """
.store { position: absolute; width: 0; height: 0; }
.dots path { vector-effect: non-scaling-stroke; stroke-linecap: round;
  stroke-width: 7; }
.dots .halo { stroke: #fff; stroke-width: 9.5; }
"""


@dataclasses.dataclass(frozen=True, eq=False)
class Picture:
  """An image of the store.

  Attributes:
    name: id of its SVG element in a unit square; use it with `scale(w h)`.
    shape: (height, width) of the embedded image.
    dots: id of the element of its anchors, or None.
    anchors: number of anchors of the image.
  """

  name: str
  shape: tuple[int, int]
  dots: str | None
  anchors: int


@dataclasses.dataclass(frozen=True, eq=False)
class Store:
  """Pictures by `Answer.image_name`, and the HTML that defines them."""

  pictures: dict[str, Picture]
  html: str


def fill(
  chosen: Sequence[Chosen], most: int = MOST_CHARACTERS
) -> tuple[list[Chosen], Store]:
  """Returns (items whose images fit the limit, their pictures), in order.

  Args:
    chosen: earlier items have priority; items without an image always fit.
    most: character limit for all images together. The image that crosses it is
      the last one embedded.

  Raises:
    FileNotFoundError, ValueError: an image or anchors that cannot be read.
  """
  kept, images, known, room = [], {}, {}, most
  for item in chosen:
    answer = item.answer
    name = answer.image_name
    if answer.image is not None and name not in images:
      if room <= 0:
        continue
      images[name] = _embedded(vision.load_image(answer.image))
      room -= len(images[name][0])
      if answer.anchors is not None:
        known[name] = read_anchors(answer.anchors)
    kept.append(item)
  colours = _colours(known)
  parts, pictures = [], {}
  for k, (name, (uri, shape)) in enumerate(images.items()):
    parts.append(
      f'<image id="image{k}" width="1" height="1" preserveAspectRatio="none"'
      f' href="{uri}" style="image-rendering:pixelated"/>'
    )
    dots = None
    if name in known:
      dots = f"dots{k}"
      parts.append(_dots(dots, known[name], colours[name]))
    count = len(known[name]) if name in known else 0
    pictures[name] = Picture(f"image{k}", shape, dots, count)
  html = ""
  if parts:
    html = (
      '<svg class="store" aria-hidden="true"><defs>'
      f"{''.join(parts)}</defs></svg>"
    )
  return kept, Store(pictures, html)


def has_anchors(answers: Sequence[Answer], store: Store) -> bool:
  """Returns whether any picture of the answers has anchors."""
  found = (store.pictures.get(answer.image_name) for answer in answers)
  return any(picture and picture.dots for picture in found)


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
    grey = (image == image[..., :1]).all()
    file = io.BytesIO()
    Image.fromarray(image[..., 0] if grey else image).save(
      file, "JPEG", quality=_JPEG_QUALITY
    )
    text = base64.b64encode(file.getvalue()).decode()
    uri = f"data:image/jpeg;base64,{text}"
  return uri, image.shape[:2]


def _colours(known: dict[str, Anchors]) -> dict[str, np.ndarray]:
  """Returns name -> uint8[S, 3], computed jointly to be comparable."""
  if not known:
    return {}
  features = np.concatenate([a.features for a in known.values()])
  colours, _ = anchor_colours(features)
  ends = np.cumsum([len(a) for a in known.values()])[:-1]
  return dict(zip(known, np.split(colours, ends)))


def _dots(name: str, anchors: Anchors, colours: np.ndarray) -> str:
  """Returns the dots in a unit square, over a layer that dims the image."""
  n = len(anchors)
  shown = np.unique(np.linspace(0, n - 1, min(n, MOST_ANCHORS)).astype(int))
  places = [f"M{x:.3f} {y:.3f}h0" for y, x in anchors.positions[shown].tolist()]
  dots = "".join(
    f'<path d="{place}" stroke="#{r:02x}{g:02x}{b:02x}"/>'
    for place, (r, g, b) in zip(places, colours[shown].tolist())
  )
  return (
    f'<g id="{name}" class="dots"><rect width="1" height="1" opacity="0.3"/>'
    f'<path class="halo" d="{"".join(places)}"/>{dots}</g>'
  )
