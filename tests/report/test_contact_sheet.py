"""Contact sheets: positions of images and boxes, and the correct solution."""

import json

import numpy as np
import pytest
from PIL import Image

from fusar_jax.report import contact_sheet
from fusar_jax.report.box_colours import TRUE_COLOUR
from fusar_jax.report.contact_sheet import Panel

GAP, LINE = contact_sheet._GAP, contact_sheet._LINE


def grey(level, size=128):
  return np.full((size, size), level, np.uint8)


def places(count, columns, side):
  """Returns the upper left corners (x, y) of panels with sides in pixels."""
  return [
    (GAP + i % columns * (side + GAP), GAP + i // columns * (side + LINE + GAP))
    for i in range(count)
  ]


def test_box_encloses_its_pixels(tmp_path):
  """The outline of a box touches the target from outside and hides no pixel."""
  image = grey(0, 256)
  image[30:50, 100:130] = 255
  path = tmp_path / "sheet.png"
  panel = Panel(image, "", [[100, 30, 130, 50]])
  contact_sheet.contact_sheet([panel], path)
  sheet = np.asarray(Image.open(path))[GAP : GAP + 256, GAP : GAP + 256]
  assert (sheet[30:50, 100:130] == 255).all()
  rows, cols = np.nonzero((sheet == TRUE_COLOUR).all(-1))
  assert (rows.min(), rows.max()) == (29, 50)
  assert (cols.min(), cols.max()) == (99, 130)
  assert len(rows) == 2 * 32 + 2 * 20


def test_captions_are_written_and_cut(tmp_path):
  """Captions of any length stay within the width of their panel."""
  written = []
  for n, text in enumerate(["", "sea", "sea " * 99]):
    path = tmp_path / f"{n}.png"
    panels = [Panel(grey(0, 256), text), Panel(grey(0, 256), "")]
    contact_sheet.contact_sheet(panels, path)
    strip = np.asarray(Image.open(path))[GAP + 256 :].astype(int)
    written.append(np.flatnonzero((strip != strip[0, 0]).any((0, 2))))
  assert written[0].size == 0
  assert written[1].size
  assert written[2].max() > 200
  assert written[2].max() < GAP + 256


def test_panels_of_one_size(tmp_path):
  with pytest.raises(ValueError, match="no panels"):
    contact_sheet.contact_sheet([], tmp_path / "a.png")
  panels = [Panel(grey(0, 8), ""), Panel(grey(0, 9), "")]
  with pytest.raises(ValueError, match=r"\(8, 8\), \(9, 9\)"):
    contact_sheet.contact_sheet(panels, tmp_path / "a.png")
  assert not list(tmp_path.iterdir())


def test_solution_of_the_mixed_sheet(tmp_path):
  """The solution lists the kind of the panel at each number."""
  real = [Panel(grey(100 + i, 256), f"crop {i}") for i in range(5)]
  made = [
    Panel(grey(200 + i, 256), f"scene {i}", [[1, 1, 9, 9]]) for i in range(5)
  ]
  path = tmp_path / "sheet.png"
  solution = contact_sheet.mixed_sheet(real, made, path, seed=3, columns=4)
  sheet = np.asarray(Image.open(path))
  assert not (sheet == TRUE_COLOUR).all(-1).any()
  listed = solution.read_text().splitlines()
  expected = []
  for n, (x, y) in enumerate(places(10, 4, 256), 1):
    level = int(sheet[y, x, 0])
    names = ("real: crop", "simulated: scene")
    expected.append(f"{n} {names[level // 200]} {level % 100}")
  assert listed == expected
  # Shuffled; equal for equal seeds, different for different seeds.
  assert {line.split()[1] for line in listed[:5]} == {"real:", "simulated:"}
  again = tmp_path / "again.png"
  contact_sheet.mixed_sheet(real, made, again, seed=3, columns=4)
  assert again.read_bytes() == path.read_bytes()
  contact_sheet.mixed_sheet(real, made, again, seed=4, columns=4)
  assert again.read_bytes() != path.read_bytes()


def test_scenes_of_a_manifest(tmp_path):
  """A scene has the distinct boxes of all its rows; its caption the terrain."""
  answer = "The terrain is classified as open sea. Road presence: none."
  rows = []
  for n in range(3):
    Image.fromarray(grey(n, 64)).save(tmp_path / f"{n}.png")
    boxes = [[1, 2, 11, 12], [5, 20, 15, 30]][:n]
    answers = [("one", boxes, None), ("two", boxes[:1], None)]
    answers += [(answer, [], "captioning")] * (n > 0)
    rows += [
      {
        "id": f"{n}-{k}",
        "image": f"{n}.png",
        "question": "?",
        "answer": text,
        "task": task,
        "boxes": found,
        "labels": ["ship"] * len(found),
      }
      for k, (text, found, task) in enumerate(answers)
    ]
  manifest = tmp_path / "manifest.jsonl"
  manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
  panels = contact_sheet.manifest_panels(manifest, 9)
  assert [panel.caption for panel in panels] == [
    "0: 0",
    "open sea: 1",
    "open sea: 2",
  ]
  assert [len(panel.boxes) for panel in panels] == [0, 1, 2]
  assert [int(panel.image.max()) for panel in panels] == [0, 1, 2]
  assert len(contact_sheet.manifest_panels(manifest, 2)) == 2
