"""Images with predicted boxes, drawn as by the official inference script.

prediction_000.png belongs to the first row of the manifest. It shows the image
at the model's input size (officially 504 x 504, bicubic, RGB), boxes in red, 2
pixels wide, and the label in yellow at the upper left corner. Rows of other
tasks and rows whose answer cannot be parsed have no image.
"""

from collections.abc import Iterable
from pathlib import Path

from PIL import Image, ImageDraw

from fusar_jax.data.examples import decode
from fusar_jax.data.triplets import Triplet
from fusar_jax.io.atomic_write import check_new_folder, new_folder
from fusar_jax.model.config import FusarConfig
from fusar_jax.tasks import boxes as boxes_lib
from fusar_jax.tasks.predictions import guess_task


class Overlays:
  """Writes the overlay images of a predictions file; see the module."""

  def __init__(self, folder: str | Path):
    """Sets the output folder, which is created atomically with all images.

    Raises:
      FileExistsError: the folder exists and is not empty.
    """
    self._folder = Path(folder)
    check_new_folder(self._folder)

  def __call__(
    self, config: FusarConfig, answers: Iterable[tuple[int, Triplet, dict]]
  ) -> None:
    """Draws the detections of answers.

    Args:
      config: of the model; sets the image size.
      answers: (row number, row of the manifest, its prediction), boxes in
        pixels of the prediction's coordinate_size.
    """
    with new_folder(self._folder) as made:
      for row, triplet, prediction in answers:
        if not _has_boxes(prediction):
          continue
        picture = overlay(triplet, prediction, config)
        picture.save(made / f"prediction_{row:03d}.png")


def _has_boxes(prediction: dict) -> bool:
  task = prediction.get("task") or guess_task(prediction["question"])
  return task == "detection" and prediction["parse_error"] is None


def overlay(
  triplet: Triplet, prediction: dict, config: FusarConfig
) -> Image.Image:
  """Returns the first image of a row with the predicted boxes drawn on it."""
  image, _ = decode(triplet.images[0], config)
  picture = Image.fromarray(image)
  draw = ImageDraw.Draw(picture)
  size = boxes_lib.as_size(prediction["coordinate_size"])
  for item in prediction["detections"]:
    (box,) = boxes_lib.scale([item["bbox_2d"]], size, image.shape[:2]).tolist()
    draw.rectangle(box, outline="red", width=2)
    draw.text(box[:2], str(item["label"]), fill="yellow")
  return picture
