"""Tiling of scenes to the model's image size, boxes included.

All tiles share one grid over the scene, whose pixels are `scale` raster pixels
wide: overlapping tiles contain identical pixels. The last tile of a row or
column is moved inward, and a scene smaller than a tile gives one of its own
size, so no tile exceeds its scene. Models resize images to their own input.

Boxes are float32[n, 4], xyxy, continuous pixels.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from fusar_jax.geo.rasters import Raster, Window
from fusar_jax.geo.stretch import Stretch


@dataclasses.dataclass(frozen=True)
class Tile:
  """A part of a raster, in its pixels; (0, 0) is the raster's outer corner.

  Attributes:
    row, col, height, width: pixels of the raster.
    shape: (h, w) of the tile's image. Its georeference is
      `georeference.tile(row, col, height / h, width / w)`.
  """

  row: float
  col: float
  height: float
  width: float
  shape: tuple[int, int]

  @property
  def name(self) -> str:
    """Sortable file name: "r002016_c000504"; "p" is the decimal point."""
    return f"r{_digits(self.row)}_c{_digits(self.col)}"


def _digits(value):
  whole, rest = divmod(round(value * 100), 100)
  return f"{whole:06d}" + (f"p{rest:02d}" if rest else "")


def plan_tiles(
  height: int,
  width: int,
  size: int,
  overlap: int = 0,
  scale: float | tuple[float, float] = 1.0,
) -> list[Tile]:
  """Returns the tiles of a raster, row by row.

  Args:
    height, width: of the raster, in its pixels.
    size: largest sides of a tile, in its own pixels.
    overlap: of neighbours, in tile pixels; the last tiles may overlap more.
    scale: raster pixels per tile pixel, (rows, columns) or one for both; see
      `scale_to`. A remainder of less than one tile pixel is dropped.

  Raises:
    ValueError: a size below 1, an overlap not in 0..size-1, a scale not above
      0, or one at which the raster has no whole pixel.

  Example: 10 x 4 raster pixels in tiles of 4 with an overlap of 1.
    >>> [(tile.row, tile.col) for tile in plan_tiles(10, 4, 4, 1)]
    [(0.0, 0.0), (3.0, 0.0), (6.0, 0.0)]
  """
  scales = scale if isinstance(scale, tuple) else (scale, scale)
  if size < 1 or not 0 <= overlap < size or min(height, width) < 1:
    raise ValueError(
      f"tiles of {size} pixels with an overlap of {overlap} on a raster of"
      f" {height} x {width}; expected 0 <= overlap < size."
    )
  if not all(0 < s < float("inf") for s in scales):
    raise ValueError(f"expected a scale above 0, got {scale}.")
  totals = [int(side / s + 1e-6) for side, s in zip((height, width), scales)]
  if min(totals) < 1:
    raise ValueError(
      f"a raster of {height} x {width} pixels has no whole pixel at"
      f" {scales[0]:.4g} x {scales[1]:.4g} of them each; expected a finer"
      " sampling."
    )
  starts = [_starts(total, size, size - overlap) for total in totals]
  shape = (min(size, totals[0]), min(size, totals[1]))
  sides = [float(n * s) for n, s in zip(shape, scales)]
  return [
    Tile(float(r * scales[0]), float(c * scales[1]), sides[0], sides[1], shape)
    for r in starts[0]
    for c in starts[1]
  ]


def _starts(total, size, step):
  if total <= size:
    return [0]
  return [*range(0, total - size, step), total - size]


def scale_to(
  raster: Raster, ground_sampling_distance: float
) -> tuple[float, float]:
  """Returns the scale (rows, columns) for tiles with square pixels.

  Args:
    raster: the scene.
    ground_sampling_distance: of the tiles, metres.

  Raises:
    ValueError: the raster's distance is unknown, or the given one is not
      above 0.
  """
  own = raster.metadata.ground_sampling_distance
  if own is None:
    raise ValueError(
      f"{raster.path}: its ground sampling distance is not known (it has no"
      " georeference); tile it at its own sampling instead."
    )
  if not 0 < ground_sampling_distance < float("inf"):
    raise ValueError(
      "expected a ground sampling distance above 0 m, got"
      f" {ground_sampling_distance}."
    )
  return ground_sampling_distance / own[0], ground_sampling_distance / own[1]


def render(
  raster: Raster, stretches: Sequence[Stretch], tile: Tile
) -> tuple[np.ndarray, float]:
  """Returns (uint8[h, w, 3], fraction of valid pixels).

  Invalid pixels are black.

  Args:
    raster: the scene.
    stretches: one for a grey image or three for red, green and blue, fitted to
      this scene or to another.
    tile: the part to render, (h, w) its shape.

  Raises:
    ValueError: neither one stretch nor three, or one that was fitted to another
      quantity or band than this raster has.
  """
  if len(stretches) not in (1, 3):
    raise ValueError(f"expected 1 or 3 stretches, got {len(stretches)}.")
  foreign = {s.quantity for s in stretches} - {raster.detected}
  if foreign:
    raise ValueError(
      f"{raster.path}: holds {raster.detected}, but the stretch is of"
      f" {', '.join(sorted(foreign))}; fit it to this scene, or state the"
      " quantity if that was guessed wrongly."
    )
  window = (tile.row, tile.col, tile.height, tile.width)
  image, valid = stretched(raster, stretches, window, tile.shape)
  return image, float(valid.mean())


def stretched(
  raster: Raster,
  stretches: Sequence[Stretch],
  window: Window | None = None,
  shape: tuple[int, int] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
  """Returns (uint8[h, w, 3], bool[h, w] valid); invalid pixels are black.

  Args:
    raster: the scene.
    stretches: one for a grey image or three for red, green and blue.
    window, shape: of `Raster.read`.
  """
  bands = [stretch.band for stretch in stretches]
  values, valid = raster.read(window, bands, shape)
  planes = [s.apply(v, valid) for s, v in zip(stretches, values)]
  return np.stack(planes * (3 // len(planes)), axis=-1), valid


def boxes_in_tile(
  boxes, tile: Tile, min_inside: float = 0.5
) -> tuple[np.ndarray, np.ndarray]:
  """Returns the boxes inside a tile, and their indices.

  Args:
    boxes: float[n, 4], xyxy, pixels of the raster.
    tile: the part to render.
    min_inside: fraction of a box's area that must be inside, in (0, 1].

  Returns:
    (float32[k, 4], xyxy, pixels of the image, clipped to it; int64[k], their
    indices in `boxes`).

  Raises:
    ValueError: a share not in (0, 1], or corners that are swapped.

  Example: of two boxes, the second is only a quarter inside.
    >>> boxes_in_tile([[2, 2, 6, 4], [9, 0, 13, 2]], Tile(0, 0, 10, 10, (5, 5)))
    (array([[1., 1., 3., 2.]], dtype=float32), array([0]))
  """
  if not 0 < min_inside <= 1:
    raise ValueError(f"min_inside must be in (0, 1], not {min_inside}.")
  boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
  sides = boxes[:, 2:] - boxes[:, :2]
  if not (sides >= 0).all():
    bad = int(np.flatnonzero((~(sides >= 0)).any(axis=1))[0])
    raise ValueError(
      f"box {bad} is {boxes[bad].tolist()}; expected x1 <= x2 and y1 <= y2."
    )
  corner = np.array([tile.col, tile.row])
  extent = np.array([tile.width, tile.height])
  low, high = boxes[:, :2] - corner, boxes[:, 2:] - corner
  cut = np.clip(low, 0, extent), np.clip(high, 0, extent)
  # A zero-length side counts as 1 inside and 0 outside.
  lengths = np.divide(
    cut[1] - cut[0],
    sides,
    out=((low >= 0) & (low < extent)).astype(np.float64),
    where=sides > 0,
  )
  kept = np.flatnonzero(lengths.prod(axis=1) >= min_inside)
  factors = np.array(tile.shape[::-1]) / extent
  shown = np.concatenate([cut[0] * factors, cut[1] * factors], axis=1)
  return shown[kept].astype(np.float32), kept
