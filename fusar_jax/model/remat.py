"""Rematerialisation policies: residuals that a layer saves for backward."""

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


def remat_layer(layer: type[nn.Module], policy: str) -> type[nn.Module]:
  """Wraps a layer class for use inside `nn.scan`.

  Raises:
    ValueError: an unknown policy; the message lists the known ones.
  """
  if policy not in POLICIES:
    raise ValueError(f"remat {policy!r}; policies are {', '.join(POLICIES)}.")
  if policy == "none":
    return layer
  # Inside scan XLA cannot merge the recomputation away again.
  return nn.remat(layer, policy=POLICIES[policy], prevent_cse=False)
