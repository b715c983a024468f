"""The cache folder of a user, and of one without a home."""

import os
from pathlib import Path

import pytest

from fusar_jax.io.user_cache import user_cache


def test_the_cache_follows_xdg(monkeypatch):
  monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
  assert user_cache("a") == Path("/caches/fusar_jax/a")
  monkeypatch.delenv("XDG_CACHE_HOME")
  monkeypatch.setenv("HOME", "/home/me")
  assert user_cache("a") == Path("/home/me/.cache/fusar_jax/a")


def test_without_a_home_nothing_is_written(monkeypatch):
  """Neither below the current folder, as "~", nor elsewhere."""
  monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
  monkeypatch.setattr(os.path, "expanduser", lambda path: path)
  with pytest.raises(NotADirectoryError, match="set XDG_CACHE_HOME"):
    user_cache("a").mkdir(parents=True)
