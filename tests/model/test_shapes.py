"""The shapes and dtypes in the signatures are those of the values."""

import jax
import jax.numpy as jnp
import pytest
from beartype import beartype
from jaxtyping import TypeCheckError, jaxtyped

from fusar_jax.config import preset
from fusar_jax.model import attention, decoder, layers, lora, rope
from fusar_jax.model.fusar_gpt import FusarGPT, _smallest_batch, init_params
from fusar_jax.training.loss import answer_losses


def checked(function):
  return jaxtyped(typechecker=beartype)(function)


def ones(*shape, dtype=jnp.float32):
  return jnp.ones(shape, dtype)


CALLS = {
  "attend": (
    attention.attend,
    (ones(2, 5, 4, 8), ones(2, 5, 2, 8), ones(2, 5, 2, 8), ones(2, 1, 5) > 0),
    {},
  ),
  "attend_cached": (
    attention.attend_cached,
    (ones(2, 1, 4, 8), ones(2, 2, 8, 5), ones(2, 2, 5, 8), ones(2, 1, 5) > 0),
    {},
  ),
  "vision_angles": (
    rope.vision_angles,
    (ones(3, 6, 2, dtype=jnp.int32), 8, 1e4),
    {},
  ),
  "mrope_angles": (
    rope.mrope_angles,
    (ones(2, 3, 5, dtype=jnp.int32), 8, 1e4, (1, 1, 2)),
    {},
  ),
  "rotate": (rope.rotate, (ones(2, 5, 4, 8), ones(2, 5, 4), ones(2, 5, 4)), {}),
  "project": (layers.project, (ones(2, 5, 4), ones(4, 3)), {}),
  "merged_kernel": (
    lora.merged_kernel,
    (ones(3, 4, 6), ones(3, 4, 2), ones(3, 2, 6), 2.0),
    {},
  ),
  "causal_mask": (decoder.causal_mask, (ones(2, 5, dtype=jnp.int32),), {}),
  "answer_losses": (
    answer_losses,
    (ones(2, 5, 4), ones(4, 9), *[ones(2, 3, dtype=jnp.int32)] * 2),
    {"frozen_head": True},
  ),
}


@pytest.mark.parametrize("name", CALLS)
def test_signatures_hold_and_reject_other_ranks(name):
  function, arguments, options = CALLS[name]
  checked(function)(*arguments, **options)
  first, *rest = arguments
  with pytest.raises(TypeCheckError):
    checked(function)(first[0, ..., 0], *rest, **options)


@pytest.mark.parametrize(
  "method", ["visual_tokens", "embed", "hidden", "all_hidden_states", "prefill"]
)
def test_methods_of_the_model(method):
  config = preset("tiny")
  batch = _smallest_batch(config)
  params = jax.eval_shape(lambda: init_params(config, jax.random.key(0)))
  jax.eval_shape(
    lambda params: FusarGPT(config).apply(
      {"params": params}, batch, method=checked(getattr(FusarGPT, method))
    ),
    params,
  )
