"""Ship classes: sizes and radar scatterers.

Lengths and length / beam are typical of real vessels, whose ranges overlap: a
coaster is as long as a trawler, and a cargo ship has nearly the beam of a
tanker of its length. The bounding box therefore predicts the class weakly; the
scatterers show it. Their patterns are modelled on chips of Gaofen-3 and
Sentinel-1: evenly spaced bars of hatches and cranes across a cargo ship, a
line of pipes along a tanker, one cluster of gear and wheelhouse forward on a
fishing ship.

Coordinates of a hull: along, -0.5 (stern) .. 0.5 (bow), times its length;
across, -0.5 .. 0.5, times its beam.
"""

import numpy as np

SHIPS = ("fishing ship", "cargo ship", "tanker ship")
SHIP_SHARES = (0.34, 0.33, 0.33)
# (metres of length, length / beam), drawn evenly between.
SHIP_SIZES = {
  "fishing ship": ((25.0, 75.0), (3.2, 4.8)),
  "cargo ship": ((48.0, 165.0), (4.4, 6.4)),
  "tanker ship": ((48.0, 165.0), (4.2, 6.2)),
}
# Square stern, pointed bow.
HULL = np.array([[-0.5, -0.5], [-0.5, 0.5], [0.3, 0.5], [0.5, 0], [0.3, -0.5]])
# Mean echo of a bare deck, m2 per m2. It is far below the structures on it, so
# that a stretch which shows the sea does not saturate all of a ship.
_DECK_DB, _DECK_SPREAD_DB = -7.0, 1.5
# Echo of structures, in m2 per metre of length and m2 per m2 of deck echo.
_BAR, _PIPE, _GEAR, _BRIDGE, _SIDE = 50.0, 60.0, 60.0, 45.0, 14.0
# Metres between the bars of a cargo ship: gaps of 3 to 5 pixels of 3 m.
_BAR_STEP = (12.5, 17.0)
# Relative echo of a side that faces away from the sensor.
_TURNED_AWAY = 0.06
# Number of strong corner reflectors.
_CORNER_SHARES = (0.6, 0.3, 0.1)


def ship_scatterers(
  rng: np.random.Generator,
  name: str,
  length: float,
  width: float,
  towards: tuple[float, float],
) -> np.ndarray:
  """Returns float64[n, 3]: along, across, radar cross section in m2.

  Args:
    rng: random generator of the individual ship.
    name: one of SHIPS.
    length: metres.
    width: metres.
    towards: unit vector to the sensor, (along, across) the hull. The side that
      faces the sensor returns the double bounce of hull and sea.
  """
  parts = [_deck(rng, length, width), _PATTERNS[name](rng, length, width)]
  parts += [_side(rng, side, length, towards) for side in (-0.5, 0.5)]
  points = np.concatenate(parts)
  points[:, 2] *= 10 ** (0.1 * rng.normal(_DECK_DB, _DECK_SPREAD_DB))
  return np.concatenate([points, _corners(rng, points[:, 2].sum())])


def _deck(rng, length, width):
  """Returns weak scatterers across the hull, one per 12 m2 or so."""
  n = int(np.clip(length * width / 12, 12, 200))
  along = rng.uniform(-0.49, 0.49, n)
  across = rng.uniform(-0.46, 0.46, n) * _taper(along)
  return _points(along, across, length * width / n * rng.exponential(1.0, n))


def _side(rng, side, length, towards):
  """Returns one long side, bright if it faces the sensor."""
  n = max(6, round(length / 3))
  facing = max(0.0, np.sign(side) * towards[1])
  along = np.linspace(-0.49, 0.49, n)
  strength = (_TURNED_AWAY + facing**8) * rng.lognormal(-0.1, 0.5, n)
  return _points(along, side * _taper(along), _SIDE * length / n * strength)


def _cargo(rng, length, width):
  """Returns bars across the full beam, evenly spaced, and the bridge aft."""
  start, end = -0.24, 0.4
  gaps = max(1, round((end - start) * length / rng.uniform(*_BAR_STEP)))
  bars = np.linspace(start, end, gaps + 1)
  n = max(3, round(width / 2.5))
  along = np.repeat(bars, n)
  across = np.tile(np.linspace(-0.44, 0.44, n), len(bars)) * _taper(along)
  strength = np.repeat(rng.lognormal(-0.05, 0.3, len(bars)), n)
  bars = _points(along, across, _BAR * width / n * strength)
  return np.concatenate([bars, _bridge(rng, width)])


def _tanker(rng, length, width):
  """Returns a line along the keel, and the bridge aft."""
  n = max(8, round(0.74 * length / 2.5))
  along = np.linspace(-0.3, 0.44, n)
  strength = _PIPE * 0.74 * length / n * rng.lognormal(-0.05, 0.3, n)
  pipes = _points(along, rng.uniform(-0.02, 0.02, n), strength)
  return np.concatenate([pipes, _bridge(rng, width)])


def _fishing(rng, length, width):
  """Returns one cluster between amidships and the bow; the stern is bare."""
  middle = rng.uniform(0.06, 0.24)
  n = 14
  along = middle + rng.uniform(-0.11, 0.11, n)
  across = rng.uniform(-0.4, 0.4, n) * _taper(along)
  strength = _GEAR * 0.22 * length / n * rng.lognormal(-0.1, 0.5, n)
  return _points(along, across, 1.6 * strength)


_PATTERNS = {
  "fishing ship": _fishing,
  "cargo ship": _cargo,
  "tanker ship": _tanker,
}


def _bridge(rng, width):
  """Returns the deckhouse of a merchant ship, across the beam aft."""
  n = 12
  along = -0.41 + rng.uniform(-0.04, 0.04, n)
  across = rng.uniform(-0.42, 0.42, n)
  strength = _BRIDGE * 2 * width / n * rng.lognormal(-0.1, 0.5, n)
  return _points(along, across, strength)


def _corners(rng, total):
  """Returns zero to two corner reflectors.

  They cause the cross of side lobes around a ship.
  """
  n = int(rng.choice(len(_CORNER_SHARES), p=_CORNER_SHARES))
  along, across = rng.uniform(-0.42, 0.25, n), rng.uniform(-0.28, 0.28, n)
  return _points(along, across, total * rng.lognormal(-1.6, 0.6, n))


def _taper(along):
  """Returns the relative beam, 1 to 0 towards the bow."""
  return np.clip((0.5 - along) / 0.2, 0, 1)


def _points(along, across, strength):
  return np.stack([along, across, strength], -1)
