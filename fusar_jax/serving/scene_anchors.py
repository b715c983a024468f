"""Anchors of a window of a scene, under the control conditions, and as colours.

They come from a file that the user gives (positions in [0, 1] of the scene),
from the simulation, or from the server's `--aef`. The conditions are those of
`data.anchor_conditions`:

  aligned      as found
  none         no anchors: the image is unmodulated
  shuffled     those of another place: another window of the scene, or of
               another one
  wrong_place  the window's own, half a window off

S anchors, E = 64 embedding bands.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from fusar_jax.data.anchor_conditions import half_off
from fusar_jax.geo.anchors import Anchors, read_anchors
from fusar_jax.report.anchor_colours import anchor_colours, hex_colour
from fusar_jax.serving.anchors import AlphaEarth, Found
from fusar_jax.serving.limits import RequestError
from fusar_jax.serving.scenes import Scene
from fusar_jax.serving.uploads import in_memory

CONDITIONS = ("aligned", "none", "shuffled", "wrong_place")
_FIELD = "anchors"
Box = Sequence[float]


class NoAnchorsError(RequestError):
  """The window has none, though others of the scene may."""

  def __init__(self):
    super().__init__(400, "anchors: there are none in this window.", _FIELD)


def source_of(scene: Scene, alphaearth: AlphaEarth | None) -> dict[str, Any]:
  """Returns {"kind", "reason"}: where a scene's anchors come from.

  "kind" is "file", "simulated", "aef", or None with the reason in words.
  """
  if scene.anchors is not None:
    return {"kind": "simulated" if scene.simulated else "file", "reason": None}
  if alphaearth is None:
    reason = (
      "this server has no AlphaEarth archive (--aef). An .npz with features and"
      " positions of the scene can be added."
    )
    return {"kind": None, "reason": reason}
  if scene.place is None:
    reason = (
      "the image has no georeference, so AlphaEarth vectors cannot be looked"
      " up. An .npz with features and positions of the scene can be added."
    )
    return {"kind": None, "reason": reason}
  return {"kind": "aef", "reason": None}


def add_file(scene: Scene, content: bytes) -> None:
  """Takes anchors of the whole scene, positions in [0, 1].

  Args:
    scene: to which they belong.
    content: an .npz as `prepare` writes it.

  Raises:
    RequestError: 400, another file.
  """
  if not content.startswith(b"PK"):
    raise RequestError(
      400, "not an .npz with features [S, 64] and positions [S, 2].", _FIELD
    )
  try:
    scene.anchors = read_anchors(in_memory(content, "anchors.npz"))
  except ValueError as error:
    raise RequestError(400, f"anchors: {error}", _FIELD) from None


def window_anchors(
  scene: Scene,
  window: Box,
  shape: tuple[int, int],
  condition: str,
  alphaearth: AlphaEarth | None,
  year: int | None = None,
  others: Sequence[Scene] = (),
) -> Found:
  """Returns the anchors of a window under a condition.

  Args:
    scene: whose window it is.
    window: xyxy, pixels of the scene.
    shape: (h, w) of its picture.
    condition: one of CONDITIONS.
    alphaearth: archive of the server, or None.
    year: of the archive; None: its own choice.
    others: scenes that "shuffled" may take the vectors of.

  Raises:
    RequestError: 400, there are none, or no other place to take them from.
  """
  if condition not in CONDITIONS:
    raise RequestError(
      400, f"anchors: expected one of {', '.join(CONDITIONS)}.", _FIELD
    )
  if condition == "none":
    return Found(None)
  found = _aligned(scene, window, shape, alphaearth, year)
  if found.anchors is None:
    raise NoAnchorsError
  if condition == "aligned":
    return found
  if condition == "wrong_place":
    return Found(half_off(found.anchors), found.outside, found.year)
  if scene.shuffled is not None:
    return Found(scene.shuffled)
  for other, there in _elsewhere(scene, window, others):
    try:
      given = _aligned(other, there, shape, alphaearth, year)
    except RequestError:
      continue  # No tiles of that place.
    if given.anchors is not None:
      return given
  raise RequestError(
    400,
    "anchors: shuffled needs the vectors of another place, and none was found."
    " Choose a smaller window, or open a further scene.",
    _FIELD,
  )


def layer(found: Found, window: Box) -> dict[str, Any]:
  """Returns anchors as coloured points.

  Args:
    found: of `window_anchors`.
    window: xyxy, pixels of the scene.

  Returns:
    {"points": [[x, y]...] pixels of the scene, "colours": ["#rrggbb"...],
    "explained": share of the variance that the colours show, "year"}.
  """
  anchors = found.anchors
  if anchors is None:
    return {"points": [], "colours": [], "explained": 0.0, "year": found.year}
  colours, explained = anchor_colours(anchors.features)
  x1, y1, x2, y2 = window
  points = anchors.positions[:, ::-1] * (x2 - x1, y2 - y1) + (x1, y1)
  return {
    "points": points.round(2).tolist(),
    "colours": [hex_colour(rgb) for rgb in colours],
    "explained": round(explained, 3),
    "year": found.year,
  }


def _aligned(scene, window, shape, alphaearth, year) -> Found:
  if scene.anchors is not None:
    return _inside(scene.anchors, window, scene.size)
  source = source_of(scene, alphaearth)
  if source["kind"] is None:
    raise RequestError(400, f"anchors: {source['reason']}", _FIELD)
  years = alphaearth.years
  if year is None and scene.year in years:
    year = scene.year
  if year is not None and year not in years:
    listed = ", ".join(map(str, years))
    raise RequestError(
      400, f"anchors: no AlphaEarth tiles of {year}, but of {listed}.", "year"
    )
  place = scene.place_of(window, shape)
  try:
    return alphaearth.look_up(place, shape, year)
  except ValueError as error:
    raise RequestError(400, f"anchors: {error}", _FIELD) from None


def _inside(anchors: Anchors, window: Box, size: tuple[int, int]) -> Found:
  """Returns those in a window; positions in [0, 1] of it."""
  x1, y1, x2, y2 = window
  at = anchors.positions.astype(np.float64) * size
  positions = (at - (y1, x1)) / (y2 - y1, x2 - x1)
  inside = ((positions >= 0) & (positions <= 1)).all(axis=1)
  outside = int((~inside).sum())
  if not inside.any():
    return Found(None, outside)
  kept = Anchors(anchors.features[inside], positions[inside].astype(np.float32))
  return Found(kept, outside)


def _elsewhere(
  scene: Scene, window: Box, others: Sequence[Scene]
) -> Iterator[tuple[Scene, Box]]:
  """Yields places to take vectors from: far in the scene, near it, others.

  Always in the same order, so that a comparison can be repeated.
  """
  x1, y1, x2, y2 = window
  height, width = scene.size
  across, down = x2 - x1, y2 - y1
  # The corner of the scene that is farthest from the window.
  left = 0 if x1 + x2 > width else width - across
  top = 0 if y1 + y2 > height else height - down
  apart = abs(left - x1) >= across or abs(top - y1) >= down
  if apart:
    yield scene, (left, top, left + across, top + down)
  if scene.anchors is None and scene.place is not None:
    for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1)):
      moved = np.array([dx * across, dy * down] * 2)
      yield scene, tuple((np.array(window) + moved).tolist())
  for other in others:
    if other is not scene:
      yield other, (0, 0, other.size[1], other.size[0])
