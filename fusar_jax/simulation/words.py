"""Words: what is true of a scene, in the eight fields of FUSAR-GEOVL.

Every phrase is decided by the terrain map and the ships that were drawn. There
are few phrases on purpose: a small model shall learn what they mean.
"""

import numpy as np

from fusar_jax.simulation.ships import Ship
from fusar_jax.simulation.terrain import BUILT, CROPS, TREES, Terrain
from fusar_jax.tasks import captioning, grounding

_NUMBERS = dict(
  enumerate(
    ("no", "one", "two", "three", "four", "five", "six", "seven", "eight")
  )
)
_TERRAIN = {
  "open sea": "open sea",
  "coast": "coastal area",
  "harbour": "harbour area",
  "island": "island in the sea",
}


def describe(terrain: Terrain, ships: tuple[Ship, ...]) -> dict[str, str]:
  """Returns the text of each of `captioning.FIELDS`."""
  fields = {
    "Terrain": _TERRAIN[terrain.kind],
    "Functionality": _functionality(terrain, ships),
    "Distribution": _distribution(terrain, ships),
    "Layout": _layout(terrain.cover.shape[0], ships),
    "Boundary": _boundary(terrain),
    "Buildings": _buildings(terrain),
    "Roads": "one road on the land" if terrain.road.any() else "none visible",
    "Water": _water(terrain),
  }
  assert list(fields) == list(captioning.FIELDS)
  return fields


def ship_words(n: int) -> str:
  """Returns "no ships", "one ship", "two ships", ..."""
  number = _NUMBERS.get(n, str(n))
  return f"{number} ship{'' if n == 1 else 's'}"


def _functionality(terrain, ships):
  if terrain.kind == "open sea":
    return "shipping waters" if ships else "empty waters"
  if terrain.kind == "harbour":
    return "port"
  main = max((BUILT, TREES, CROPS), key=terrain.share)
  return {BUILT: "settled land", TREES: "woodland", CROPS: "farmland"}[main] + (
    " by the sea" if terrain.kind == "coast" else " amid the sea"
  )


def _distribution(terrain, ships):
  size = terrain.cover.shape
  text = f"{ship_words(len(ships))} on the water"
  if ships:
    fullest = grounding.cells_of([ship.box for ship in ships], size)[0]
    text += f", {'mostly ' if len(ships) > 1 else ''}at the"
    text += f" {grounding.CELLS[fullest]}"
  if terrain.land.any():
    y, x = np.nonzero(terrain.land)
    spot = (x.mean(), y.mean())
    cell = grounding.cells_of([[*spot, *spot]], size)[0]
    text += f"; land at the {grounding.CELLS[cell]}"
  return text


def _layout(size, ships):
  if len(ships) < 2:
    return "a single ship" if ships else "empty"
  places = np.array([(ship.y, ship.x) for ship in ships]) / size
  apart = np.linalg.norm(places - places.mean(0), axis=1).mean()
  return "ships close together" if apart < 0.15 else "ships spread out"


def _boundary(terrain):
  if terrain.kind == "open sea":
    return "none visible"
  if terrain.kind == "harbour":
    piers = f"{_NUMBERS[terrain.piers]} pier{'s' * (terrain.piers > 1)}"
    return f"straight shoreline with {piers}"
  return "irregular shoreline"


def _buildings(terrain):
  share = terrain.share(BUILT)
  if share < 0.02:
    return "none visible"
  return "dense buildings" if share > 0.4 else "few buildings"


def _water(terrain):
  share = 1 - terrain.land.mean()
  if share == 1:
    return "water everywhere"
  return "mostly water" if share > 0.7 else "water and land"
