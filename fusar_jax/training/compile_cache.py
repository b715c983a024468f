"""Persistent compilation cache: each program is compiled once per machine."""

import contextlib
import hashlib
import os
import platform
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import jax
from jax.experimental.compilation_cache import compilation_cache

from fusar_jax.io.user_cache import user_cache

# Size of the cache; the programs that were used least recently are removed.
_MOST_BYTES = 4 << 30
# Programs that compile faster than this are compiled again. JAX's default of
# 1 s leaves out most of what a small model compiles before its first step.
_LEAST_SECONDS = 0.2


@contextlib.contextmanager
def compile_cache(folder: str | os.PathLike = "") -> Iterator[None]:
  """Enables JAX's compilation cache in a folder, within the context.

  A cache directory that is already configured (JAX_COMPILATION_CACHE_DIR or
  the calling program) takes precedence. A folder that cannot be written is a
  warning.

  Args:
    folder: local folder or URL; default:
      $XDG_CACHE_HOME/fusar_jax/compiled/PROCESSOR.
  """
  # JAX adds the attributes of its options at import.
  options = cast(Any, jax.config)
  if options.jax_compilation_cache_dir:
    yield
    return
  folder = str(folder) or str(default_folder())
  if "://" not in folder:
    try:
      Path(folder).mkdir(mode=0o700, parents=True, exist_ok=True)
      accessible = os.access(folder, os.W_OK)
    except OSError:
      accessible = False
    if not accessible:
      warnings.warn(
        f"compiled programs are not kept: {folder} cannot be written. Set"
        " config.compile_cache, or JAX_COMPILATION_CACHE_DIR.",
        stacklevel=2,
      )
      yield
      return
  values = {
    "jax_compilation_cache_dir": folder,
    "jax_compilation_cache_max_size": _MOST_BYTES,
    "jax_persistent_cache_min_compile_time_secs": _LEAST_SECONDS,
  }
  before = {name: getattr(options, name) for name in values}
  _update(values)
  try:
    yield
  finally:
    _update(before)


def default_folder() -> Path:
  """Returns the cache of this user and processor.

  Programs for the CPU use its instructions and would crash on another kind,
  which may share the home folder.
  """
  described = platform.machine() + platform.processor()
  with contextlib.suppress(OSError):
    described += next(
      (
        line
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith(("flags", "Features"))
      ),
      "",
    )
  digest = hashlib.sha256(described.encode()).hexdigest()[:8]
  return user_cache("compiled") / f"{platform.machine()}-{digest}"


def _update(values: dict[str, Any]) -> None:
  for name, value in values.items():
    jax.config.update(name, value)
  # JAX decides once, at the first compilation, whether there is a cache.
  compilation_cache.reset_cache()
