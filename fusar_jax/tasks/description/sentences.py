"""Full texts of the eight caption fields, with shares, places and layout.

Each field has several wordings of the same facts; a random generator selects
them. Shares are of the mapped part of the scene. What the maps do not contain
is stated to be unknown.
"""

from collections.abc import Sequence

import numpy as np

from fusar_jax.tasks import captioning
from fusar_jax.tasks.description import measures, places, short
from fusar_jax.tasks.description.ground import (
  APRON,
  BUILT,
  COVERS,
  FLOODED,
  PIER,
  ROAD,
  RUNWAY,
  UNMAPPED,
  WATER,
  Ground,
  Target,
)

_COVER = dict(
  zip(
    COVERS,
    (
      *("water", "tree cover", "grassland", "wetland", "cropland"),
      *("shrubland", "built-up area", "bare ground", "snow and ice"),
      *("moss and lichen", "rangeland", "urban green space"),
    ),
  )
)
_USE = dict(
  zip(
    COVERS,
    (
      *("open water", "woodland", "grassland", "wetland", "farmland"),
      *("shrubland", "built-up area", "bare land", "snow and ice"),
      *("tundra", "rangeland", "parks"),
    ),
  )
)
_NAMED = 0.05  # least share of a cover that is named with its place
_MOST_NAMED = 4
_PATCH = 0.002  # least share of the scene that counts as a patch
_MANY = 12  # patches; more are not counted
_LARGE = 0.9  # share of a cover in its largest patch: one piece


def describe(
  ground: Ground,
  targets: Sequence[Target] | None,
  rng: np.random.Generator,
) -> dict[str, str]:
  """Returns the text of each of `captioning.FIELDS`.

  Args:
    ground: the maps; some land cover is mapped.
    targets: in the image; None: unknown.
    rng: selects the wordings.
  """
  say = _Wording(rng)
  fields = {
    "Terrain": _terrain(ground, say),
    "Functionality": _functionality(ground, say),
    "Distribution": _distribution(ground, targets, say),
    "Layout": _layout(ground, targets, say),
    "Boundary": _boundary(ground, say),
    "Buildings": _buildings(ground, say),
    "Roads": _roads(ground, say),
    "Water": _water(ground, say),
  }
  assert list(fields) == list(captioning.FIELDS)
  return fields


class _Wording:
  """Selects one of several wordings."""

  def __init__(self, rng):
    self._rng = rng

  def __call__(self, *wordings: str) -> str:
    return wordings[int(self._rng.integers(len(wordings)))]


def percent(share: float) -> str:
  """Returns a share in whole percent that is never rounded to none or all.

  Example:
    >>> percent(0.004), percent(0.317), percent(0.999), percent(1.0)
    ('less than 1 %', '32 %', 'over 99 %', '100 %')
  """
  if 0 < share < 0.01:
    return "less than 1 %"
  if 0.99 < share < 1:
    return "over 99 %"
  return f"{100 * share:.0f} %"


def listed(parts: Sequence[str]) -> str:
  """Returns "a", "a and b", "a, b and c"."""
  *others, last = parts
  return f"{', '.join(others)} and {last}" if others else last


def _largest(shares, least, most) -> list[int]:
  order = np.argsort(-shares, kind="stable")[:most]
  found = [int(c) for c in order if shares[c] >= least]
  return found or [int(c) for c in order[:1] if shares[c] > 0]


def _terrain(ground, say):
  land = measures.land_shares(ground)
  if not land.any():
    return say("open water without land", "open water, no land")
  form = ground.form or say("landform unknown", "unknown landform")
  found = [
    (_COVER[COVERS[c]], percent(land[c])) for c in _largest(land, 0.25, 2)
  ]
  parts = listed([f"{name} ({share})" for name, share in found])
  shares = listed([f"{share} {name}" for name, share in found])
  how = say("mainly ", "mostly ") if land.max() > 0.5 else ""
  return say(
    f"{form}; on land {how}{parts}",
    f"{form}, with {shares} on land",
  )


def _functionality(ground, say):
  land = measures.land_shares(ground)
  if not land.any():
    return say("open waters", "open waters without land use")
  head = short.facility(ground)
  uses = [
    f"{_USE[COVERS[c]]} {percent(land[c])}"
    for c in _largest(land, short.SECOND_LAND, 3)
  ]
  text = f"{listed(uses)} of the land"
  if head:
    return say(f"{head} with {text}", f"{head}; {text}")
  return say(text, f"{'mixed, ' if len(uses) > 1 else ''}{text}")


