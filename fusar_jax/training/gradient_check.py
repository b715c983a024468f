"""Checks after the first step that every trainable parameter has a gradient.

A parameter that is trainable but does not affect the loss (a tower under a
wrong name, LoRA on an unused layer) would otherwise go unnoticed for a full run
and never change.
"""

import logging
from collections.abc import Mapping

import jax
import numpy as np

from fusar_jax.model.batch import Batch
from fusar_jax.model.paths import flatten
from fusar_jax.training import partition

# Parameters that a control condition (config.data.anchors) leaves without a
# gradient for the full run, by design.
_SILENT = {"none": "tlm/", "zeros": "tlm/mlp_0/kernel"}


class GradientCheck:
  """Tracks the parameters that have had no gradient yet.

  Exempt are: LoRA's A while its B is all zero (the initial value; the gradient
  of A passes through B), likewise the MLP of concatenation fusion; the TLM
  until a batch has anchors; and parameters that a control condition disables.

  Args:
    trainable: parameters before the first step.
    anchors: control condition, `config.data.anchors`.
  """

  def __init__(self, trainable: partition.Params, anchors: str = "aligned"):
    flat = flatten(trainable)
    silent = _SILENT.get(anchors)
    self._waiting = {
      path
      for path in flat
      if not _behind_zero(path, flat)
      and not (silent and path.startswith(silent))
    }
    self._told = False

  def passes(self, nonzero: Mapping[str, bool], batch: Batch) -> bool:
    """Returns True once all parameters have had a gradient.

    Args:
      nonzero: {path: whether this step's gradient has a non-zero value}.
      batch: the batch of this step, on the host.

    Raises:
      ValueError: parameters have no gradient; lists them.
    """
    self._waiting -= {
      path for path, is_nonzero in nonzero.items() if is_nonzero
    }
    later = set()
    if not np.any(batch.anchor_weights):
      later = {path for path in self._waiting if path.startswith("tlm/")}
    dead = sorted(self._waiting - later)
    if dead:
      raise ValueError(
        f"{len(dead)} trainable parameters had no gradient in the first step:"
        "\n  " + "\n  ".join(dead) + "\nNothing in the loss depends on them;"
        " see config.trainable and config.model."
      )
    if later and not self._told:
      self._told = True
      logging.getLogger(__name__).warning(
        "the first batch has no anchors, so the TLM had no gradient; it is"
        " checked again at the first batch that has."
      )
    return not self._waiting


def _behind_zero(path: str, flat: Mapping[str, jax.Array]) -> bool:
  if path.endswith("/lora_a"):
    gate = flat.get(path.removesuffix("lora_a") + "lora_b")
  elif path.startswith("tlm/mlp_"):
    gate = flat.get("tlm/field_proj/kernel")
  else:
    return False
  return gate is not None and not np.any(jax.device_get(gate))
