"""Checks that devices of the platforms in JAX_PLATFORMS are available."""

import os

import jax


def check_platforms() -> None:
  """Initialises JAX's backends; call it after `jax.distributed` is initialised.

  Raises:
    OSError: JAX finds no device of the platforms in JAX_PLATFORMS, or no device
      at all.
  """
  try:
    jax.devices()
  # The exception for a missing plugin depends on the platform.
  except (RuntimeError, AssertionError) as error:
    wanted = os.environ.get("JAX_PLATFORMS", "")
    reason = str(error).partition("(set JAX_PLATFORMS")[0].strip()
    raise OSError(
      f"JAX_PLATFORMS={wanted}: JAX finds no such device here"
      + (f" ({reason})" if reason else "")
      + ". Unset it to use the available devices, or install fusar-jax[tpu] or"
      " fusar-jax[gpu]."
    ) from None
