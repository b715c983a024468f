"""Overlay images: file names, size, colours, rows that have one."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fusar_jax.config import preset
from fusar_jax.data.triplets import Triplet
from fusar_jax.data.vision import resize
from fusar_jax.report.overlays import Overlays

RED = (255, 0, 0)


@pytest.fixture
def triplet(tmp_path):
  """A row with an image of 40 x 80 pixels; the model input is 56 x 56."""
  pixels = np.random.default_rng(0).integers(0, 90, (40, 80, 3), np.uint8)
  Image.fromarray(pixels).save(tmp_path / "a.png")
  return Triplet(
    id="a",
    images=(tmp_path / "a.png",),
    anchors=(None,),
    question="",
    answer="",
    source=Path(tmp_path / "manifest.jsonl"),
    row=1,
  )


@pytest.fixture
def config():
  return dataclasses.replace(preset("tiny"), image_size=(56, 56))


def _row(detections, error=None, task="detection"):
  return {
    "coordinate_size": [40, 80],
    "question": "",
    "task": task,
    "detections": detections,
    "parse_error": error,
  }


def test_boxes_are_red_and_labels_yellow(tmp_path, triplet, config):
  row = _row([{"bbox_2d": [20, 10, 70, 35], "label": "ship"}])
  Overlays(tmp_path / "out")(config, [(7, triplet, row)])
  (path,) = (tmp_path / "out").iterdir()
  assert path.name == "prediction_007.png"
  picture = np.asarray(Image.open(path))
  assert picture.shape == (56, 56, 3)
  red = np.argwhere((picture == RED).all(-1))
  # At the model's input size: x 14..49, y 14..49; two pixels wide.
  assert red.min(0).tolist() == [14, 14]
  assert red.max(0).tolist() == [49, 49]
  assert (picture[30, 14:16] == RED).all()
  assert not (picture[30, 16] == RED).all()
  # The letters are antialiased, so colours need tolerances.
  red, green, blue = np.moveaxis(picture.astype(int), -1, 0)
  yellow = np.argwhere((red > 150) & (green > 150) & (blue < 90))
  assert len(yellow)
  assert (yellow.min(0) >= 14).all()
  # Elsewhere the pixels equal the model's input.
  seen = resize(np.asarray(Image.open(triplet.images[0])), (56, 56))
  np.testing.assert_array_equal(picture[:13], seen[:13])


def test_only_answers_that_were_read_are_drawn(tmp_path, triplet, config):
  rows = [
    _row(None, error="not JSON"),
    _row([]),
    _row([], task="counting"),
    _row(None, task="captioning"),
  ]
  answers = [(i, triplet, row) for i, row in enumerate(rows)]
  Overlays(tmp_path / "out")(config, answers)
  names = [path.name for path in (tmp_path / "out").iterdir()]
  assert names == ["prediction_001.png"]


def test_a_failure_leaves_no_folder(tmp_path, triplet, config):
  lost = dataclasses.replace(triplet, images=(tmp_path / "b.png",))
  with pytest.raises(OSError, match=r"b\.png"):
    Overlays(tmp_path / "out")(
      config, [(0, triplet, _row([])), (1, lost, _row([]))]
    )
  assert not (tmp_path / "out").exists()


def test_pictures_of_another_run_are_not_mixed_in(tmp_path):
  (tmp_path / "out").mkdir()
  (tmp_path / "out" / "prediction_000.png").write_bytes(b"")
  with pytest.raises(FileExistsError, match="not empty"):
    Overlays(tmp_path / "out")
