"""How far a raster's positions may be off, by its own metadata.

- Affine: taken as stated, 0.
- Control points: what the fit misses them by. A spline passes through all of
  them, so each of the inner ones is left out in turn.
- RPC: the provider's error, and the heights. Seen from the side, a point h
  metres higher appears k h metres away; k is measured on the coefficients. For
  a height that is not stated, h is the range for which they are valid.

Heights of the terrain around a stated height, or around control points, are not
known: the text gives k, the bound leaves them out.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from rasterio.rpc import RPC

from fusar_jax.geo.georeference import LONLAT, Georeference, reproject

# Pixels of AlphaEarth: errors below one are not worth a note.
WORTH_A_NOTE = 10.0
# Control points of a spline; the check takes the cube of their number.
_MOST = 2000


@dataclasses.dataclass(frozen=True)
class PositionError:
  """Bound on the error of positions.

  Attributes:
    metres: the bound.
    reason: what it consists of.
  """

  metres: float
  reason: str

  def to_json(self) -> dict[str, Any]:
    """Returns JSON values; "metres" is None for an unlimited error."""
    bound = round(self.metres, 2) if math.isfinite(self.metres) else None
    return {"metres": bound, "reason": self.reason}


def position_error(
  place: Georeference, rpc: RPC | None = None, *, height_stated: bool = False
) -> PositionError:
  """Returns how far the positions of an image may be off.

  Args:
    place: of the whole image.
    rpc: the coefficients, of kind "rpc".
    height_stated: whether the user has stated their height.
  """
  if place.kind == "gcps":
    return _of_points(place)
  if place.kind == "rpc" and rpc is not None:
    return _of_rpc(place, rpc, height_stated)
  return PositionError(0.0, "as the file states")


def _of_points(place) -> PositionError:
  points = np.array(place.gcps)
  lons, lats = reproject(place.crs, LONLAT, points[:, 2], points[:, 3])
  fitted = place.to_lonlat(points[:, 0], points[:, 1])
  missed = _distances(fitted[0], fitted[1], lons, lats)
  if missed.max() > 0.5:
    return PositionError(
      float(missed.max()), "farthest control point from the fit"
    )
  off = _left_out(points)
  if off is None:
    return PositionError(
      float(missed.max()),
      f"{len(points)} control points, too few to check the fit between them",
    )
  x, y = (points[:, 2:] - off).T
  found = reproject(place.crs, LONLAT, x, y)
  inner = _inner(points)
  return PositionError(
    float(_distances(*found, lons, lats)[inner].max()),
    "control points, each left out of the fit in turn",
  )


def _left_out(points) -> np.ndarray | None:
  """What a thin plate spline through the other points misses each by, [n, 2].

  By Rippa's formula: weight / diagonal of the inverse of the spline's system.
  None for fewer than two points off the frame, or points on a line.
  """
  at = points[:, :2] - points[:, :2].mean(axis=0)
  at /= max(np.ptp(at), 1e-9)
  count = len(points)
  if count > _MOST or len(_inner(points)) < 2:
    return None
  squares = ((at[:, None] - at[None]) ** 2).sum(axis=-1)
  system = np.zeros((count + 3, count + 3))
  system[:count, :count] = squares * np.log(np.where(squares > 0, squares, 1))
  system[:count, count:] = np.column_stack([np.ones(count), at])
  system[count:, :count] = system[:count, count:].T
  try:
    inverse = np.linalg.inv(system)[:count, :count]
  except np.linalg.LinAlgError:
    return None
  return (inverse @ points[:, 2:]) / np.diag(inverse)[:, None]


def _inner(points) -> np.ndarray:
  """Indices of the points that are not on the frame of the grid."""
  frame = np.zeros(len(points), bool)
  for axis in (0, 1):
    low, high = points[:, axis].min(), points[:, axis].max()
    frame |= (points[:, axis] == low) | (points[:, axis] == high)
  return np.flatnonzero(~frame)


def _of_rpc(place, rpc, height_stated) -> PositionError:
  model = math.hypot(rpc.err_bias or 0, rpc.err_rand or 0)
  row, col = float(rpc.line_off), float(rpc.samp_off)
  higher = dataclasses.replace(place, height=place.height + 1)
  k = _distances(*place.to_lonlat(row, col), *higher.to_lonlat(row, col))
  k = float(np.max(k))
  reason = (
    f"RPC at {place.height:g} m: {k:.2g} m for each metre that the ground is"
    " higher or lower"
  )
  if not height_stated:
    reason += f", up to {rpc.height_scale:g} m of them (height not stated)"
    model += k * float(rpc.height_scale)
  if not math.isfinite(model):
    return PositionError(math.inf, f"{reason}; it has no inverse")
  return PositionError(model, reason)


def _distances(
  lons: Sequence[float] | np.ndarray, lats, other_lons, other_lats
) -> np.ndarray:
  """Metres between places a short way apart; infinite where one is unknown."""
  lons, lats, other_lons, other_lats = (
    np.atleast_1d(np.asarray(v, np.float64))
    for v in (lons, lats, other_lons, other_lats)
  )
  turns = (other_lons - lons + 180) % 360 - 180
  east = np.radians(turns) * np.cos(np.radians(lats))
  north = np.radians(other_lats - lats)
  metres = 6_371_000 * np.hypot(east, north)
  return np.where(np.isfinite(metres), metres, math.inf)
