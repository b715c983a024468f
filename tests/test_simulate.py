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


def test_sheet_of_written_scenes(tmp_path):
  """The same as the images on disk, with boxes in colour."""
  sheet = tmp_path / "sheet.png"
  out = tmp_path / "set"
  assert command.main(["--out", str(out), "--sheet", str(sheet), *SCENES]) == 0
  drawn = np.asarray(Image.open(sheet)).astype(int)
  first = np.asarray(Image.open(out / "images/scene-000000.png"))
  # Enlarged twice, behind a gap of 8; boxes cover a few pixels.
  shown = drawn[8:200:2, 8:200:2]
  assert (shown == first[..., None]).all(-1).mean() > 0.9
  assert len(np.unique(drawn.max(-1) - drawn.min(-1))) > 1


def test_compare_tells_both_sides(tmp_path, real, capsys):
  """Speckle of 4 looks with independent pixels stands in the first column."""
  sheet = tmp_path / "mixed.png"
  argv = ["--compare", str(real), "--sheet", str(sheet), *SCENES]
  assert command.main(argv) == 0
  said = capsys.readouterr().out
  assert "5 real crops" in said
  assert "6 simulated" in said
  looks = next(line for line in said.splitlines() if "looks" in line)
  median = float(looks.split("│")[2].split()[1])
  assert median == pytest.approx(4, rel=0.15)
  told = (tmp_path / "mixed.txt").read_text().splitlines()
  kinds = [line.split()[1] for line in told]
  assert sorted(kinds) == ["real:"] * 5 + ["simulated:"] * 6
  # Nothing else is kept.
  assert {path.name for path in tmp_path.iterdir()} == {
    "real",
    "mixed.png",
    "mixed.txt",
  }


def test_what_is_refused(tmp_path, real, capsys):
  assert command.main(["--compare", str(tmp_path / "none"), *SCENES]) == 1
  assert "no images found" in " ".join(capsys.readouterr().err.split())
  with pytest.raises(SystemExit):
    command.main(["--compare", str(real), "--rasters", *SCENES])
  assert "--rasters needs --out" in capsys.readouterr().err
  with pytest.raises(SystemExit):
    command.main(["--compare", str(real), "--out", "x", *SCENES])
