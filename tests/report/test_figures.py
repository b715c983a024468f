"""The sheet of predictions: boxes land where the row's coordinates say."""

import numpy as np
import pytest
from PIL import Image

from fusar_jax.report import figures
from fusar_jax.tasks import detection
from fusar_jax.tasks.predictions import prediction_row


def row(gt, said, size):
  return prediction_row(
    id="a",
    question=detection.question("ship"),
    gt=gt,
    prediction_text=said,
    coordinate_size=size,
  )


def test_boxes_stand_where_they_should(tmp_path):
  """One predicted box covers the right half of a black 56 x 56 image."""
  said = '[{"bbox_2d": [50, 0, 100, 100], "label": "ship"}]'
  path = tmp_path / "new/sheet.png"
  figures.prediction_sheet(
    [row("None", said, 100)], [np.zeros((56, 56), np.uint8)], path
  )
  sheet = np.asarray(Image.open(path)).astype(int)
  # Below the legend.
  hits = (sheet == figures.PREDICTED_COLOUR).all(-1)[30:]
  left = np.flatnonzero(hits.any(0)).min()
  middle = figures._GAP + figures._TILE / 2
  assert abs(left - middle) <= 2
  assert not (sheet == figures.TRUE_COLOUR).all(-1)[30:].any()


def test_captions_tell_counts_and_failures():
  box = '[{"bbox_2d": [1, 2, 30, 40], "label": "ship"}]'
  assert figures.captions(row(box, "None", 100))[1] == "true 1, predicted 0"
  assert figures.captions(row(box, "[[", 100))[1] == "true 1, unread answer"


def test_an_image_for_each_row(tmp_path):
  with pytest.raises(ValueError, match="1 rows and 0 images"):
    figures.prediction_sheet([row("None", "None", 9)], [], tmp_path / "a.png")
