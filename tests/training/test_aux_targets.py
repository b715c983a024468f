"""What visual tokens say: five frames as they enter the decoder, and in it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from fusar_jax.data.aux_targets import AUX_FRAMES
from fusar_jax.model.fusar_gpt import FusarGPT, _smallest_batch, init_params
from fusar_jax.training.aux_targets import hidden_with_aux


def test_frames_are_rolled_normalised_visual_tokens(tiny_model):
  """Behind the hidden states, which stay as they are; and gradients flow."""
  config = dataclasses.replace(
    tiny_model, decoder=dataclasses.replace(tiny_model.decoder, layers=3)
  )
  params = jax.jit(init_params, static_argnums=0)(config, jax.random.key(0))
  batch = _smallest_batch(config)
  model = FusarGPT(config)

  def apply(params, method):
    run = jax.jit(lambda p: model.apply({"params": p}, batch, method=method))
    return run(params)

  # What a decoder of the first layer alone gives: its norm has no gain yet.
  first = dataclasses.replace(
    config, decoder=dataclasses.replace(config.decoder, layers=1)
  )
  layers = jax.tree.map(lambda x: x[:1], params["model"]["layers"])
  cut = {**params, "model": {**params["model"], "layers": layers}}
  halfway = jax.jit(
    lambda p: FusarGPT(first).apply(
      {"params": p}, batch, method=FusarGPT.hidden
    )
  )(cut)
  hidden = apply(params, model.hidden)
  both = apply(params, hidden_with_aux)
  visual = np.asarray(apply(params, model.visual_tokens))[:, 0]
  length, width = hidden.shape[1:]
  np.testing.assert_array_equal(both[:, :length], hidden)
  assert both.shape == (1, length + 2 * AUX_FRAMES, width)
  features = visual / np.sqrt((visual**2).mean(-1, keepdims=True) + 1e-6)
  for frame in range(AUX_FRAMES):
    rolled = np.roll(features, frame * width // 8, axis=-1)
    np.testing.assert_allclose(both[:, length + frame], rolled[:, 0], rtol=1e-5)
    # The batch's visual token stands first.
    rolled = np.roll(halfway[:, 0], frame * width // 8, axis=-1)
    np.testing.assert_allclose(
      both[:, length + AUX_FRAMES + frame], rolled, rtol=1e-4, atol=1e-5
    )

  def loss(params):
    return jnp.sum(
      apply(params, hidden_with_aux)[:, length : length + AUX_FRAMES] ** 3
    )

  tower = jax.jit(jax.grad(loss))(params)["visual"]
  assert all(np.any(leaf) for leaf in jax.tree.leaves(tower["merger"]))
