"""Programs are compiled once per machine, whatever the length of a run."""

from pathlib import Path

import jax
import pytest

from fusar_jax.training.compile_cache import compile_cache, default_folder
from fusar_jax.training.loop import train_and_evaluate


@pytest.fixture(autouse=True)
def no_cache_yet(monkeypatch, tmp_path):
  """Tests may run with a cache, which would take precedence."""
  before = jax.config.jax_compilation_cache_dir
  jax.config.update("jax_compilation_cache_dir", None)
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
  yield
  jax.config.update("jax_compilation_cache_dir", before)


def test_processors_share_programs_if_they_have_the_same_instructions(
  monkeypatch,
):
  """Linux reports the present clock rate, which changes all the time."""

  def folder(instructions: str, clock: int) -> Path:
    described = f"cpu MHz : {clock}\nflags : {instructions}\n"
    with monkeypatch.context() as patch:
      patch.setattr(Path, "read_text", lambda path: described)
      return default_folder()

  assert folder("avx", 2000) == folder("avx", 2100)
  assert folder("avx", 2000) != folder("avx avx512", 2000)


def test_a_configured_folder_is_kept_and_another_must_be_writable(tmp_path):
  (tmp_path / "file").touch()
  with (
    pytest.warns(UserWarning, match="file/cache cannot be written"),
    compile_cache(tmp_path / "file" / "cache"),
  ):
    assert jax.config.jax_compilation_cache_dir is None
  with compile_cache(tmp_path / "own"):
    assert jax.config.jax_compilation_cache_dir.endswith("own")
  assert (tmp_path / "own").stat().st_mode & 0o077 == 0  # Programs are trusted.
  jax.config.update("jax_compilation_cache_dir", str(tmp_path / "configured"))
  with compile_cache(tmp_path / "other"):
    assert jax.config.jax_compilation_cache_dir.endswith("configured")


def test_longer_runs_at_other_rates_compile_nothing_again(
  manifest, make_config, tmp_path
):
  def programs() -> set[str]:
    folder = tmp_path / "home/fusar_jax/compiled"
    return {path.name for path in folder.rglob("*step*-cache")}

  short = make_config("stage0_tiny", manifest, steps=2)
  train_and_evaluate(short, tmp_path / "short")
  first = programs()
  assert first
  rate = {"optimizer.learning_rate": 3e-4, "steps": 3}
  train_and_evaluate(
    make_config("stage0_tiny", manifest, **rate), tmp_path / "long"
  )
  assert programs() == first
  assert jax.config.jax_compilation_cache_dir is None
