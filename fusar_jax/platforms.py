"""Whether the devices that JAX_PLATFORMS names are there."""

import os

import jax


def check_platforms() -> None:
  """Starts JAX's backends; call it after the processes of a run have joined.

  Raises:
    OSError: JAX finds no device of the platforms in JAX_PLATFORMS, or none at
      all.
  """
  try:
    jax.devices()
  # What a missing plugin raises differs from platform to platform.
  except (RuntimeError, AssertionError) as error:
    wanted = os.environ.get("JAX_PLATFORMS", "")
    reason = str(error).partition("(set JAX_PLATFORMS")[0].strip()
    raise OSError(
      f"JAX_PLATFORMS={wanted}: JAX finds no such device here"
      + (f" ({reason})" if reason else "")
      + ". Unset it to use what there is, or install fusar-jax[tpu] or"
      " fusar-jax[gpu]."
    ) from None
