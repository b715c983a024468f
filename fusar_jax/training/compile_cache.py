"""Compiled programs kept on disk: a restart compiles nothing again."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import jax
from jax.experimental.compilation_cache import compilation_cache


@contextlib.contextmanager
def compile_cache(folder: Path) -> Iterator[None]:
  """Within, JAX keeps what it compiles in a folder.

  A folder that JAX knows already (JAX_COMPILATION_CACHE_DIR, or the program
  that calls) goes before it.
  """
  if jax.config.jax_compilation_cache_dir:
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
