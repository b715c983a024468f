"""Describes a scene in the eight caption fields of FUSAR-GEOVL.

Every text is derived from the drawn maps and targets; the place only names the
landform (coast, lake shore, river banks, plain). The vocabulary is small so
that a small model can learn it.

LAND_COVER_FIELDS describe the land cover, which is ambiguous in radar alone
(crops or grass, water or a bare pan) and known from the anchors. TARGET_FIELDS
describe ships and aircraft, which are visible in radar and unknown to the
anchors. Buildings and Roads are visible in both.
"""

import itertools
from collections.abc import Sequence

import numpy as np

from fusar_jax.simulation.covers import (
  BARE,
  BUILT,
  COVERS,
  CROPS,
  FLOODED,
  GRASS,
  SHRUB,
  TREES,
  WATER,
)
from fusar_jax.simulation.targets import Target
from fusar_jax.simulation.terrain import APRON, PIER, ROAD, RUNWAY, Terrain
from fusar_jax.tasks import captioning, grounding

LAND_COVER_FIELDS = ("Terrain", "Functionality", "Boundary", "Water")
TARGET_FIELDS = ("Distribution", "Layout")

NUMBERS = (
  *("no", "one", "two", "three", "four", "five", "six", "seven", "eight"),
  *("nine", "ten", "eleven", "twelve"),
)
_COVER = {
  TREES: "trees",
  GRASS: "grass",
  FLOODED: "marsh",
  CROPS: "crops",
  SHRUB: "shrub",
  BUILT: "buildings",
  BARE: "soil",
}
_USE = {
  TREES: "forestry",
  GRASS: "grazing",
  FLOODED: "wetland",
  CROPS: "farming",
  SHRUB: "wild land",
  BUILT: "settlement",
  BARE: "waste land",
}
_FORM = {
  "coast": "coast",
  "harbour": "coast",
  "lake": "lake shore",
  "river": "river banks",
}
_SPOTS = ("on water", "at piers", "on apron", "on runway")
_SPACING = ("a single", "close together", "spread out")
_AMOUNTS = ("little", "some", "much", "mostly")
# Least share at which a second cover is named, of the land and of a shore.
_SECOND_LAND, _SECOND_SHORE = 0.1, 0.25
_TALL_METRES = 15
_PIER_METRES = 30  # a ship within this distance of a pier is at it
_CLOSE = 0.2  # mean distance from the targets' middle, of the scene's side


def describe(terrain: Terrain, targets: Sequence[Target]) -> dict[str, str]:
  """Returns the text of each of `captioning.FIELDS`.

  Example: two ships off a coast of crops and trees may give
    Terrain        coast with crops
    Functionality  farming and forestry
    Distribution   two ships, all at the top-left
    Layout         close together on water
    Boundary       shore of crops and trees, trees beside crops
    Buildings      none visible
    Roads          few roads
    Water          some water at the top-left
  """
  fields = {
    "Terrain": _terrain(terrain),
    "Functionality": _functionality(terrain),
    "Distribution": _distribution(terrain, targets),
    "Layout": _layout(terrain, targets),
    "Boundary": _boundary(terrain),
    "Buildings": _buildings(terrain),
    "Roads": _roads(terrain),
    "Water": _water(terrain),
  }
  assert list(fields) == list(captioning.FIELDS)
  return fields


