"""Rematerialisation policies: residuals that a layer saves for backward."""

from typing import Any

import flax.linen as nn
import jax
import numpy as np

# Policies without arguments; `read_policy` also reads names of projections.
POLICIES = {
  # Save everything: fastest, most memory.
  "none": None,
  # Save only the layer input and recompute the rest.
  "full": jax.checkpoint_policies.nothing_saveable,
  # Save results of matrix products with weights; attention is recomputed.
  "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}

# Projections of decoder layers and of the tower's blocks (qkv, proj).
PROJECTIONS = (
  *("q_proj", "k_proj", "v_proj", "o_proj", "qkv", "proj"),
  *("gate_proj", "up_proj", "down_proj"),
)


def saved_names(policy: str) -> tuple[str, ...]:
  """Returns the projections of "save:NAME,..." or "offload:NAME,...".

  Empty for other policies. A saved result takes memory, 7 kB a token and layer
  for q_proj of 7B and 38 kB for gate_proj, and its product is not computed
  again. What no gradient needs is not stored: down_proj's result is only added
  to the residual.

  Raises:
    ValueError: an unknown projection.
  """
  kind, _, names = policy.partition(":")
  if kind not in ("save", "offload"):
    return ()
  saved = tuple(names.split(","))
  if unknown := sorted(set(saved) - set(PROJECTIONS)):
    raise ValueError(
      f"remat {policy!r}: {kind!r} takes names of projections, separated by"
      f" commas; unknown: {', '.join(unknown)}; known:"
      f" {', '.join(PROJECTIONS)}."
    )
  return saved


def read_policy(policy: str) -> Any:
  """Returns the policy for `jax.checkpoint`; None saves everything.

  Args:
    policy: one of POLICIES, or "save:NAME,..." to save the results of some
      projections only, or "offload:NAME,..." to keep them in the memory of the
      host (accelerators only).

  Raises:
    ValueError: an unknown policy or projection.
  """
  if names := saved_names(policy):
    policies = jax.checkpoint_policies
    if policy.startswith("save"):
      return policies.save_only_these_names(*names)
    return policies.save_and_offload_only_these_names(
      names_which_can_be_saved=[],
      names_which_can_be_offloaded=list(names),
      offload_src="device",
      offload_dst="pinned_host",
    )
  if policy not in POLICIES:
    raise ValueError(
      f"remat {policy!r}; policies are {', '.join(POLICIES)},"
      " save:PROJECTION,... and offload:PROJECTION,..."
    )
  return POLICIES[policy]


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
    policy: see `read_policy`.
    in_axes: per input, the axis of the layers or `nn.broadcast`.
    length: number of layers.
    unroll: layers per iteration, at most `length`.

  Raises:
    ValueError: as `read_policy`.
  """
  saved = read_policy(policy)
  if policy != "none":
    # Inside scan XLA cannot merge the recomputation away again.
    layer = nn.remat(layer, policy=saved, prevent_cse=False)
  return nn.scan(
    layer,
    variable_axes={"params": 0},
    split_rngs={"params": True, "dropout": True},
    in_axes=in_axes,
    length=length,
    unroll=min(unroll, length),
  )


def scan_groups(
  layer: nn.Module,
  params: dict,
  policy: str,
  flags: np.ndarray,
  x: jax.Array,
  *shared: Any,
) -> jax.Array:
  """Applies stacked layers whose flag is known when the program is compiled.

  With `scan_layers` a layer's flag is data, and a branch on it a condition in
  the loop, at which a GPU waits for the host. Here the loop is over groups of
  layers in which the flags repeat: of Qwen2.5-VL's 32 blocks, 4 times 7 that
  attend in windows and one that attends to the entire image.

  Args:
    layer: one layer, unbound; called with x, its flag and `shared`.
    params: of all layers, stacked on axis 0.
    policy: see `read_policy`.
    flags: bool[layers].
    x: the carry.
    shared: further inputs, the same for all layers.
  """
  count = len(flags)
  period = next(
    n
    for n in range(1, count + 1)
    if count % n == 0 and (flags.reshape(-1, n) == flags[:n]).all()
  )

  def apply(flag: bool, x, params):
    return layer.apply({"params": params}, x, flag, *shared)[0]

  if policy != "none":
    apply = jax.checkpoint(
      apply, policy=read_policy(policy), prevent_cse=False, static_argnums=0
    )

  def group(x, params):
    for number, flag in enumerate(flags[:period].tolist()):
      x = apply(flag, x, jax.tree.map(lambda leaf, n=number: leaf[n], params))
    return x, None

  groups = jax.tree.map(
    lambda leaf: leaf.reshape(-1, period, *leaf.shape[1:]), params
  )
  return jax.lax.scan(group, x, groups)[0]
