"""Variants of a study: the standard recipe and single changes to it.

The standard recipe: aligned anchors on a 9 x 9 grid, fused by TLM with a sigma
of 2 patches, in two stages. Every other variant changes one of these settings,
for training and testing.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from fusar_jax.model.config import FUSIONS

_STANDARD = {
  "data.anchors": "aligned",
  "data.anchor_grid": 9,
  "model.tlm.sigma": 2.0,
  "model.tlm.fusion": "tlm",
}
# "coordinates" is no control here: simulated places have no geography, so it
# provides no information beyond positions.
CONDITIONS = ("aligned", "none", "zeros", "shuffled", "wrong_place")
# Grid points per side of the simulated anchors; smaller grids are subsets.
GRID_POINTS = 18


@dataclasses.dataclass(frozen=True, eq=False)
class Variant:
  """One training recipe.

  Attributes:
    name: of its folder.
    values: config fields of all its stages.
    two_stages: captions, then tasks; False: one run on both, with the same
      total number of steps.
  """

  name: str
  values: Mapping[str, Any]
  two_stages: bool = True

  @property
  def condition(self) -> str:
    """The condition of its anchors, for training and testing."""
    return self.values["data.anchors"]


@dataclasses.dataclass(frozen=True, eq=False)
class Group:
  """The variants of one table.

  Attributes:
    title: of the table.
    variants: {label: variant}, including STANDARD.
    headline: tested, over `--seeds`; others use `--ablation-seeds` and list
      differences only.
  """

  title: str
  variants: Mapping[str, Variant]
  headline: bool = False

  @property
  def standard(self) -> str:
    """Label of STANDARD."""
    [label] = [k for k, v in self.variants.items() if v is STANDARD]
    return label


STANDARD = Variant("standard", _STANDARD)


def _along(field: str, choices) -> dict[str, Variant]:
  """Returns {label: variant} for values of one field."""
  name = field.rpartition(".")[2]
  return {
    f"{choice:g}" if isinstance(choice, float) else str(choice): (
      STANDARD
      if choice == _STANDARD[field]
      else Variant(f"{name}-{choice}", _STANDARD | {field: choice})
    )
    for choice in choices
  }


GROUPS = {
  "controls": Group(
    "Anchors, trained and tested under each condition",
    _along("data.anchors", CONDITIONS),
    headline=True,
  ),
  "sigma": Group(
    "Width sigma of an anchor's Gaussian, in patches",
    _along("model.tlm.sigma", (0.5, 1.0, 2.0, 4.0, 8.0)),
  ),
  "grid": Group(
    "Anchors along one side of an image",
    _along("data.anchor_grid", (1, 3, 9, GRID_POINTS)),
  ),
  "fusion": Group(
    "How anchors enter the visual tokens", _along("model.tlm.fusion", FUSIONS)
  ),
  "stages": Group(
    "Captions, then tasks; or both together, in as many steps",
    {
      "two stages": STANDARD,
      "one stage": Variant("one-stage", _STANDARD, two_stages=False),
    },
  ),
}
# No training: the standard model under every condition of its anchors.
TESTED = "tested"
TESTED_TITLE = "Anchors, trained aligned, tested under each condition"
