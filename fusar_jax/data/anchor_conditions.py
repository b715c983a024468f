"""Control conditions that isolate the contribution of the anchors.

A model can benefit from the content of anchors, from their positions, or only
from the additional parameters. Each condition removes one of these, in training
and in prediction alike:

  aligned      as stored
  none         no anchors: images are unmodulated
  zeros        zero vectors at the same positions
  shuffled     vectors and positions of another image of the data set
  wrong_place  own vectors shifted by half an image: wrong positions
  coordinates  an encoding of each grid point's location replaces its content

The paper publishes no such controls; these definitions are this project's.
`grid` subsamples the grid points first, in every condition.

S anchors, E = 64 embedding bands.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from fusar_jax.data.records import File
from fusar_jax.data.triplets import Triplet
from fusar_jax.geo.anchors import BANDS, Anchors, read_anchors

CONDITIONS = (
  "aligned",
  "none",
  "zeros",
  "shuffled",
  "wrong_place",
  "coordinates",
)
# Fixed seed of the "shuffled" cycle, so that every evaluation of a model uses
# the same exchange of anchors.
SHUFFLE_SEED = 42
# Sine and cosine of 8 wavelengths for each of y, x, latitude, longitude.
_OCTAVES = BANDS // 8
# Squared distances equal to this many digits are ties: float32 positions of a
# regular grid are not exact.
_TIE_DIGITS = 6


@dataclasses.dataclass(frozen=True)
class AnchorCondition:
  """Selects a control condition and the density of the anchors.

  Attributes:
    name: one of CONDITIONS (`config.data.anchors`).
    grid: 0: as stored; g: subsampled to g x g grid points, see `thin`
      (`config.data.anchor_grid`).

  Raises:
    ValueError: an unknown name, or a negative grid.
  """

  name: str = "aligned"
  grid: int = 0

  def __post_init__(self):
    if self.name not in CONDITIONS:
      raise ValueError(
        f"anchors {self.name!r}: expected one of {', '.join(CONDITIONS)}."
      )
    if self.grid < 0:
      raise ValueError(
        f"anchor_grid {self.grid}: expected 0 (as stored) or the nodes along"
        " one side."
      )

  def arrange(self, triplets: Sequence[Triplet]) -> list[Triplet]:
    """Returns the rows with the anchors files of this condition.

    Only "none" and "shuffled" change them. Shuffling depends on the complete
    data set: pass all rows first, then select a subset.

    Raises:
      ValueError: fewer than two distinct files to shuffle.
    """
    if self.name == "none":
      return [
        dataclasses.replace(t, anchors=(None,) * len(t.anchors))
        for t in triplets
      ]
    if self.name == "shuffled":
      donors = exchange([file for t in triplets for file in t.anchors if file])
      return [
        dataclasses.replace(
          t, anchors=tuple(file and donors[file] for file in t.anchors)
        )
        for t in triplets
      ]
    return list(triplets)

  def read(self, triplet: Triplet) -> tuple[Anchors | None, ...]:
    """Returns the anchors of each image of a row of `arrange`.

    Raises:
      FileNotFoundError, ValueError: a bad file, an invalid footprint, or fewer
        grid points than `grid` requires.
    """
    return tuple(
      file and self._changed(read_anchors(file), triplet)
      for file in triplet.anchors
    )

  def count(self, stored: int) -> int:
    """Returns the maximum number of anchors that `read` returns.

    Args:
      stored: number of anchors in the file.

    Raises:
      ValueError: fewer grid points than `grid` requires.
    """
    if not self.grid:
      return stored
    if self.grid**2 > stored:
      raise ValueError(
        f"anchor_grid {self.grid} asks for {self.grid} x {self.grid} ="
        f" {self.grid**2} nodes, but the anchors file holds {stored}; thinning"
        " cannot add any. Make the data with --anchors"
        f" {self.grid} or denser, or set anchor_grid to 0 (as stored)."
      )
    return self.grid**2

  def _changed(self, anchors: Anchors, triplet: Triplet) -> Anchors:
    self.count(len(anchors))
    if self.grid:
      anchors = thin(anchors, self.grid)
    if self.name == "zeros":
      return Anchors(np.zeros_like(anchors.features), anchors.positions)
    if self.name == "wrong_place":
      return half_off(anchors)
    if self.name == "coordinates":
      # The footprint is of one image; for several it is ambiguous.
      alone = len(triplet.images) == 1
      ring = _footprint(triplet) if alone else None
      return Anchors(encode_places(anchors.positions, ring), anchors.positions)
    return anchors


ALIGNED = AnchorCondition()


def exchange(files: Sequence[File]) -> dict[File, File]:
  """Returns {file: file of another image}, a derangement of the anchors files.

  Distinct files are randomly permuted, and each is mapped to its successor: one
  cycle through the complete data set.

  Raises:
    ValueError: fewer than two distinct files.
  """
  distinct = list(dict.fromkeys(files))
  if len(distinct) < 2:
    raise ValueError(
      "anchors 'shuffled' needs at least two anchors files to exchange, found"
      f" {len(distinct)}."
    )
  order = np.random.default_rng(SHUFFLE_SEED).permutation(len(distinct))
  return {
    distinct[taker]: distinct[giver]
    for taker, giver in zip(order, np.roll(order, -1), strict=True)
  }


def thin(anchors: Anchors, grid: int) -> Anchors:
  """Returns the grid points nearest to the centres of grid x grid equal cells.

  The order is that of the file; ties select the first. The result has fewer
  than grid^2 points if cells share a nearest point because AlphaEarth data is
  missing around them.

  Example: from 9 x 9 points at the centres of equal cells, a grid of 3 selects
    rows and columns 1, 4 and 7; a grid of 1 selects the central point.
  """
  y, x = (np.indices((grid, grid)).reshape(2, -1) + 0.5) / grid
  off = anchors.positions[None].astype(np.float64)
  off = off - np.stack([y, x], axis=-1)[:, None]
  nearest = np.square(off).sum(-1).round(_TIE_DIGITS).argmin(axis=1)
  kept = np.unique(nearest)
  return Anchors(anchors.features[kept], anchors.positions[kept])


def half_off(anchors: Anchors) -> Anchors:
  """Returns anchors shifted by half an image down and to the right, cyclically.

  The vectors stay those of this image; only their positions are wrong.
  """
  return Anchors(anchors.features, (anchors.positions + 0.5) % 1)


def encode_places(
  positions: np.ndarray, ring: np.ndarray | None = None
) -> np.ndarray:
  """Returns float32[S, 64], unit vectors that encode grid point locations.

  Sines and cosines of 8 wavelengths: for y and x from 2 images to 1/64 image,
  by factors of 2; for latitude and longitude from 360 degrees to 0.022 degrees
  (2.4 km), by factors of 4. Without a ring the latter 32 values are zero.

  Args:
    positions: float32[S, 2], (y, x) in [0, 1] of the image.
    ring: float64[n >= 4, 2], longitude and latitude in degrees of the image's
      corners, clockwise from the top left; points between are interpolated.
  """
  octave = np.arange(_OCTAVES)
  y, x = np.asarray(positions, np.float64).T
  phases = np.zeros((4, len(y), _OCTAVES))
  phases[:2] = np.pi * np.stack([y, x])[..., None] * 2.0**octave
  known = 2
  if ring is not None:
    # Unwrapped: an image may cross the 180th meridian.
    lons = np.unwrap(ring[:4, 0], period=360)
    corners = [(1 - y) * (1 - x), (1 - y) * x, y * x, y * (1 - x)]
    places = np.stack([ring[:4, 1], lons]) @ np.stack(corners)
    phases[2:] = 2 * np.pi / 360 * places[..., None] * 4.0**octave
    known = 4
  values = np.concatenate([np.sin(phases), np.cos(phases)], axis=-1)
  values[known:] = 0
  code = values.transpose(1, 0, 2).reshape(len(y), BANDS)
  # Each wavelength of each coordinate adds sin^2 + cos^2 = 1.
  return (code / np.sqrt(known * _OCTAVES)).astype(np.float32)


def _footprint(triplet: Triplet) -> np.ndarray | None:
  metadata = triplet.extra.get("metadata")
  ring = metadata.get("footprint") if isinstance(metadata, Mapping) else None
  if ring is None:
    return None
  try:
    corners = np.asarray(ring, np.float64)
  except (ValueError, TypeError):
    corners = np.zeros((0, 2))
  if (
    corners.ndim != 2
    or corners.shape[0] < 4
    or corners.shape[1] != 2
    or not np.isfinite(corners).all()
  ):
    raise ValueError(
      "'metadata'.'footprint' must be a list of at least four corners"
      f" [longitude, latitude] in degrees, got {ring!r:.60}"
    )
  return corners
