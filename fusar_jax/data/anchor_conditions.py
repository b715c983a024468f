"""Anchors as they are, and the controls that tell what they are good for.

A model that profits from anchors may profit from what they say, from where they
stand, or from the mere extra parameters. A condition takes one of these away,
in training and in testing alike:

  aligned      as given
  none         images without anchors: unmodulated
  zeros        zero vectors at the same positions
  shuffled     the vectors and positions of another image of the data set
  wrong_place  its own vectors, half an image away: right content, wrong place
  coordinates  where a node lies instead of what is there

The paper publishes no such control; the definitions are ours. `grid` thins the
nodes first, whatever the condition.

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
# Of the cycle in which images hand their anchors on; named, so that a model is
# tested on the same exchange by whoever repeats it.
SHUFFLE_SEED = 42
# Sine and cosine of 8 wavelengths for each of y, x, latitude, longitude.
_OCTAVES = BANDS // 8
# Squared distances that agree to this many digits are a tie: float32 positions
# of a regular grid are not exact.
_TIE_DIGITS = 6


@dataclasses.dataclass(frozen=True)
class AnchorCondition:
  """How the anchors of a data set are shown to a model.

  Attributes:
    name: one of CONDITIONS (`config.data.anchors`).
    grid: 0: as stored; g: thinned to g x g nodes, see `thin`
      (`config.data.anchor_grid`).

  Raises:
    ValueError: another name, or a grid below 0.
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
    """Returns the rows with the anchors files that this condition gives them.

    Only "none" and "shuffled" change any. Shuffling depends on the whole data
    set: give all of it, then choose rows.

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
      FileNotFoundError, ValueError: a bad file, a footprint that is none, or
        fewer nodes than `grid` asks for.
    """
    return tuple(
      file and self._changed(read_anchors(file), triplet)
      for file in triplet.anchors
    )

  def count(self, stored: int) -> int:
    """Returns how many anchors `read` gives at most, of so many in a file.

    Raises:
      ValueError: fewer nodes than `grid` asks for.
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
      return Anchors(anchors.features, (anchors.positions + 0.5) % 1)
    if self.name == "coordinates":
      # A footprint is that of one image; which of several is not said.
      alone = len(triplet.images) == 1
      ring = _footprint(triplet) if alone else None
      return Anchors(encode_places(anchors.positions, ring), anchors.positions)
    return anchors


ALIGNED = AnchorCondition()


def exchange(files: Sequence[File]) -> dict[File, File]:
  """Returns whose anchors each file's image gets: no one keeps its own.

  Distinct files are put in random order, in a ring, and each gets those of the
  next: one cycle through the whole data set.

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
  """Returns the nodes nearest to the centres of grid x grid equal cells.

  In the order of the file; of equally near ones the first. Fewer than grid^2
  where two cells share a node, because AlphaEarth is missing around them.

  Example: of 9 x 9 nodes in the middle of equal cells, a grid of 3 keeps the
    rows and columns 1, 4 and 7; a grid of 1, the node in the middle.
  """
  y, x = (np.indices((grid, grid)).reshape(2, -1) + 0.5) / grid
  off = anchors.positions[None].astype(np.float64)
  off = off - np.stack([y, x], axis=-1)[:, None]
  nearest = np.square(off).sum(-1).round(_TIE_DIGITS).argmin(axis=1)
  kept = np.unique(nearest)
  return Anchors(anchors.features[kept], anchors.positions[kept])


def encode_places(
  positions: np.ndarray, ring: np.ndarray | None = None
) -> np.ndarray:
  """Returns float32[S, 64], unit vectors that say where nodes lie.

  Sines and cosines of 8 wavelengths: of y and x, 2 images down to 1/64 image, a
  factor of 2 apart; of latitude and longitude, 360 degrees down to 0.022
  (2.4 km), a factor of 4 apart. Without a ring the latter 32 values are zero.

  Args:
    positions: float32[S, 2], (y, x) in [0, 1] of the image.
    ring: float64[n >= 4, 2], longitude and latitude in degrees of the image's
      corners, clockwise from the top left; between them is interpolated.
  """
  octave = np.arange(_OCTAVES)
  y, x = np.asarray(positions, np.float64).T
  phases = np.zeros((4, len(y), _OCTAVES))
  phases[:2] = np.pi * np.stack([y, x])[..., None] * 2.0**octave
  known = 2
  if ring is not None:
    # Unwrapped: an image may lie across the 180th meridian.
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
    corners = np.zeros(0)
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
