"""Detection: one box around every target of a class.

The question is the published prompt of FUSAR-GPT. `boxes.parse_boxes` parses
the answers.
"""

import functools

from fusar_jax.tasks import boxes as boxes_lib


def question(class_name: str) -> str:
  """Returns the published prompt verbatim.

  As in all rows of the release: U+2019 in "target\u2019s", two example
  objects, two blanks inside the braces and around the fence; 119 tokens for
  "plane" with Qwen's vocabulary. Manifests of earlier versions have an ASCII
  apostrophe and one object followed by ", ... ]"; `guess_task` recognises both.

  Args:
    class_name: singular, for example "ship".
  """
  one = '{  "bbox_2d": [x1, y1, x2, y2], "label": "category name" }'
  return (
    "This is a SAR image. Please carefully check the image and detect the"
    f" following object: {class_name}. Output each detected target\u2019s bbox"
    " coordinates in JSON format. The format of the bbox coordinates is:"
    f"  '''json [ {one}, {one} ]  '''  If there are no such targets in the"
    " image, simply respond with None."
  )


def answer(boxes, labels) -> str:
  """Returns the answer to `question`: a JSON list, or "None"."""
  return boxes_lib.format_boxes(boxes, labels)


@functools.lru_cache(maxsize=1024)
def normal(label: str) -> str:
  """Returns a label normalised for comparison: lower case, single spaces."""
  return " ".join(label.lower().replace("_", " ").split())
