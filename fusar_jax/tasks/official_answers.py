"""Strict parsing of detection answers, as in the official code.

A valid answer is "None", "null" (in any case) or one JSON list of objects with
a "bbox_2d". One Markdown fence of ``` may enclose the complete answer; the
prompt's own ''' fence is not removed. One invalid item (non-numbers, x1 >= x2)
invalidates the answer, as does any text around the list, such as the full stop
in "None.".

The "parse_error" of a prediction row is this error. Scores use the repair rules
of `fusar_jax.tasks.notations` instead.
"""

import json
import math

_FENCE = "```"


def official_error(text: str) -> str | None:
  """Returns the error of the official code for an answer, or None if valid.

  Example:
    >>> official_error('[{"bbox_2d": [1, 2, 3, 4], "label": "ship"}]')
    >>> official_error("None.")
    'not JSON: Expecting value at character 1'
  """
  body = _unfenced(text.strip())
  if body.lower() in ("none", "null"):
    return None
  try:
    items = json.loads(body)
  except json.JSONDecodeError as error:
    return f"not JSON: {error.msg} at character {error.pos + 1}"
  except (RecursionError, ValueError):
    return "not JSON: nested too deeply, or a number too long"
  if not isinstance(items, list):
    return f"expected a JSON list, got {type(items).__name__}"
  for number, item in enumerate(items):
    if error := _item_error(item):
      return f"item {number}: {error}"
  return None


def _unfenced(body: str) -> str:
  inside = body[len(_FENCE) : -len(_FENCE)]
  if f"{_FENCE}{inside}{_FENCE}" != body:
    return body
  return inside.removeprefix("json").strip()


def _item_error(item) -> str | None:
  if not isinstance(item, dict):
    return f"expected an object, got {type(item).__name__}"
  if "bbox_2d" not in item:
    return f'no "bbox_2d" among {list(item)[:5]}'
  box = item["bbox_2d"]
  if not isinstance(box, list) or len(box) != 4:
    return f"expected four numbers, got {str(box)[:60]}"
  if not all(type(v) in (int, float) and abs(v) < math.inf for v in box):
    return f"expected finite numbers, got {str(box)[:60]}"
  if box[0] >= box[2] or box[1] >= box[3]:
    return f"expected x1 < x2 and y1 < y2, got {str(box)[:60]}"
  return None
