"""The anchor-fusion projector: Token-wise Linear Modulation (TLM).

AlphaEarth vectors v_s of S anchors say what a place is; an MLP turns each into
a gain gamma_s and a shift beta_s per channel, the anchors' spatial weights
w[m, s] spread them over the image's M visual tokens, and
    x'_m = x_m * (1 + sum_s w[m, s] gamma_s) + sum_s w[m, s] beta_s.

Reference: FUSAR-GPT's equations and the official training code's `film_mlp`.
The weights depend on positions alone and come from the host
(`fusar_jax.data.anchor_weights`), so this module never sees a coordinate. An
image whose weights are zero is left as it is.

B batch, C visual token width, E = 64 embedding bands, I images in a sample, M
merged visual tokens, S anchors.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from fusar_jax.model.config import TLMConfig
from fusar_jax.model.layers import project


def _fan_in_uniform(width: int):
  """torch.nn.Linear's default for weight and bias: U(+-1/sqrt(in))."""

  def init(key, shape, dtype=jnp.float32):
    return jax.random.uniform(key, shape, dtype, -(width**-0.5), width**-0.5)

  return init


class Linear(nn.Module):
  """As torch.nn.Linear, its initial values too."""

  features: int

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    init = _fan_in_uniform(x.shape[-1])
    kernel = self.param("kernel", init, (x.shape[-1], self.features))
    bias = self.param("bias", init, (self.features,))
    return project(x, kernel.astype(x.dtype)) + bias.astype(x.dtype)


class TokenwiseLinearModulation(nn.Module):
  """Modulates visual tokens by anchors, in float32.

  The official code autocasts the MLP to bf16 on a GPU; its own float32 values
  are the reference here.
  """

  config: TLMConfig

  @nn.compact
  def __call__(
    self, tokens: jax.Array, features: jax.Array, weights: jax.Array
  ) -> jax.Array:
    """Returns [B, I, M, C], of the tokens' dtype.

    Args:
      tokens: [B, I, M, C], merged visual tokens in raster order.
      features: float32[B, I, S, E], AlphaEarth vectors, anything on padding.
      weights: float32[B, I, M, S], zero on padding.
    """
    channels = tokens.shape[-1]
    x = features.astype(jnp.float32)
    x = Linear(self.config.hidden(channels), name="mlp_0")(x)
    x = Linear(2 * channels, name="mlp_2")(nn.silu(x))
    field = jnp.einsum("bims,bisc->bimc", weights.astype(jnp.float32), x)
    gamma, beta = jnp.split(field, 2, axis=-1)
    return (tokens * (1.0 + gamma) + beta).astype(tokens.dtype)
