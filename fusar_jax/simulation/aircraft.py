"""Aircraft classes: sizes and radar scatterers on the ground.

Lengths and spans are those of common types: fighters from F-16 to Su-34,
propeller transports from An-26 to A400M, airliners from regional jets to A330.
Their ranges overlap; wings and engines show the class. Echo strength and
pattern are chosen by comparison with chips of Gaofen-3, where the brightest
points of aircraft are 15 to 25 dB brighter than the apron. This is far above
the in-flight cross sections of Skolnik (Introduction to Radar Systems: fighter
6 m2, jet airliner 40 m2), because each part also forms corner reflectors with
the ground. The pattern is a few bright points (nose, engines, wing roots, tail)
joined by fainter lines.

Coordinates: along, -0.5 (tail) .. 0.5 (nose), times the length; across,
-0.5 .. 0.5, times the span.
"""

import numpy as np

PLANES = ("fighter plane", "transport plane", "airliner plane")
PLANE_SHARES = (0.35, 0.3, 0.35)
# (metres of length, length / span), drawn evenly between.
PLANE_SIZES = {
  "fighter plane": ((16.0, 24.0), (1.1, 1.6)),
  "transport plane": ((20.0, 42.0), (0.78, 1.02)),
  "airliner plane": ((24.0, 58.0), (0.92, 1.22)),
}
# Total radar cross section, m2, and its spread.
_TOTAL = {
  "fighter plane": 180.0,
  "transport plane": 450.0,
  "airliner plane": 700.0,
}
_SPREAD_DB = 2.0
# (root, tip) of the wing's leading edge and its depth at the tip, along.
_WINGS = {
  "fighter plane": (0.12, -0.28, 0.08),
  "transport plane": (0.14, 0.10, 0.08),
  "airliner plane": (0.14, -0.12, 0.06),
}
# (along, across) of engines on one side; a fighter's sit in its tail.
_ENGINES = {
  "fighter plane": ((-0.46, 0.06),),
  "transport plane": ((0.17, 0.13), (0.15, 0.27)),
  "airliner plane": ((0.10, 0.17),),
}
_BODY = 0.045  # half the width of the fuselage, in spans


def plane_outline(name: str) -> np.ndarray:
  """Returns float64[n, 2], (along, across) of consecutive corners."""
  root, tip, depth = _WINGS[name]
  half = [
    (0.5, 0.0),
    (0.42, _BODY),
    (root, _BODY),
    (tip, 0.5),
    (tip - depth, 0.5),
    (min(root, tip) - 0.12, _BODY),
    (-0.4, _BODY),
    (-0.46, 0.19),
    (-0.5, 0.19),
  ]
  return np.array(half + [(u, -v) for u, v in half[:0:-1]])


def plane_scatterers(
  rng: np.random.Generator, name: str, towards: tuple[float, float]
) -> np.ndarray:
  """Returns float64[n, 3]: along, across, radar cross section in m2.

  Args:
    rng: random generator of the individual aircraft.
    name: one of PLANES.
    towards: unit vector to the sensor, (along, across) the aircraft. Leading
      edges, nose and tail are brighter the more they face it.
  """
  ahead, aside = towards
  nose, tail = (0.3 + max(0.0, s * ahead) for s in (1, -1))
  parts = [
    _line(rng, (-0.45, 0), (0.42, 0), 14, 0.25 + 1.2 * abs(aside) ** 4),
    _knot(rng, 0.46, 0.0, 6 * nose),
    _knot(rng, -0.47, 0.0, 8 * (tail + 0.4 * abs(aside))),
  ]
  root, tip, depth = _WINGS[name]
  for side in (-1.0, 1.0):
    edge = 0.2 + max(0.0, 0.9 * ahead + 0.4 * side * aside)
    parts += [
      _line(rng, (root, side * _BODY), (tip, side * 0.48), 10, edge),
      _knot(rng, root - 0.08, side * _BODY, 5.0),
      _knot(rng, tip - 0.5 * depth, side * 0.49, 2.0),
      _line(rng, (-0.42, side * _BODY), (-0.48, side * 0.18), 3, 0.6),
    ]
    parts += [_knot(rng, u, side * v, 7.0) for u, v in _ENGINES[name]]
  points = np.concatenate(parts)
  total = _TOTAL[name] * 10 ** (0.1 * rng.normal(0, _SPREAD_DB))
  points[:, 2] *= total / points[:, 2].sum()
  return points


def _line(rng, start, end, n, strength):
  """Returns n scatterers along a line with the given mean strength."""
  place = np.linspace(start, end, n)
  return np.column_stack([place, strength * rng.exponential(1.0, n)])


def _knot(rng, along, across, strength):
  return np.array([[along, across, strength * rng.lognormal(0, 0.5)]])
