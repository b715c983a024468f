"""Corrupt checkpoints are detected and skipped."""

import logging
import resource
import shutil

import jax
import numpy as np
import pytest

from fusar_jax.training import checksums
from fusar_jax.training.checkpoint import Checkpoints
from fusar_jax.training.state import TrainState


def _state(step: int) -> TrainState:
  values = np.random.default_rng(step).normal(size=(64, 64))
  return TrainState(
    np.int32(step),
    {"tlm": {"kernel": values.astype(np.float32)}},
    {"mu": np.float32(step)},
    np.zeros(2, np.uint32),
  )


def _save(checkpoints, step, best=None):
  checkpoints.save(_state(step), {"step": step}, best)
  checkpoints.wait()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
  """A run with checkpoints of steps 2, 4 and 6; not to be written to."""
  workdir = tmp_path_factory.mktemp("run")
  with Checkpoints(workdir) as checkpoints:
    for step in (2, 4, 6):
      _save(checkpoints, step)
  return workdir


@pytest.fixture
def workdir(saved, tmp_path):
  shutil.copytree(saved, tmp_path / "run")
  return tmp_path / "run"


def _values(folder):
  """The file that holds the 64 x 64 values."""
  files = [p for p in (folder / "trainable").rglob("*") if p.is_file()]
  return max(files, key=lambda path: path.stat().st_size)


def _truncate(folder):
  file = _values(folder)
  file.write_bytes(file.read_bytes()[:1000])
  return file, "truncated, 1000 of"


def _flip_a_bit(folder):
  file = _values(folder)
  content = bytearray(file.read_bytes())
  content[len(content) // 2] ^= 1
  file.write_bytes(content)
  return file, "its content has changed"


def _remove(folder):
  file = _values(folder)
  file.unlink()
  return file, "missing"


def _truncate_the_checksums(folder):
  file = folder / checksums.CHECKSUMS
  file.write_bytes(file.read_bytes()[:100])
  return file, "not valid JSON"


def _half_deleted(folder):
  """As a kill leaves it that came while an old checkpoint was deleted."""
  file = folder / checksums.CHECKSUMS
  file.unlink()
  shutil.rmtree(folder / "trainable")
  return file, "missing"


@pytest.mark.parametrize(
  "hurt",
  [_truncate, _flip_a_bit, _remove, _truncate_the_checksums, _half_deleted],
)
def test_the_one_before_is_used_and_the_file_named(hurt, workdir, caplog):
  folder = workdir / "checkpoints"
  file, what = hurt(folder / "6")
  with Checkpoints(workdir) as checkpoints:
    with caplog.at_level(logging.WARNING):
      restored, host = checkpoints.restore(_state(0))
    assert f"{file}: {what}" in caplog.text
    assert "Resuming from step 4" in caplog.text
    assert host == {"step": 4}
    jax.tree.map(np.testing.assert_array_equal, restored, _state(4))
    # The run comes to the step again, and must be able to save it.
    assert checkpoints.latest_step() == 4
    checkpoints.save(_state(6), {"again": True})
    checkpoints.wait()
    assert checksums.find_corruption(folder / "6") == ""
    assert checkpoints.restore(_state(0))[1] == {"again": True}


def test_who_only_reads_deletes_nothing(workdir, caplog):
  _flip_a_bit(workdir / "checkpoints/6")
  # Of a save in progress.
  (workdir / "checkpoints/8.orbax-checkpoint-tmp/host").mkdir(parents=True)
  before = sorted(workdir.rglob("*"))
  with Checkpoints(workdir, reads_only=True) as checkpoints:
    assert checkpoints.newest_intact() == 4
    values = checkpoints.restore_trainable()["tlm"]["kernel"]
  np.testing.assert_array_equal(values, _state(4).trainable["tlm"]["kernel"])
  assert sorted(workdir.rglob("*")) == before


def test_none_that_is_whole_is_an_error_that_names_all(workdir):
  hurt = [_flip_a_bit, _truncate, _remove]
  files = [
    h(workdir / f"checkpoints/{2 * i + 2}")[0] for i, h in enumerate(hurt)
  ]
  with (
    Checkpoints(workdir) as checkpoints,
    pytest.raises(ValueError, match="no checkpoint is intact") as error,
  ):
    checkpoints.restore(_state(0))
  assert all(str(file) in str(error.value) for file in files)
  assert {p.name for p in (workdir / "checkpoints").iterdir()} >= set("246")


def test_a_damaged_step_that_was_asked_for_is_an_error(workdir):
  file, what = _truncate(workdir / "checkpoints/6")
  with Checkpoints(workdir) as checkpoints:
    with pytest.raises(ValueError, match=r"restore a copy") as error:
      checkpoints.restore(_state(0), step=6)
    assert checkpoints.restore(_state(0), step=2)[1] == {"step": 2}
  assert f"{file}: {what}" in str(error.value)


def test_a_full_disk_is_told_and_what_was_saved_stays(workdir, caplog):
  """A limit of the file size is the full disk that a test can have."""
  soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
  with Checkpoints(workdir, keep=1) as checkpoints:
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
      with pytest.raises(OSError, match=r"steps \[2, 4, 6\] are intact"):
        _save(checkpoints, 8)
    finally:
      resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
  # Orbax's own tracebacks would bury the message.
  assert "Traceback" not in caplog.text
  folder = workdir / "checkpoints"
  assert not checksums.find_corrupt_steps(folder, [2, 4, 6])
  # With free space again, the same run continues.
  with Checkpoints(workdir, keep=1) as checkpoints:
    checkpoints.restore(_state(0))
    _save(checkpoints, 8)
  assert [p.name for p in folder.iterdir()] == ["8"]


def test_the_best_is_kept_besides_the_newest(tmp_path):
  with Checkpoints(tmp_path, keep=1) as checkpoints:
    for step, best in ((1, 1), (2, 2), (3, 2), (4, 2)):
      _save(checkpoints, step, best)
  names = {path.name for path in (tmp_path / "checkpoints").iterdir()}
  assert names == {"2", "4"}
