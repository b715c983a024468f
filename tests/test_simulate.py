"""The command `simulate`: output of --sheet and --compare."""

import numpy as np
import pytest
from PIL import Image

from fusar_jax import simulate as command

SCENES = ["--scenes", "6", "--size", "96", "--workers", "1", "--seed", "3"]


@pytest.fixture
def real(tmp_path):
  """A folder with images of six and of two crops; three are a file's share."""
  rng = np.random.default_rng(0)
  for name, shape in (("a.png", (192, 288)), ("b/c.png", (96, 192))):
    path = tmp_path / "real" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    levels = np.sqrt(rng.gamma(4, 400 / 4, shape))
    Image.fromarray(levels.astype(np.uint8)).save(path)
  return tmp_path / "real"


def test_sheet_of_written_scenes(call, tmp_path):
  """The same as the images on disk, with boxes in colour."""
  sheet, out = tmp_path / "sheet.png", tmp_path / "set"
  done = call(command.main, "--out", out, "--sheet", sheet, *SCENES)
  assert done.code == 0
  drawn = np.asarray(Image.open(sheet)).astype(int)
  first = np.asarray(Image.open(out / "images/scene-000000.png"))
  # Enlarged twice, behind a gap of 8; boxes cover a few pixels.
  shown = drawn[8:200:2, 8:200:2]
  assert (shown == first[..., None]).all(-1).mean() > 0.9
  assert len(np.unique(drawn.max(-1) - drawn.min(-1))) > 1


def test_the_old_name_of_pretraining_tasks_works_and_warns(call, tmp_path):
  done = call(command.main, "--out", tmp_path / "set", "--looking", *SCENES)
  assert done.code == 0
  assert "--looking is deprecated; use --pretraining-tasks." in done.err
  assert (tmp_path / "set" / "pretraining_tasks.jsonl").is_file()


def test_compare_describes_both_sides(call, tmp_path, real):
  """Speckle of 4 looks with independent pixels stands in the first column."""
  sheet = tmp_path / "mixed.png"
  done = call(command.main, "--compare", real, "--sheet", sheet, *SCENES)
  assert done.code == 0
  assert "5 real crops" in done.out
  assert "6 simulated" in done.out
  looks = next(line for line in done.out.splitlines() if "looks" in line)
  median = float(looks.split("│")[2].split()[1])
  assert median == pytest.approx(4, rel=0.15)
  key = (tmp_path / "mixed.txt").read_text().splitlines()
  kinds = [line.split()[1] for line in key]
  assert sorted(kinds) == ["real:"] * 5 + ["simulated:"] * 6
  # No scene is written.
  assert {path.name for path in tmp_path.iterdir()} == {
    "real",
    "mixed.png",
    "mixed.txt",
  }


def test_errors(call, tmp_path, real):
  done = call(command.main, "--compare", tmp_path / "none", *SCENES)
  assert (done.code, "no images found" in done.text) == (1, True)
  done = call(command.main, "--compare", real, "--rasters", *SCENES)
  assert (done.code, "--rasters needs --out" in done.err) == (2, True)
  done = call(command.main, "--compare", real, "--out", "x", *SCENES)
  assert done.code == 2
