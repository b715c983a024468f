"""Ship classes: sizes and radar scatterers.

Lengths are typical of real vessels. The ranges of length / beam have gaps
between classes that real fleets do not have; we chose them to make classes
unambiguous. The scatterer patterns are modelled on chips of Gaofen-3 and
Sentinel-1: a bridge aft, bars of hatches and cranes across a cargo ship, a pipe
along a tanker, a cluster of gear on a fishing ship.

Coordinates of a hull: along, -0.5 (stern) .. 0.5 (bow), times its length;
across, -0.5 .. 0.5, times its beam.
"""

import numpy as np

SHIPS = ("fishing ship", "cargo ship", "tanker ship")
SHIP_SHARES = (0.36, 0.34, 0.3)
# (metres of length, length / beam), drawn evenly between.
SHIP_SIZES = {
  "fishing ship": ((21.0, 42.0), (2.8, 3.8)),
  "cargo ship": ((75.0, 165.0), (5.6, 6.8)),
  "tanker ship": ((75.0, 165.0), (3.5, 4.3)),
}
# Square stern, pointed bow.
HULL = np.array([[-0.5, -0.5], [-0.5, 0.5], [0.3, 0.5], [0.5, 0], [0.3, -0.5]])
# Mean echo of a deck, m2 per m2: ships show 0..15 dB in chips of C band.
_DECK_DB, _DECK_SPREAD_DB = 6.0, 2.0
# Relative echo of a side that faces away from the sensor.
_TURNED_AWAY = 0.06


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
  parts = [_deck(rng, length, width), _bridge(rng, name), _pattern(rng, name)]
  parts += [_side(rng, side, length, towards) for side in (-0.5, 0.5)]
  points = np.concatenate(parts)
  total = 10 ** (0.1 * rng.normal(_DECK_DB, _DECK_SPREAD_DB)) * length * width
  points[:, 2] *= total / points[:, 2].sum()
  return np.concatenate([points, _corners(rng, total)])


def _deck(rng, length, width):
  """Returns weak scatterers across the hull, one per 25 m2 or so."""
  n = int(np.clip(length * width / 25, 8, 120))
  along = rng.uniform(-0.48, 0.48, n)
  across = rng.uniform(-0.45, 0.45, n) * _taper(along)
  return _points(along, across, rng.lognormal(-0.6, 1.2, n))


def _side(rng, side, length, towards):
  """Returns one long side, bright if it faces the sensor."""
  n = max(4, round(length / 4))
  facing = max(0.0, np.sign(side) * towards[1])
  along = rng.uniform(-0.49, 0.49, n)
  strength = (_TURNED_AWAY + facing**4) * rng.lognormal(0.6, 1.0, n)
  return _points(along, side * _taper(along), strength)


def _bridge(rng, name):
  """Returns the deckhouse, a cluster of corner reflectors near the stern."""
  middle = 0.05 if name == "fishing ship" else -0.36
  along = middle + rng.uniform(-0.05, 0.05, 8)
  return _points(along, rng.uniform(-0.4, 0.4, 8), rng.lognormal(2.0, 0.6, 8))


def _corners(rng, total):
  """Returns one to three corner reflectors, nearly as strong as the rest.

  They cause the cross of side lobes around a ship.
  """
  n = int(rng.integers(1, 4))
  along, across = rng.uniform(-0.42, 0.25, n), rng.uniform(-0.28, 0.28, n)
  return _points(along, across, total * rng.lognormal(-1.6, 0.8, n))


def _pattern(rng, name):
  """Returns the scatterer pattern that is specific to the class."""
  if name == "cargo ship":
    bars = np.linspace(-0.2, 0.36, int(rng.integers(4, 7)))
    along = np.repeat(bars, 5)
    across = np.tile([-0.4, -0.2, 0, 0.2, 0.4], len(bars)) * _taper(along)
    return _points(along, across, rng.lognormal(1.6, 0.4, len(along)))
  if name == "tanker ship":
    along = np.linspace(-0.28, 0.42, 24)
    return _points(along, np.zeros(24), rng.lognormal(1.8, 0.3, 24))
  gear = rng.uniform(-0.3, 0.4, 4)
  return _points(gear, np.zeros(4), rng.lognormal(1.0, 0.5, 4))


def _taper(along):
  """Returns the relative beam, 1 to 0 towards the bow."""
  return np.clip((0.5 - along) / 0.2, 0, 1)


def _points(along, across, strength):
  return np.stack([along, across, strength], -1)
