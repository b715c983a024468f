"""Ship.xml of OpenSARShip: ships of a Sentinel-1 product, matched with AIS.

Positions are pixels of the product's measurement, x along its columns. A ship
is given by head and tail and by the window of its chip, which is larger than
the ship. Its rotated box has the length from head to tail, and the width that
AIS states in proportion to the length; the box is its envelope. Without a
proper length or width the window is the box.
"""

import math
import xml.etree.ElementTree as ET

from fusar_jax.datasets.importers.targets import Target, enclosing, pixels

ROOT = "ShipList"
_LABEL = "ship"


def read_ships(
  root: ET.Element, field: str | None
) -> tuple[list[Target], list[str]]:
  """Returns (targets, problems).

  Args:
    root: the element ShipList.
    field: tag whose text is the class, such as Elaborated_type; None: "ship".
  """
  targets, problems = [], []
  for i, ship in enumerate(root.iter("ship")):
    try:
      targets.append(_target(ship, field))
    except ValueError as error:
      problems.append(f"ship {i}: {error}")
  return targets, problems


def _target(ship: ET.Element, field: str | None) -> Target:
  label = _LABEL
  if field:
    label = (ship.findtext(f".//{field}") or "").strip()
    if not label:
      raise ValueError(f"no <{field}> that names its class")
  head, tail, upper, lower = (
    (_number(ship, f"{name}_x"), _number(ship, f"{name}_y"))
    for name in ("Head", "Tail", "UpperLeft", "LowerRight")
  )
  rotated = _rotated(ship, head, tail)
  if rotated is None:
    return Target(label, enclosing([upper, lower]))
  corners = [(rotated[f"x{i}"], rotated[f"y{i}"]) for i in range(1, 5)]
  return Target(label, enclosing(corners), rotated)


def _rotated(ship, head, tail) -> dict[str, float] | None:
  """Returns the corners around the line from head to tail, or None."""
  along = head[0] - tail[0], head[1] - tail[1]
  length = math.hypot(*along)
  metres = [
    _optional(ship, f"AISShipInformation/{n}") for n in ("Length", "Width")
  ]
  if not length or not all(metres):
    return None
  half = length * metres[1] / metres[0] / 2
  across = -along[1] / length * half, along[0] / length * half
  corners = [
    (end[0] + side * across[0], end[1] + side * across[1])
    for end, sides in ((head, (1, -1)), (tail, (-1, 1)))
    for side in sides
  ]
  return {
    f"{axis}{i}": value
    for i, corner in enumerate(corners, 1)
    for axis, value in zip("xy", corner)
  }


def _number(ship, tag) -> float:
  return float(pixels(ship.findtext(f"SARShipInformation/{tag}"), f"<{tag}>"))


def _optional(ship, path) -> float:
  """Returns a positive number, or 0 if there is none."""
  try:
    number = float(ship.findtext(path) or 0)
  except ValueError:
    return 0.0
  return number if 0 < number < 1e4 else 0.0