def vocabulary() -> list[str]:
  """Returns sentences that cover every word of the texts, for a tokenizer."""
  texts = {name: set() for name in captioning.FIELDS}
  for form in (*_FORM.values(), "plain"):
    texts["Terrain"] |= {f"{form} with {cover}" for cover in _COVER.values()}
  texts["Terrain"].add("open sea")
  for head in ("", "port", "airport"):
    for pair in itertools.permutations(_USE.values(), 2):
      texts["Functionality"].add(_with(head, pair))
  texts["Functionality"].add("open waters")
  for number, kind in itertools.product(range(len(NUMBERS)), ("ship", "plane")):
    for cell in grounding.CELLS:
      for how in ("", "all ", "most "):
        text = f"{_counted(number, kind)}, {how}at the {cell}"
        texts["Distribution"].add(text)
    texts["Distribution"].add(f"two ships, in {NUMBERS[number]} parts")
  texts["Distribution"].add("no targets")
  for spacing, spots in itertools.product(
    _SPACING, itertools.combinations(_SPOTS, 2)
  ):
    texts["Layout"].add(f"{spacing} {' and '.join(spots)}")
  texts["Layout"] |= {"empty", "a single ship", "a single plane"}
  for a, b in itertools.combinations(_COVER.values(), 2):
    texts["Boundary"].add(f"shore of {a} and {b}, {a} beside {b}")
  texts["Boundary"].add("none visible")
  for amount in ("few", "some", "many"):
    texts["Buildings"].add(f"{amount} buildings, some tall")
    texts["Roads"].add(f"{amount} roads")
  for number, thing in itertools.product(range(1, 5), ("runway", "pier")):
    texts["Roads"].add(f"few roads, {_counted(number, thing)}")
  for amount, cell in itertools.product(_AMOUNTS, grounding.CELLS):
    texts["Water"].add(f"{amount} water at the {cell}, wet ground")
  texts["Water"] |= {"none visible", "water everywhere", "wet ground only"}
  return [
    f"{captioning.FIELDS[name]} {text}."
    for name, found in texts.items()
    for text in sorted(found)
  ]


def _counted(n: int, thing: str) -> str:
  """Returns "no ships", "one ship", "two ships", ..."""
  number = NUMBERS[n] if n < len(NUMBERS) else str(n)
  return f"{number} {thing}{'' if n == 1 else 's'}"


def _with(head: str, uses: Sequence[str]) -> str:
  return " with ".join(filter(None, (head, " and ".join(uses))))


def _land_shares(terrain: Terrain) -> np.ndarray:
  """Returns float64[8], shares of the land; zeros without land."""
  pixels = np.bincount(terrain.cover.ravel(), minlength=len(COVERS))
  pixels[WATER] = 0
  return pixels / max(pixels.sum(), 1)


def _ranked(shares: np.ndarray, second: float) -> list[int]:
  """Returns the largest cover, and the second if its share is >= `second`."""
  order = np.argsort(-shares, kind="stable")[:2]
  least = (np.finfo(float).tiny, second)
  return [int(c) for c, share in zip(order, least) if shares[c] >= share]


def _terrain(terrain):
  shares = _land_shares(terrain)
  if not shares.any():
    return "open sea"
  if shares[BUILT] < 0.5:
    shares[BUILT] = 0
  form = _FORM.get(terrain.place, "plain")
  return f"{form} with {_COVER[int(shares.argmax())]}"


def _functionality(terrain):
  shares = _land_shares(terrain)
  if not shares.any():
    return "open waters"
  head = ""
  for surface, name in ((PIER, "port"), (APRON, "airport")):
    if (terrain.surface == surface).any():
      head, shares[BUILT] = name, 0
  return _with(head, [_USE[c] for c in _ranked(shares, _SECOND_LAND)])


def _distribution(terrain, targets):
  if not targets:
    return "no targets"
  kinds = [target.kind for target in targets]
  counts = [_counted(kinds.count(k), k) for k in sorted(set(kinds))[::-1]]
  boxes, size = [target.box for target in targets], terrain.cover.shape
  cells = [grounding.cells_of([box], size)[0] for box in boxes]
  fullest = grounding.cells_of(boxes, size)[0]
  there, n = cells.count(fullest), len(cells)
  if 2 * there > n:
    how = "" if n == 1 else "all " if there == n else "most "
    spread = f"{how}at the {grounding.CELLS[fullest]}"
  else:
    spread = f"in {NUMBERS[len(set(cells))]} parts"
  return f"{' and '.join(counts)}, {spread}"