def _distribution(ground, targets, say):
  shares = measures.shares(ground)
  parts = []
  for cover in _largest(shares, _NAMED, _MOST_NAMED):
    name, share = _COVER[COVERS[cover]], percent(shares[cover])
    if shares[cover] == 1:
      parts.append(say(f"{name} everywhere", f"{name} in all of the scene"))
      continue
    at = places.where(ground.cover == cover)
    parts.append(
      say(
        f"{name} {share}, {at}",
        f"{share} {name}, {at}",
        f"{name} {at} ({share})",
      )
    )
  if unmapped := measures.unmapped_share(ground):
    parts.append(f"{percent(unmapped)} of the scene not mapped")
  if targets is not None:
    parts.append(short.distribution(ground, targets))
  return "; ".join(parts)


def _layout(ground, targets, say):
  parts = []
  shares = measures.shares(ground)
  for cover in _largest(shares, _NAMED, _MOST_NAMED - 1):
    name = _COVER[COVERS[cover]]
    if shares[cover] == 1:
      continue
    sizes = measures.patch_sizes(ground.cover == cover)
    large = np.count_nonzero(sizes >= _PATCH * ground.cover.size)
    if sizes.max() >= _LARGE * sizes.sum():
      parts.append(say(f"{name} in one piece", f"one connected area of {name}"))
    elif large > _MANY:
      parts.append(say(f"many patches of {name}", f"{name} in many patches"))
    elif large > 1:
      number = short.NUMBERS[large]
      parts.append(
        say(f"{name} in {number} patches", f"{number} patches of {name}")
      )
    else:
      parts.append(say(f"{name} in small patches", f"scattered {name}"))
  if not parts:
    parts.append(say("one uniform area", "uniform, without parts"))
  if targets:
    text = short.layout(ground, targets)
    parts.append(text if len(targets) == 1 else f"targets {text}")
  return "; ".join(parts)


def _boundary(ground, say):
  along, pair = measures.shore_and_border(ground, short.SECOND_SHORE)
  parts = []
  if along:
    names = listed([_COVER[COVERS[c]] for c in along])
    parts.append(
      say(
        f"{names} along the water",
        f"a shore of {names}",
        f"water meets {names}",
      )
    )
  if pair:
    a, b = (_COVER[COVERS[c]] for c in pair)
    parts.append(
      say(f"{a} borders {b}", f"{a} beside {b}", f"a border of {a} and {b}")
    )
  return "; ".join(parts) or say("none of length", "no long boundaries")


def _buildings(ground, say):
  if ground.height is None:
    built = measures.land_shares(ground)[BUILT]
    if not built:
      return say(
        "no built-up area; single buildings unknown",
        "single buildings unknown, no built-up area",
      )
    at = places.where(ground.cover == BUILT)
    return say(
      f"built-up area on {percent(built)} of the land, {at}; single buildings"
      " unknown",
      f"single buildings unknown; built-up area {at}, {percent(built)} of the"
      " land",
    )
  mask = ground.height != 0  # NaN: of unknown height.
  if not mask.any():
    return say("no buildings", "none")
  share = percent(np.count_nonzero(mask) / mask.size)
  number = (
    short.counted(ground.buildings, "building")
    if ground.buildings is not None
    else "buildings"
  )
  at = places.where(mask)
  text = say(
    f"{number} on {share} of the scene, {at}",
    f"{number} {at}, on {share} of the scene",
  )
  return f"{text}, {_heights(ground.height[mask])}"


def _heights(heights) -> str:
  known = heights[np.isfinite(heights)]
  if not known.size:
    return "heights unknown"
  text = f"up to {known.max():.0f} m high"
  return text if known.size == heights.size else f"{text} as far as known"


def _roads(ground, say):
  parts = []
  mask = ground.surface == ROAD
  if ROAD not in ground.mapped:
    parts.append("roads unknown")
  elif mask.any():
    at = places.where(mask)
    share = percent(mask.mean())
    parts.append(say(f"roads {at}, on {share} of the scene", f"roads {at}"))
  else:
    parts.append(say("no roads", "no road"))
  for surface, number, thing in (
    (RUNWAY, ground.runways, "runway"),
    (PIER, ground.piers, "pier"),
  ):
    if number:
      at = places.where(ground.surface == surface)
      parts.append(f"{short.counted(number, thing)}, {at}")
  if (ground.surface == APRON).any():
    parts.append(f"an apron {places.where(ground.surface == APRON)}")
  return "; ".join(parts)


def _water(ground, say):
  share = measures.shares(ground)[WATER]
  if share == 1:
    return say("water everywhere", "all of the scene")
  wet = measures.shares(ground)[FLOODED]
  parts = []
  if share:
    at, shown = places.where(ground.cover == WATER), percent(share)
    parts.append(
      say(
        f"water on {shown} of the scene, {at}",
        f"water {at}, {shown} of the scene",
      )
    )
  else:
    parts.append(say("no water", "none"))
  if wet:
    at = places.where(ground.cover == FLOODED)
    parts.append(f"wetland {at}, {percent(wet)} of the scene")
  if (ground.cover == UNMAPPED).any():
    parts.append("unknown where the land cover is not mapped")
  return "; ".join(parts)
