"""Prepares JAX: its devices, and memory that compilation leaves behind."""

import ctypes
import functools
import os
import sys

import jax

_COMPILED = "/jax/core/compile/backend_compile_duration"
# Programs that compile faster than this leave little to release.
_LEAST_SECONDS = 0.2


def check_platforms() -> None:
  """Initialises JAX's backends; call it after `jax.distributed` is initialised.

  From then on `release_freed_memory` follows each compilation.

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
  _release_after_compiling()


def release_freed_memory() -> None:
  """Returns memory that was freed to the operating system, on Linux with glibc.

  glibc keeps freed blocks below 32 MB for later use. Compiling a train step
  leaves hundreds of MB of them, which the step itself cannot use: its buffers
  are larger.
  """
  if sys.platform == "linux" and hasattr(ctypes.CDLL(None), "malloc_trim"):
    ctypes.CDLL(None).malloc_trim(0)


@functools.cache
def _release_after_compiling() -> None:
  def listen(event: str, duration_secs: float, **_: str | int) -> None:
    if event == _COMPILED and duration_secs > _LEAST_SECONDS:
      release_freed_memory()

  jax.monitoring.register_event_duration_secs_listener(listen)
