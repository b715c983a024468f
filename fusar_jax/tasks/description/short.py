"""Terse texts of the eight caption fields.

The vocabulary is small so that a small model can learn it. What the maps do not
contain is "unknown".

LAND_COVER_FIELDS describe the land cover, which is ambiguous in radar alone
(crops or grass, water or a bare pan) and known from the anchors. TARGET_FIELDS
describe ships and aircraft, which are visible in radar and unknown to the
anchors. Buildings and Roads are visible in both.
"""

import itertools
from collections.abc import Sequence

import numpy as np

from fusar_jax.tasks import captioning, grounding
from fusar_jax.tasks.description import measures
from fusar_jax.tasks.description.ground import (
  APRON,
  BUILT,
  COVERS,
  FLOODED,
  PIER,
  ROAD,
  RUNWAY,
  WATER,
  Ground,
  Target,
)

LAND_COVER_FIELDS = ("Terrain", "Functionality", "Boundary", "Water")
TARGET_FIELDS = ("Distribution", "Layout")
UNKNOWN = "unknown"

NUMBERS = (
  *("no", "one", "two", "three", "four", "five", "six", "seven", "eight"),
  *("nine", "ten", "eleven", "twelve"),
)
FORMS = ("coast", "lake shore", "river banks", "plain")
_COVER = dict(
  zip(
    COVERS,
    (
      *("water", "trees", "grass", "marsh", "crops", "shrub", "buildings"),
      *("soil", "snow", "moss", "open range", "parks"),
    ),
  )
)
_USE = dict(
  zip(
    COVERS,
    (
      *("water", "forestry", "grazing", "wetland", "farming", "wild land"),
      *("settlement", "waste land", "ice", "tundra", "open range"),
      "recreation",
    ),
  )
)
_SPACING = ("a single", "close together", "spread out")
_AMOUNTS = ("little", "some", "much", "mostly")
# Least share at which a second cover is named, of the land and of a shore.
SECOND_LAND, SECOND_SHORE = 0.1, 0.25
TALL_METRES = 15
_CLOSE = 0.2  # mean distance from the targets' middle, of the scene's side
# Covers of simulated scenes: all land covers of Dynamic World but snow.
_VOCABULARY = COVERS[1:8]


def describe(
  ground: Ground, targets: Sequence[Target] | None
) -> dict[str, str]:
  """Returns the text of each of `captioning.FIELDS`.

  Args:
    ground: the maps.
    targets: in the image; None: unknown.

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
    "Terrain": _terrain(ground),
    "Functionality": _functionality(ground),
    "Distribution": distribution(ground, targets),
    "Layout": layout(ground, targets),
    "Boundary": _boundary(ground),
    "Buildings": _buildings(ground),
    "Roads": _roads(ground),
    "Water": _water(ground),
  }
  assert list(fields) == list(captioning.FIELDS)
  return fields


def vocabulary() -> list[str]:
  """Returns sentences that cover every word of simulated scenes' texts."""
  covers = [_COVER[name] for name in _VOCABULARY]
  uses = [_USE[name] for name in _VOCABULARY]
  texts = {name: set() for name in captioning.FIELDS}
  for form in FORMS:
    texts["Terrain"] |= {f"{form} with {cover}" for cover in covers}
  texts["Terrain"].add("open sea")
  for head in ("", "port", "airport"):
    for pair in itertools.permutations(uses, 2):
      texts["Functionality"].add(_with(head, pair))
  texts["Functionality"].add("open waters")
  for number, kind in itertools.product(range(len(NUMBERS)), ("ship", "plane")):
    for cell in grounding.CELLS:
      for how in ("", "all ", "most "):
        text = f"{counted(number, kind)}, {how}at the {cell}"
        texts["Distribution"].add(text)
    texts["Distribution"].add(f"two ships, in {NUMBERS[number]} parts")
  texts["Distribution"].add("no targets")
  for spacing, spots in itertools.product(
    _SPACING, itertools.combinations(measures.SPOTS, 2)
  ):
    texts["Layout"].add(f"{spacing} {' and '.join(spots)}")
  texts["Layout"] |= {"empty", "a single ship", "a single plane"}
  for a, b in itertools.combinations(covers, 2):
    texts["Boundary"].add(f"shore of {a} and {b}, {a} beside {b}")
  texts["Boundary"].add("none visible")
  for amount in ("few", "some", "many"):
    texts["Buildings"].add(f"{amount} buildings, some tall")
    texts["Roads"].add(f"{amount} roads")
  for number, thing in itertools.product(range(1, 5), ("runway", "pier")):
    texts["Roads"].add(f"few roads, {counted(number, thing)}")
  for amount, cell in itertools.product(_AMOUNTS, grounding.CELLS):
    texts["Water"].add(f"{amount} water at the {cell}, wet ground")
  texts["Water"] |= {"none visible", "water everywhere", "wet ground only"}
  return [
    f"{captioning.FIELDS[name]} {text}."
    for name, found in texts.items()
    for text in sorted(found)
  ]


