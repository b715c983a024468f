"""Draws map features onto the pixels of one image.

Areas cover the pixels whose centre they contain. Lines have the width that
their tags state, else a usual one of their kind, and at least one pixel. A
building that is a point covers its pixel.
"""

import dataclasses
from collections.abc import Collection, Sequence

import numpy as np
import rasterio.features
from PIL import Image, ImageDraw

from fusar_jax.tasks.description import measures
from fusar_jax.tasks.description.ground import (
  APRON,
  PIER,
  ROAD,
  RUNWAY,
  WATER,
  Ground,
)

# Metres; of waters, which only name the landform, enough to reach their banks.
_WIDTHS = {"road": 8, "runway": 45, "pier": 6, "river": 30, "sea": 100}
_SURFACES = {"road": ROAD, "runway": RUNWAY, "apron": APRON, "pier": PIER}
_GROUPS = {
  "roads": {ROAD},
  "aeroways": {RUNWAY, APRON},
  "piers": {PIER},
}
_FORMS = {"sea": "coast", "lake": "lake shore", "river": "river banks"}
# Least share of the image that is water, to name the landform after it.
_WATER = 0.03


@dataclasses.dataclass(frozen=True, eq=False)
class Shape:
  """A map feature in pixels of the image; see `map_features.MapFeature`.

  Attributes:
    kind: of `map_kinds.KINDS`.
    area: rings, not lines.
    parts: float64[n, 2] each, (column, row).
    value: height or width in metres, or a landform.
  """

  kind: str
  area: bool
  parts: Sequence[np.ndarray]
  value: float | str | None


def draw(
  shapes: Sequence[Shape],
  cover: np.ndarray,
  gsd: float,
  groups: Collection[str],
) -> Ground:
  """Returns the maps of an image.

  Args:
    shapes: that may touch it.
    cover: uint8[h, w], its land cover.
    gsd: metres of its pixels.
    groups: of `map_kinds.GROUPS`, which the maps can contain.
  """
  masks = {kind: np.zeros(cover.shape, bool) for kind in (*_SURFACES, *_FORMS)}
  height = np.zeros(cover.shape, np.float32)
  landforms: dict[str, int] = {}
  facilities, buildings = set(), 0
  lines: dict[str, list] = {}
  for shape in shapes:
    if shape.area:
      where, inside = _fill(shape.parts, cover.shape)
    elif shape.kind == "building":
      where, inside = ..., _pixels(shape.parts, cover.shape)
    else:
      lines.setdefault(shape.kind, []).append(shape)
      continue
    if not inside.any():
      continue
    if shape.kind == "building":
      known = isinstance(shape.value, float) and shape.value > 0
      height[where][inside] = shape.value if known else np.nan
      buildings += 1
    elif shape.kind == "landform":
      name = str(shape.value)
      landforms[name] = landforms.get(name, 0) + int(np.count_nonzero(inside))
    elif shape.kind in ("port", "airport"):
      facilities.add(shape.kind)
    else:
      masks[shape.kind][where] |= inside
  for kind, those in lines.items():
    if kind in masks:
      masks[kind] |= _lines(those, cover.shape, gsd)
    elif kind in ("port", "airport") and _touch(those, cover.shape):
      facilities.add(kind)
  surface = np.zeros(cover.shape, np.uint8)
  for kind, value in _SURFACES.items():
    surface[masks[kind]] = value
  return Ground(
    gsd=gsd,
    cover=cover,
    surface=surface,
    height=height if "buildings" in groups else None,
    form=_form(landforms, masks, cover),
    mapped=frozenset().union(*(_GROUPS.get(g, ()) for g in groups)),
    runways=len(measures.patch_sizes(surface == RUNWAY)),
    piers=len(measures.patch_sizes(surface == PIER)),
    buildings=buildings if "buildings" in groups else None,
    facilities=frozenset(facilities),
  )


def _form(landforms, masks, cover) -> str | None:
  """The landform that covers most, else that of the kind of water."""
  if landforms:
    return max(sorted(landforms), key=landforms.__getitem__)
  water = cover == WATER
  pixels = {k: np.count_nonzero(masks[k] & water) for k in _FORMS}
  largest = max(pixels, key=pixels.__getitem__)
  enough = pixels[largest] and np.count_nonzero(water) >= _WATER * cover.size
  return _FORMS[largest] if enough else None


def _fill(rings, size):
  """Returns (slices of an image, bool mask of this part), the area's pixels.

  Holes are rings within others: a pixel is inside of an odd number of them.
  """
  rings = [ring[np.isfinite(ring).all(1)] for ring in rings]
  rings = [ring for ring in rings if len(ring) >= 4]
  if not rings:
    return (slice(0), slice(0)), np.zeros((0, 0), bool)
  points = np.concatenate(rings)
  x0, y0 = np.clip(np.floor(points.min(0)), 0, size[::-1]).astype(int)
  x1, y1 = np.clip(np.ceil(points.max(0)), 0, size[::-1]).astype(int)
  where = slice(y0, y1), slice(x0, x1)
  inside = np.zeros((y1 - y0, x1 - x0), bool)
  if inside.size:
    for ring in rings:
      polygon = (ring - (x0, y0)).tolist()
      drawn = rasterio.features.rasterize(
        [({"type": "Polygon", "coordinates": [polygon]}, 1)],
        out_shape=inside.shape,
        dtype="uint8",
      )
      inside ^= np.asarray(drawn, bool)
  return where, inside


def _pixels(parts, size) -> np.ndarray:
  """Mask of the pixels of points."""
  points = np.concatenate(parts)[:, ::-1]
  points = points[((points >= 0) & (points < size)).all(1)].astype(int)
  mask = np.zeros(size, bool)
  mask[tuple(points.T)] = True
  return mask


def _lines(shapes, size, gsd) -> np.ndarray:
  picture = Image.new("1", (size[1], size[0]))
  pen = ImageDraw.Draw(picture)
  for shape in shapes:
    own = shape.value if isinstance(shape.value, float) else None
    width = max(round((own or _WIDTHS.get(shape.kind, 1)) / gsd), 1)
    for part in shape.parts:
      for ends in _clipped(part, size, width):
        # Whole numbers are centres of pixels here, corners there.
        pen.line((ends - 0.5).ravel().tolist(), fill=1, width=width)
  return np.array(picture, bool)


def _clipped(line, size, width) -> np.ndarray:
  """float64[n, 2, 2], the segments of a line in and near the image.

  Far points would overflow when drawn.
  """
  ends = np.stack([line[:-1], line[1:]], 1)
  ends = ends[np.isfinite(ends).all((1, 2))]
  start, along = ends[:, 0], ends[:, 1] - ends[:, 0]
  low, high = np.full(2, -width - 1.0), np.array(size[::-1]) + width + 1.0
  # A component without length: inside of its bounds or not at all.
  with np.errstate(divide="ignore", invalid="ignore"):
    a, b = (low - start) / along, (high - start) / along
  still = along == 0
  outside = (still & ((start < low) | (start > high))).any(1)
  first = np.where(still, 0.0, np.minimum(a, b)).max(1).clip(0)
  last = np.where(still, 1.0, np.maximum(a, b)).min(1).clip(max=1)
  kept = (first <= last) & ~outside
  found = [start + t[:, None] * along for t in (first, last)]
  return np.stack(found, 1)[kept]


def _touch(shapes, size) -> bool:
  return any(
    ((p >= 0) & (p <= np.array(size)[::-1])).all(1).any()
    for shape in shapes
    for p in shape.parts
  )
