"""Features for auxiliary visual-token targets, which only the tiny base uses.

Each visual token predicts eight targets at two depths; target f reads the
token's features rolled by f * D/8 channels, RMS-normalised without a gain. The
model's own head projects them, so this adds no parameters. The targets
themselves: `fusar_jax.data.aux_targets`.

B batch, D model width, L text length, M merged visual tokens.
"""

import jax
import jax.numpy as jnp

from fusar_jax.data.aux_targets import AUX_FRAMES
from fusar_jax.model.batch import Batch
from fusar_jax.model.fusar_gpt import FusarGPT


def hidden_with_aux(
  model: FusarGPT, batch: Batch, *, deterministic: bool = True
) -> jax.Array:
  """[B, L + 16 * M, D]: `FusarGPT.hidden`, then features of the first image.

  Features are the visual tokens at the decoder input, then halfway through the
  decoder (as many layers before as after, or one less: with 3 layers, behind
  the first). To be passed as `method` of `FusarGPT.apply`.
  """
  visual, states, hidden = model.all_hidden_states(
    batch, deterministic=deterministic
  )
  halfway = states[max(model.config.decoder.layers // 2, 1) - 1]
  # Text position of each visual token of the first image.
  merged = visual.shape[2]
  found = batch.visual_index[:, None] == jnp.arange(merged)[:, None]
  later = jnp.take_along_axis(halfway, found.argmax(-1)[..., None], axis=1)
  frames = [
    jnp.roll(_normalise(x, model), f * x.shape[-1] // 8, axis=-1)
    for x in (visual[:, 0], later)
    for f in range(AUX_FRAMES)
  ]
  return jnp.concatenate(
    [hidden, *(f.astype(hidden.dtype) for f in frames)], axis=1
  )


def _normalise(x: jax.Array, model: FusarGPT) -> jax.Array:
  x = x.astype(jnp.float32)
  mean = jnp.mean(x**2, axis=-1, keepdims=True)
  return x * jax.lax.rsqrt(mean + model.config.decoder.norm_eps)
