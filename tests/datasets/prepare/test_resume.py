"""Interrupted runs resume and end with the same bytes."""

import dataclasses
import json

import numpy as np
import pytest

from fusar_jax.datasets.prepare import journal as journal_lib
from fusar_jax.datasets.prepare import preparation
from fusar_jax.datasets.prepare.sources import Look

HEIGHT, WIDTH = 100, 130


class _StoppedError(Exception):
  pass


def _stop_after(count):
  def on_tile(done, total):
    if done == count:
      raise _StoppedError

  return on_tile


@pytest.mark.parametrize("harm", ["none", "torn", "lost", "cut", "draft"])
def test_a_stopped_run_ends_with_the_same_bytes(
  tmp_path,
  scene,
  archive,
  harm,
  prepare,
  write_scene,
  labelled,
  bytes_of,
  write_csv,
  usual,
):
  west = write_scene(
    tmp_path / "west.tif",
    np.arange(HEIGHT * WIDTH, dtype="u2").reshape(100, -1),
  )
  options = {
    "archive": archive,
    "read_labels": labelled(
      write_csv(tmp_path / "l.csv", name="west"), unmentioned_are_empty=True
    ),
  }
  plan = dataclasses.replace(usual, table=True)
  whole, out = tmp_path / "whole", tmp_path / "out"
  card = prepare([scene, west], whole, plan, **options)
  for count in (2, 8):
    with pytest.raises(_StoppedError):
      prepare([scene, west], out, plan, on_tile=_stop_after(count), **options)
    assert not (out / "manifest.jsonl").exists()
  journal = out / journal_lib.NAME
  image = out / "images" / "east" / "r000000_c000000.png"
  if harm == "torn":
    journal.write_bytes(journal.read_bytes()[:-40])
  elif harm == "lost":
    image.unlink()
  elif harm == "cut":
    image.write_bytes(image.read_bytes()[:100])
  elif harm == "draft":
    image.with_suffix(".part").write_bytes(b"half a picture")
  cut = []
  assert card == prepare(
    [scene, west], out, plan, on_tile=lambda *n: cut.append(n), **options
  )
  assert cut[-1] == (12, 12)
  assert bytes_of(out) == bytes_of(whole)


def test_what_is_done_is_not_done_again(
  tmp_path, scene, monkeypatch, prepare, bytes_of
):
  out = tmp_path / "out"
  with pytest.raises(_StoppedError):
    prepare(scene, out, on_tile=_stop_after(4))
  rendered = []
  real = preparation.render

  def counted(*args):
    rendered.append(args[2].name)
    return real(*args)

  monkeypatch.setattr(preparation, "render", counted)
  prepare(scene, out)
  assert rendered == ["r000044_c000056", "r000044_c000074"]
  # A finished folder is left as it is.
  before = bytes_of(out)
  assert prepare(scene, out)["rows"] == 6
  assert bytes_of(out) == before
  assert len(rendered) == 2


def test_other_options_are_rejected_with_the_differences(
  tmp_path, scene, prepare, write_scene, usual
):
  out = tmp_path / "out"
  with pytest.raises(_StoppedError):
    prepare(scene, out, on_tile=_stop_after(1))
  other = dataclasses.replace(usual, look=Look(size=48), min_valid=0.4)
  message = r"other settings:\n  size: was 56, now 48\n  min_valid: was 0.3"
  with pytest.raises(FileExistsError, match=message):
    prepare(scene, out, other)
  # Neither is another scene of the same name the same scene.
  changed = write_scene(scene, np.ones((HEIGHT, WIDTH), np.float32))
  with pytest.raises(FileExistsError, match="scene east: was"):
    prepare(changed, out)


def test_a_finished_folder_is_not_made_anew(tmp_path, scene, prepare, usual):
  out = tmp_path / "out"
  card = prepare(scene, out)
  assert prepare(scene, out) == card
  # A card of an older version.
  before = {k: v for k, v in card.items() if k != "rejected"} | {"refused": 0}
  (out / "dataset.json").write_text(json.dumps(before))
  assert prepare(scene, out) == card
  with pytest.raises(FileExistsError, match="size: was 56, now 48"):
    prepare(scene, out, dataclasses.replace(usual, look=Look(size=48)))
  foreign = tmp_path / "foreign"
  foreign.mkdir()
  (foreign / "notes.txt").write_text("mine")
  with pytest.raises(FileExistsError, match="not empty"):
    prepare(scene, foreign)


def test_two_runs_do_not_share_a_folder(tmp_path, scene, prepare):
  out = tmp_path / "out"

  def again(done, total):
    with pytest.raises(FileExistsError, match="another prepare"):
      prepare(scene, out)

  prepare(scene, out, on_tile=again)
