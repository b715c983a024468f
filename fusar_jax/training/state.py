"""What one optimizer step reads and writes.

Only trainable parameters live here: gradients, optimizer state and checkpoints
never see what is frozen. The frozen rest is an ordinary argument of the step.
"""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

Params = dict[str, Any]  # nested, leaves are arrays


@flax.struct.dataclass
class TrainState:
  """The state of training; a pytree, donated to the step.

  Attributes:
    step: int32[], optimizer steps done.
    trainable: nested dict of float32 parameters.
    opt_state: optax's state for `trainable`.
    rng: uint32[2], key data; `jax.random.fold_in(rng, step)` seeds a step, so
      that a resumed run draws the same dropout.
  """

  step: jax.Array
  trainable: Params
  opt_state: optax.OptState
  rng: jax.Array


def create_state(
  trainable: Params, tx: optax.GradientTransformation, seed: int
) -> TrainState:
  """Returns the state before the first step."""
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    trainable=trainable,
    opt_state=tx.init(trainable),
    rng=jax.random.key_data(jax.random.key(seed)),
  )
