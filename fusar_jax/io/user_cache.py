"""The cache folder of this user."""

import os
from pathlib import Path


def user_cache(name: str) -> Path:
  """Returns $XDG_CACHE_HOME/fusar_jax/NAME, by default in ~/.cache.

  A user without a home, as in some containers, gets a path that nobody can
  write, and the warning that its cache gives for such a path.
  """
  home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
  if home.startswith("~"):
    home = "/dev/null/(no home; set XDG_CACHE_HOME)"
  return Path(home, "fusar_jax", name)
