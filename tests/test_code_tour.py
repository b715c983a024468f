"""docs/code-tour.md: a training step in at most 25 files and 4,500 lines."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_main_path_stays_readable():
  page = (ROOT / "docs/code-tour.md").read_text("utf-8")
  files = re.findall(r"^\| `(fusar_jax/.+?)` \|", page, re.M)
  assert len(set(files)) == len(files) <= 25
  lines = sum(len((ROOT / f).read_text("utf-8").splitlines()) for f in files)
  assert 1000 < lines <= 4500
