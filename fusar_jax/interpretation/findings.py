"""Findings of a scene: boxes that several tiles show are merged into one.

Neighbouring tiles overlap, so a target near a seam is seen twice: whole by one
tile and cut by the border of the other, or whole by both. Answers state no
confidence; what decides is how far a box lies from the border of its tile,
behind which the tile shows nothing. Boxes are xyxy in pixels of the scene.
"""

import collections
import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from fusar_jax.tasks import detection

# Share of the smaller box that must lie in the other one.
SHARE = 0.5
# A box that ends this close to its tile's border is taken as cut; pixels of the
# tile's picture.
_CUT = 2.0


@dataclasses.dataclass(frozen=True)
class Window:
  """The part of a scene that a tile shows.

  Attributes:
    name: of the tile.
    box: xyxy, pixels of the scene.
    pixel: pixels of the scene per pixel of the tile's picture, the larger axis.
    scene: (height, width) of the scene, whose own borders cut nothing more.
  """

  name: str
  box: tuple[float, float, float, float]
  pixel: float
  scene: tuple[int, int]

  def margins(self, box: Sequence[float]) -> np.ndarray:
    """Returns float64[4], pixels from the box's sides to the tile's borders.

    Left, top, right, bottom; infinite where the border is the scene's.
    """
    x1, y1, x2, y2 = self.box
    height, width = self.scene
    margins = np.array(
      [box[0] - x1, box[1] - y1, x2 - box[2], y2 - box[3]], np.float64
    )
    outer = [x1 <= 0, y1 <= 0, x2 >= width, y2 >= height]
    return np.where(outer, np.inf, margins)


@dataclasses.dataclass(frozen=True)
class TileBox:
  """One box of an answer.

  Attributes:
    window: of the tile.
    row: number of the answer; boxes of one answer are different targets.
    label: as the answer names it.
    box: xyxy, pixels of the scene.
    answer: text.
  """

  window: Window
  row: int
  label: str
  box: Sequence[float]
  answer: str


@dataclasses.dataclass(frozen=True)
class Finding:
  """One target of a scene.

  Attributes:
    label: as the answer names it.
    box: xyxy, pixels of the scene.
    tiles: names of the tiles that show it, the decisive one first.
    answer: text of the decisive tile's answer.
  """

  label: str
  box: tuple[float, float, float, float]
  tiles: tuple[str, ...]
  answer: str


@dataclasses.dataclass
class _Group:
  box: np.ndarray
  # Sides, left to right as in `margins`, at which all its boxes are cut.
  cut: np.ndarray
  first: TileBox
  rows: set[int]
  tiles: list[str]


def merge(boxes: Iterable[TileBox]) -> list[Finding]:
  """Returns the findings of a scene, from top to bottom.

  Two boxes are one target if they have the same label, come from different
  answers, and at least half of the smaller one lies in the other; or if both
  are cut at facing sides, intersect or touch, and lie side by side. The box
  that lies deeper in its tile is kept; of two that are cut, the union.

  Args:
    boxes: of all answers of one scene.

  Example: a ship at the seam of two tiles, cut by the first.
    >>> left = Window("left", (0, 0, 100, 100), 1.0, (100, 180))
    >>> right = Window("right", (80, 0, 180, 100), 1.0, (100, 180))
    >>> merge([
    ...   TileBox(left, 0, "ship", (90, 10, 100, 20), ""),
    ...   TileBox(right, 1, "ship", (90, 10, 120, 20), ""),
    ... ])
    [Finding(label='ship', box=(90.0, 10.0, 120.0, 20.0),
      tiles=('right', 'left'), answer='')]
  """
  groups: dict[str, list[_Group]] = collections.defaultdict(list)
  for one in sorted(boxes, key=lambda b: -b.window.margins(b.box).min()):
    box = np.asarray(one.box, np.float64)
    cut = one.window.margins(one.box) <= _CUT * one.window.pixel
    known = groups[detection.normal(one.label)]
    same = next(
      (
        g
        for g in known
        if one.row not in g.rows and _same(g, box, cut, one.window.pixel)
      ),
      None,
    )
    if same is None:
      known.append(_Group(box, cut, one, {one.row}, [one.window.name]))
      continue
    same.rows.add(one.row)
    if one.window.name not in same.tiles:
      same.tiles.append(one.window.name)
    if same.cut.any() and cut.any():
      same.box = np.concatenate(
        [np.minimum(same.box, box)[:2], np.maximum(same.box, box)[2:]]
      )
      same.cut &= cut
  found = [group for known in groups.values() for group in known]
  found.sort(key=lambda g: (g.box[1] + g.box[3], g.box[0] + g.box[2]))
  return [
    Finding(
      g.first.label, tuple(g.box.tolist()), tuple(g.tiles), g.first.answer
    )
    for g in found
  ]


def _same(group: _Group, box: np.ndarray, cut: np.ndarray, pixel) -> bool:
  low = np.maximum(group.box[:2], box[:2])
  sides = np.minimum(group.box[2:], box[2:]) - low
  smaller = np.minimum(group.box[2:] - group.box[:2], box[2:] - box[:2])
  share = np.clip(sides, 0, None) / np.maximum(smaller, 1e-9)
  if share.prod() >= SHARE:
    return True
  # Parts of one target: [left, top, right, bottom] faces [right, bottom, ...].
  facing = group.cut & np.roll(cut, 2)
  for axis in (0, 1):
    touches = sides[axis] >= -2 * _CUT * pixel
    if facing[[axis, axis + 2]].any() and touches and share[1 - axis] >= SHARE:
      return True
  return False
