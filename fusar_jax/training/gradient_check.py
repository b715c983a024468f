"""After the first step every trainable parameter must have had a gradient.

A parameter that is listed as trainable but not reached by the loss (a tower
behind a wrong name, a LoRA beside a layer that is not used) would otherwise
train for days and stay what it was.
"""

import logging
from collections.abc import Mapping

import jax
import numpy as np

from fusar_jax.model.batch import Batch
from fusar_jax.model.paths import flatten
from fusar_jax.training import partition


class GradientCheck:
  """Remembers what has not had a gradient yet.

  Excused are LoRA's A while its B is all zero (as it starts: the gradient of A
  passes through B), and the TLM until a batch has anchors.

  Args:
    trainable: parameters before the first step.
  """

  def __init__(self, trainable: partition.Params):
    flat = flatten(trainable)
    self._waiting = {path for path in flat if not _behind_zero_b(path, flat)}
    self._told = False

  def passes(self, nonzero: Mapping[str, bool], batch: Batch) -> bool:
    """Returns True when all have had a gradient and no check is needed.

    Args:
      nonzero: {path: whether this step's gradient has a non-zero value}.
      batch: of this step, on the host.

    Raises:
      ValueError: parameters without a gradient, named.
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


def _behind_zero_b(path: str, flat: Mapping[str, jax.Array]) -> bool:
  if not path.endswith("/lora_a"):
    return False
  b = flat.get(path.removesuffix("lora_a") + "lora_b")
  return b is not None and not np.any(jax.device_get(b))
