"""The anchor-fusion projector: Token-wise Linear Modulation (TLM).

Each of S anchors has an AlphaEarth vector v_s. An MLP maps v_s to a gain
gamma_s and a shift beta_s per channel. Spatial weights w[m, s] distribute
them over the M visual tokens of the image:
    x'_m = x_m * (1 + sum_s w[m, s] gamma_s) + sum_s w[m, s] beta_s.

Reference: FUSAR-GPT's equations and the official training code's `film_mlp`.
The weights depend on positions only and are computed on the host
(`fusar_jax.data.anchor_weights`). An image whose weights are all zero stays
unmodulated.

B batch, C visual token width, E = 64 embedding bands, I images in a sample, M
merged visual tokens, S anchors.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fusar_jax.model.config import TLMConfig
from fusar_jax.model.matmul import project


def _fan_in_uniform(width: int):
  """torch.nn.Linear's default for weight and bias: U(+-1/sqrt(in))."""

  def init(key, shape, dtype=jnp.float32):
    return jax.random.uniform(key, shape, dtype, -(width**-0.5), width**-0.5)

  return init


class Linear(nn.Module):
  """Equivalent of torch.nn.Linear, including its initialisation."""

  features: int

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    init = _fan_in_uniform(x.shape[-1])
    kernel = self.param("kernel", init, (x.shape[-1], self.features))
    bias = self.param("bias", init, (self.features,))
    return project(x, kernel.astype(x.dtype)) + bias.astype(x.dtype)


class TokenwiseLinearModulation(nn.Module):
  """Modulates visual tokens by anchors, in float32.

  The official code autocasts the MLP to bf16 on a GPU; its float32 values
  are the reference here.
  """

  config: TLMConfig

  @nn.compact
  def __call__(
    self,
    tokens: Float[Array, "B I M C"],
    features: Float[Array, "B I S E"],
    weights: Float[Array, "B I M S"],
  ) -> Float[Array, "B I M C"]:
    """Returns [B, I, M, C] in the dtype of the tokens.

    Args:
      tokens: merged visual tokens in raster order.
      features: AlphaEarth vectors, arbitrary on padding.
      weights: zero on padding.
    """
    channels = tokens.shape[-1]
    x = features.astype(jnp.float32)
    x = Linear(self.config.hidden(channels), name="mlp_0")(x)
    x = Linear(2 * channels, name="mlp_2")(nn.silu(x))
    field = jnp.einsum("bims,bisc->bimc", weights.astype(jnp.float32), x)
    gamma, beta = jnp.split(field, 2, axis=-1)
    return (tokens * (1.0 + gamma) + beta).astype(tokens.dtype)