def counted(n: int, thing: str) -> str:
  """Returns "no ships", "one ship", "two ships", ..."""
  number = NUMBERS[n] if n < len(NUMBERS) else str(n)
  return f"{number} {thing}{'' if n == 1 else 's'}"


def _with(head: str, uses: Sequence[str]) -> str:
  return " with ".join(filter(None, (head, " and ".join(uses))))


def _terrain(ground):
  shares = measures.land_shares(ground)
  if not shares.any():
    return "open sea"
  if shares[BUILT] < 0.5:
    shares[BUILT] = 0
  form = ground.form or f"{UNKNOWN} landform"
  return f"{form} with {_COVER[COVERS[int(shares.argmax())]]}"


def _functionality(ground):
  shares = measures.land_shares(ground)
  if not shares.any():
    return "open waters"
  head = facility(ground)
  if head:
    shares[BUILT] = 0
  used = measures.ranked(shares, SECOND_LAND)
  return _with(head, [_USE[COVERS[c]] for c in used])


def facility(ground: Ground) -> str:
  """Returns "airport" if there is one, else "port" if there is one, else ""."""
  head = ""
  for surface, name in ((PIER, "port"), (APRON, "airport")):
    if name in ground.facilities or (ground.surface == surface).any():
      head = name
  return head


def distribution(ground: Ground, targets: Sequence[Target] | None) -> str:
  """Returns the number of targets of each kind, and where most of them are."""
  if targets is None:
    return UNKNOWN
  if not targets:
    return "no targets"
  kinds = [target.kind for target in targets]
  counts = [counted(kinds.count(k), k) for k in sorted(set(kinds))[::-1]]
  boxes, size = [target.box for target in targets], ground.cover.shape
  cells = [grounding.cells_of([box], size)[0] for box in boxes]
  fullest = grounding.cells_of(boxes, size)[0]
  there, n = cells.count(fullest), len(cells)
  if 2 * there > n:
    how = "" if n == 1 else "all " if there == n else "most "
    spread = f"{how}at the {grounding.CELLS[fullest]}"
  else:
    spread = f"in {NUMBERS[len(set(cells))]} parts"
  return f"{' and '.join(counts)}, {spread}"


def layout(ground: Ground, targets: Sequence[Target] | None) -> str:
  """Returns how far apart the targets are, and on what."""
  if targets is None:
    return UNKNOWN
  if not targets:
    return "empty"
  if len(targets) == 1:
    spacing = f"{_SPACING[0]} {targets[0].kind}"
  else:
    apart = measures.mean_distance(ground, targets)
    spacing = _SPACING[1 if apart < _CLOSE else 2]
  spots = {
    measures.spot(ground, target)
    for target in targets
    if _has_spot(ground, target)
  }
  on = " and ".join(sorted(spots, key=measures.SPOTS.index))
  return f"{spacing} {on}".rstrip()


def _has_spot(ground, target) -> bool:
  """Whether the maps can contain what a target is on or at."""
  need = {"ship": {PIER}, "plane": {APRON, RUNWAY}}.get(target.kind)
  return need is not None and need <= ground.mapped


def _boundary(ground):
  """Returns the covers along the shore and the pair with the longest border."""
  along, pair = measures.shore_and_border(ground, SECOND_SHORE)
  parts = []
  if along:
    names = [_COVER[COVERS[c]] for c in along]
    parts.append(f"shore of {' and '.join(names)}")
  if pair:
    a, b = (_COVER[COVERS[c]] for c in pair)
    parts.append(f"{a} beside {b}")
  return ", ".join(parts) or "none visible"


def _buildings(ground):
  if ground.height is None:
    return UNKNOWN
  share = measures.built_share(ground)
  if share == 0:
    return "none visible"
  amount = "few" if share < 0.02 else "some" if share < 0.15 else "many"
  # False for buildings of unknown height.
  tall = (ground.height >= TALL_METRES).any()
  return f"{amount} buildings{', some tall' if tall else ''}"


def _roads(ground):
  parts = []
  if ROAD not in ground.mapped:
    parts.append(f"roads {UNKNOWN}")
  elif share := np.mean(ground.surface == ROAD):
    amount = "few" if share < 0.03 else "some" if share < 0.1 else "many"
    parts.append(f"{amount} roads")
  for number, thing in ((ground.runways, "runway"), (ground.piers, "pier")):
    if number:
      parts.append(counted(number, thing))
  return ", ".join(parts) or "none visible"


def _water(ground):
  share = measures.shares(ground)[WATER]
  if share == 1:
    return "water everywhere"
  wet = measures.land_shares(ground)[FLOODED] >= SECOND_LAND
  if share == 0:
    return "wet ground only" if wet else "none visible"
  cell = measures.middle_cell(ground.cover == WATER)
  amount = _AMOUNTS[int(np.searchsorted((0.15, 0.5, 0.8), share, "right"))]
  text = f"{amount} water at the {grounding.CELLS[cell]}"
  return text + (", wet ground" if wet else "")
