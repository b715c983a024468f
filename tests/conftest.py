"""Fixtures of the whole suite: shared data, golden values, compile cache."""

import os
import pathlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent

# One compile cache for all runs of the suite: most of its time is XLA's.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Eight simulated devices, so that sharding is tested as it will run.
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8")


@pytest.fixture(scope="session")
def shared() -> pathlib.Path:
  """Folder of reference values and real data (environment: FUSAR_SHARED)."""
  folder = pathlib.Path(os.environ.get("FUSAR_SHARED", ROOT / "../shared"))
  if not (folder / "golden").is_dir():
    reason = f"reference values not found in {folder} (set FUSAR_SHARED)"
    if os.environ.get("FUSAR_REQUIRE_SHARED") == "1":
      pytest.fail(reason)
    pytest.skip(reason)
  return folder.resolve()


@pytest.fixture(scope="session")
def golden(shared) -> pathlib.Path:
  return shared / "golden"
