"""LoRA merging; `lora_a` and `lora_b` are siblings of their kernel in the tree.

`x @ kernel + scale * (x @ lora_a) @ lora_b` equals `x @ merged`. A merged
adapter costs nothing at run time, but can be neither removed nor trained.

R is the rank.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def merged_kernel(
  kernel: Float[Array, "*layers D F"],
  lora_a: Float[Array, "*layers D R"],
  lora_b: Float[Array, "*layers R F"],
  scale: float,
) -> Float[Array, "*layers D F"]:
  """Returns `kernel + scale * lora_a @ lora_b`, float32.

  Args:
    kernel: [..., in, out].
    lora_a: [..., in, R].
    lora_b: [..., R, out].
    scale: alpha / R.
  """
  low, high = (jnp.asarray(x, jnp.float32) for x in (lora_a, lora_b))
  # The update is small relative to the kernel: bf16 would round it away.
  update = jnp.matmul(low, high, precision=jax.lax.Precision.HIGHEST)
  return jnp.asarray(kernel, jnp.float32) + scale * update


def merge_lora(params: dict, scale: float) -> dict:
  """Returns the tree with each adapter merged into its kernel.

  Merges in float32 and returns the dtype of the kernel; other leaves are
  unchanged.

  Args:
    params: nested dict, see `fusar_gpt`.
    scale: alpha / R, `config.lora.scale`.
  """
  tree: dict[str, Any] = {
    name: merge_lora(value, scale) if isinstance(value, dict) else value
    for name, value in params.items()
  }
  if "lora_a" in tree:
    low, high = tree.pop("lora_a"), tree.pop("lora_b")
    kernel = tree["kernel"]
    merged = merged_kernel(kernel, low, high, scale)
    tree["kernel"] = merged.astype(kernel.dtype)
  return tree
