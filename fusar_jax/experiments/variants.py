"""What the study compares: one standard recipe, and what differs from it.

The standard: anchors as they are, 9 x 9 of them, fused by TLM with a sigma of 2
patches, in two stages. Every other variant differs in one of these, in training
and in testing alike.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from fusar_jax.data.anchor_conditions import CONDITIONS
from fusar_jax.model.config import FUSIONS

_STANDARD = {
  "data.anchors": "aligned",
  "data.anchor_grid": 9,
  "model.tlm.sigma": 2.0,
  "model.tlm.fusion": "tlm",
}
# Nodes along one side as they are simulated; thinned to every other number.
NODES = 18


@dataclasses.dataclass(frozen=True, eq=False)
class Variant:
  """One way to train.

  Attributes:
    name: of its folder.
    values: fields of the configs of all its stages.
    two_stages: captions, then tasks; or one run on both together, with as many
      steps.
  """

  name: str
  values: Mapping[str, Any]
  two_stages: bool = True

  @property
  def condition(self) -> str:
    """How its anchors are shown, in training and in testing."""
    return self.values["data.anchors"]


@dataclasses.dataclass(frozen=True, eq=False)
class Group:
  """Variants that stand in one table.

  Attributes:
    title: of the table.
    variants: label -> variant; one of them is STANDARD.
    ablation: may be trained with fewer seeds than the controls.
  """

  title: str
  variants: Mapping[str, Variant]
  ablation: bool = True

  @property
  def standard(self) -> str:
    """The label of STANDARD."""
    [label] = [k for k, v in self.variants.items() if v is STANDARD]
    return label


STANDARD = Variant("standard", _STANDARD)


def _along(field: str, choices) -> dict[str, Variant]:
  """Returns label -> variant of choices of one field."""
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
    ablation=False,
  ),
  "sigma": Group(
    "Width sigma of an anchor's Gaussian, in patches",
    _along("model.tlm.sigma", (0.5, 1.0, 2.0, 4.0, 8.0)),
  ),
  "grid": Group(
    "Anchors along one side of an image",
    _along("data.anchor_grid", (1, 3, 9, NODES)),
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
