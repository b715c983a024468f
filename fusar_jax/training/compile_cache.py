"""Persistent compilation cache, so that a restart recompiles nothing."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import jax
from jax.experimental.compilation_cache import compilation_cache


@contextlib.contextmanager
def compile_cache(folder: Path) -> Iterator[None]:
  """Enables JAX's compilation cache in a folder, within the context.

  A cache directory that is already configured (JAX_COMPILATION_CACHE_DIR or
  the calling program) takes precedence.
  """
  # JAX adds the attributes of its options at import.
  if cast(Any, jax.config).jax_compilation_cache_dir:
    yield
    return
  _use(str(folder))
  try:
    yield
  finally:
    _use(None)


def _use(folder: str | None) -> None:
  jax.config.update("jax_compilation_cache_dir", folder)
  # JAX decides once, at the first compilation, whether there is a cache.
  compilation_cache.reset_cache()
