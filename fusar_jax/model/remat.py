"""Rematerialisation policies: residuals that a layer saves for backward."""

from typing import Any

import flax.linen as nn
import jax

POLICIES = {
  # Save everything: fastest, most memory.
  "none": None,
  # Save only the layer input and recompute the rest.
  "full": jax.checkpoint_policies.nothing_saveable,
  # Save results of matrix products with weights; attention is recomputed.
  "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}


def scan_layers(
  layer: type[nn.Module],
  policy: str,
  in_axes: Any,  # Flax's own annotation, inferred from its default, is int.
  length: int,
  unroll: int,
) -> type[nn.Module]:
  """Returns a class of `length` layers, parameters stacked on axis 0.

  Args:
    layer: class of one layer, called with the carry and inputs.
    policy: one of POLICIES.
    in_axes: per input, the axis of the layers or `nn.broadcast`.
    length: number of layers.
    unroll: layers per iteration, at most `length`.

  Raises:
    ValueError: an unknown policy; the message lists the known ones.
  """
  if policy not in POLICIES:
    raise ValueError(f"remat {policy!r}; policies are {', '.join(POLICIES)}.")
  if policy != "none":
    # Inside scan XLA cannot merge the recomputation away again.
    layer = nn.remat(layer, policy=POLICIES[policy], prevent_cse=False)
  return nn.scan(
    layer,
    variable_axes={"params": 0},
    split_rngs={"params": True, "dropout": True},
    in_axes=in_axes,
    length=length,
    unroll=min(unroll, length),
  )
