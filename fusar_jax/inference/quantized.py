"""Quantised weights of inference: the int8 and nf4 kernels of training.

`load(quantize=...)` makes the kernels of `config.dtype.frozen` in training
(`fusar_jax.model.quantization`): those of the layers of tower and decoder.
Embedding, head, LoRA and TLM keep the dtype of their files.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from fusar_jax.inference.options import QUANTIZATIONS
from fusar_jax.model.config import FusarConfig
from fusar_jax.model.fusar_gpt import abstract_params
from fusar_jax.model.quantization import num_bytes, quantize_layers
from fusar_jax.training.frozen_weights import on_host


def check_format(name: str | None) -> None:
  """Raises ValueError if it is neither None nor one of QUANTIZATIONS."""
  if name not in (None, *QUANTIZATIONS):
    raise ValueError(
      f"quantize {name!r}: expected one of {', '.join(QUANTIZATIONS)}, or None."
    )


def read_placement(
  name: str | None, placement: Callable | None
) -> Callable | None:
  """Returns (path, shape) -> sharding, for reading weights.

  Args:
    name: the format; weights to be quantised stay on the host until then,
      since unquantised they may not fit the devices.
    placement: where the others lie; None: the default device.
  """
  return placement if name is None else on_host()


def abstract_weights(
  config: FusarConfig, dtype: str, name: str | None = None
) -> dict:
  """Returns the shapes of all weights, as `load` holds them.

  Args:
    config: shapes.
    dtype: of the unquantised weights.
    name: format of the layers' kernels; None: not quantised.
  """
  shapes = jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.dtype(dtype)),
    abstract_params(config),
  )
  if name is None:
    return shapes
  return jax.eval_shape(lambda tree: quantize_layers(tree, name), shapes)


def weight_bytes(
  config: FusarConfig, dtype: str, name: str | None = None
) -> int:
  """Returns the bytes of all weights, see `abstract_weights`."""
  return sum(
    map(num_bytes, jax.tree.leaves(abstract_weights(config, dtype, name)))
  )
