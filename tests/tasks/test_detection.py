"""Detection: the matcher against brute force, and counts computed by hand."""

import collections
import json

from fusar_jax.tasks import boxes, detection
from fusar_jax.tasks.predictions import guess_task, prediction_row

# Verbatim.
PUBLISHED = (
  "This is a SAR image. Please carefully check the image and detect the"
  " following object: plane. Output each detected target\u2019s bbox"
  " coordinates in JSON format. The format of the bbox coordinates is:  '''json"
  ' [ {  "bbox_2d": [x1, y1, x2, y2], "label": "category name" }, {  '
  '"bbox_2d": [x1, y1, x2, y2], "label": "category name" } ]  '
  "'''  If there are no such targets in the image, simply respond with None."
)
# Prompts of earlier manifest versions.
EARLIER = (
  "This is a SAR image. Please carefully check the image and detect the"
  " following object: plane. Output each detected target's bbox coordinates in"
  " JSON format. The format of the bbox coordinates is:  '''json [ {  "
  '"bbox_2d": [x1, y1, x2, y2], "label": "category name" }, ... ]  '
  "'''  If there are no such targets in the image, simply respond with None."
)


def test_the_question_is_the_published_prompt():
  assert detection.question("plane") == PUBLISHED
  assert len(PUBLISHED) == 402


def test_both_wordings_are_detection():
  for asked in (PUBLISHED, EARLIER):
    assert guess_task(asked) == "detection"
    # The example's letters are no box to rescale.
    assert boxes.scale_text(asked, 100, 50) == asked


def test_the_official_rows(shared, tmp_path):
  """Questions, answers and parsed results, verbatim."""
  folder = shared / "data/official_fusar_examples"
  classes = collections.Counter()
  for name in ("detection.jsonl", "detection_no_aef.jsonl"):
    content = (folder / name).read_bytes()
    assert content.count(b"\r\n") == content.count(b"\n") == 12
    for line in content.split(b"\n")[:12]:
      row = json.loads(line)
      kind = "plane" if ": plane." in row["question"] else "ship"
      classes[kind] += 1
      assert detection.question(kind) == row["question"]
      parsed = boxes.parse_boxes(row["answer"])
      assert (parsed.error, parsed.rule) == (None, "json")
      assert set(parsed.labels) <= {kind}
      assert detection.answer(parsed.boxes, parsed.labels) == row["answer"]
      written = prediction_row(
        id=row["id"],
        question=row["question"],
        gt=row["answer"],
        prediction_text=row["answer"],
        coordinate_size=row["coordinate_size"],
      )
      assert written["detections"] == json.loads(row["answer"])
      assert written["parse_error"] is None
  assert min(classes.values()) > 0