def _layout(terrain, targets):
  if not targets:
    return "empty"
  centres = np.array([target.box for target in targets]).reshape(-1, 2, 2)
  centres = centres.mean(1) / terrain.cover.shape[0]
  apart = np.linalg.norm(centres - centres.mean(0), axis=1).mean()
  if len(targets) == 1:
    spacing = f"{_SPACING[0]} {targets[0].kind}"
  else:
    spacing = _SPACING[1 if apart < _CLOSE else 2]
  spots = {_spot(terrain, target) for target in targets}
  return f"{spacing} {' and '.join(sorted(spots, key=_SPOTS.index))}"


def _spot(terrain, target):
  """Returns the one of _SPOTS where a target is."""
  x0, y0, x1, y1 = target.box
  if target.kind == "plane":
    h, w = terrain.surface.shape
    y = min(max(int((y0 + y1) / 2), 0), h - 1)
    x = min(max(int((x0 + x1) / 2), 0), w - 1)
    return _SPOTS[3 if terrain.surface[y, x] == RUNWAY else 2]
  reach = _PIER_METRES / terrain.gsd
  around = terrain.surface[
    max(int(y0 - reach), 0) : int(y1 + reach) + 1,
    max(int(x0 - reach), 0) : int(x1 + reach) + 1,
  ]
  return _SPOTS[1 if (around == PIER).any() else 0]


def _boundary(terrain):
  """Returns the covers along the shore and the pair with the longest border."""
  cover, n = terrain.cover.astype(np.int64), len(COVERS)
  borders = np.zeros((n, n), np.int64)
  for a, b in ((cover[1:], cover[:-1]), (cover[:, 1:], cover[:, :-1])):
    pairs = np.bincount((n * a + b).ravel(), minlength=n * n)
    borders += pairs.reshape(n, n)
  borders += borders.T
  np.fill_diagonal(borders, 0)
  least = cover.shape[0] / 8  # pixels; shorter borders are omitted
  parts = []
  shore = borders[WATER]
  if shore.sum() >= least:
    names = [_COVER[c] for c in _ranked(shore / shore.sum(), _SECOND_SHORE)]
    parts.append(f"shore of {' and '.join(names)}")
  borders[[WATER, BUILT]] = 0
  borders[:, [WATER, BUILT]] = 0
  if borders.max() >= least:
    a, b = np.unravel_index(borders.argmax(), borders.shape)
    parts.append(f"{_COVER[int(a)]} beside {_COVER[int(b)]}")
  return ", ".join(parts) or "none visible"


def _buildings(terrain):
  share = np.count_nonzero(terrain.height) / max(terrain.land.sum(), 1)
  if share == 0:
    return "none visible"
  amount = "few" if share < 0.02 else "some" if share < 0.15 else "many"
  tall = ", some tall" if terrain.height.max() >= _TALL_METRES else ""
  return f"{amount} buildings{tall}"


def _roads(terrain):
  share = np.mean(terrain.surface == ROAD)
  parts = []
  if share:
    amount = "few" if share < 0.03 else "some" if share < 0.1 else "many"
    parts.append(f"{amount} roads")
  for number, thing in ((terrain.runways, "runway"), (terrain.piers, "pier")):
    if number:
      parts.append(_counted(number, thing))
  return ", ".join(parts) or "none visible"


def _water(terrain):
  share = terrain.share(WATER)
  if share == 1:
    return "water everywhere"
  wet = _land_shares(terrain)[FLOODED] >= _SECOND_LAND
  if share == 0:
    return "wet ground only" if wet else "none visible"
  y, x = np.nonzero(terrain.cover == WATER)
  middle = [x.mean() + 0.5, y.mean() + 0.5]
  cell = grounding.cells_of([middle * 2], terrain.cover.shape)[0]
  amount = _AMOUNTS[int(np.searchsorted((0.15, 0.5, 0.8), share, "right"))]
  text = f"{amount} water at the {grounding.CELLS[cell]}"
  return text + (", wet ground" if wet else "")
