"""Programs are compiled once per machine, whatever the length of a run."""

import jax
import pytest

from fusar_jax.training.compile_cache import compile_cache
from fusar_jax.training.loop import train_and_evaluate


@pytest.fixture(autouse=True)
def no_cache_yet(monkeypatch, tmp_path):
  """Tests may run with a cache, which would take precedence."""
  before = jax.config.jax_compilation_cache_dir
  jax.config.update("jax_compilation_cache_dir", None)
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
  yield
  jax.config.update("jax_compilation_cache_dir", before)


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


def test_without_a_writable_folder_there_is_a_warning(tmp_path):
  (tmp_path / "file").touch()
  with (
    pytest.warns(UserWarning, match="file/cache cannot be written"),
    compile_cache(tmp_path / "file" / "cache"),
  ):
    assert jax.config.jax_compilation_cache_dir is None
