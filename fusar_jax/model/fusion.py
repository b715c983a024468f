"""Alternative anchor fusion: sum and concatenation, for the fusion ablation.

The paper compares TLM with concatenation and with a sum, but publishes neither;
the definitions here are ours, as close to TLM as possible. An MLP like that of
TLM maps each anchor vector to C values, and the same spatial weights distribute
them over the visual tokens as a field B:

  sum            x' = x + B                  TLM without its gain
  concatenation  x' = W [x ; B] + b          W [C, 2C] begins as [1 0], b as 0

Concatenation starts as the identity, but a trained W also changes images
without anchors; TLM and the sum leave them unmodulated.

B batch, C visual token width, E = 64 embedding bands, I images in a sample, M
merged visual tokens, S anchors.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from fusar_jax.model.config import TLMConfig
from fusar_jax.model.matmul import project
from fusar_jax.model.tlm import Linear, TokenwiseLinearModulation


class Sum(nn.Module):
  """Adds the anchor field to the visual tokens, in float32."""

  config: TLMConfig

  @nn.compact
  def __call__(
    self, tokens: jax.Array, features: jax.Array, weights: jax.Array
  ) -> jax.Array:
    """Returns [B, I, M, C]; arguments as of TokenwiseLinearModulation."""
    field = _field(self.config, tokens.shape[-1], features, weights)
    return (tokens + field).astype(tokens.dtype)


class Concatenation(nn.Module):
  """Projects [visual tokens ; anchor field] back to C, in float32.

  The two halves of W are `token_proj/kernel` and `field_proj/kernel`, both
  [in, out]: the product with [x ; B] without building it.
  """

  config: TLMConfig

  @nn.compact
  def __call__(
    self, tokens: jax.Array, features: jax.Array, weights: jax.Array
  ) -> jax.Array:
    """Returns [B, I, M, C]; arguments as of TokenwiseLinearModulation."""
    channels = tokens.shape[-1]
    field = _field(self.config, channels, features, weights)
    kept = _Projection(_identity, name="token_proj")
    added = _Projection(nn.initializers.zeros, name="field_proj")
    bias = self.param("bias", nn.initializers.zeros, (channels,))
    mixed = kept(tokens.astype(jnp.float32)) + added(field) + bias
    return mixed.astype(tokens.dtype)


class _Projection(nn.Module):
  init: nn.initializers.Initializer

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    shape = (x.shape[-1], x.shape[-1])
    return project(x, self.param("kernel", self.init, shape))


def _identity(key, shape, dtype=jnp.float32):
  del key
  return jnp.eye(*shape, dtype=dtype)


def _field(
  config: TLMConfig, channels: int, features: jax.Array, weights: jax.Array
) -> jax.Array:
  """float32[B, I, M, C]: anchor features at every visual token."""
  x = features.astype(jnp.float32)
  x = Linear(config.hidden(channels), name="mlp_0")(x)
  x = Linear(channels, name="mlp_2")(nn.silu(x))
  return jnp.einsum("bims,bisc->bimc", weights.astype(jnp.float32), x)


_MODULES = {
  "tlm": TokenwiseLinearModulation,
  "concatenation": Concatenation,
  "sum": Sum,
}


def fusion(config: TLMConfig) -> nn.Module:
  """Returns the module that `config.fusion` names."""
  return _MODULES[config.fusion](config)
