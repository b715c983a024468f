"""Boxes in the texts of dialogues, rewritten as [x1, y1, x2, y2] in pixels.

That is the notation that the loader rescales to the model's input image. Read
are, besides it:

  [[x1, y1, x2, y2, angle]]            EarthDial: 0 to 100, glued lists
  {<x1><y1><x2><y2>|<angle>}           GeoChat: 0 to 100
  <|box_start|>(x1,y1),(x2,y2)<|box_end|>  Qwen2-VL: 0 to 1000
  {<x1><y1><x2><y2>}                   pixels (SARChat) or relative
  [x1, y1, x2, y2]                     pixels or relative
  <bbox>, <ref-object>                 ms-swift: filled from "objects"

Of the boxes with four bare numbers, the range follows from no file: the user
states it. A rotated box becomes the axis-aligned box around it.
"""

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from fusar_jax.datasets.importers.targets import check_overlap, pixels
from fusar_jax.tasks import boxes as boxes_lib
from fusar_jax.tasks import rotated_boxes

# Ranges of boxes with four bare numbers.
RANGES = {"pixels": None, "1": 1, "100": 100, "1000": 1000}

_N = r"\s*(-?\d{1,9}(?:\.\d{1,20})?)\s*"
_BOX = re.compile(
  rf"\{{<{_N}><{_N}><{_N}><{_N}>(?:\|<{_N}>)?\}}"
  rf"|\[{_N},{_N},{_N},{_N}(?:,{_N})?\]"
  rf"|<\|box_start\|>\s*\({_N},{_N}\)\s*,\s*\({_N},{_N}\)\s*<\|box_end\|>"
)
_LEFT_OVER = re.compile(r"\{<[^{}]{0,60}\}?|<\|box_(?:start|end)\|>")
_GLUED = re.compile(r"\]\s*\]\s*\[\s*\[")
_FILL = re.compile(r"<bbox>|<ref-object>")


def has_boxes(text: str) -> bool:
  """Returns whether a text holds a box in one of the notations."""
  return bool(_BOX.search(text))


@dataclasses.dataclass(frozen=True)
class Rewriter:
  """Rewrites the boxes of one record.

  Attributes:
    size: (height, width) of the image, pixels.
    span: range of four bare numbers, one of RANGES; None: not stated.
  """

  size: tuple[int, int]
  span: str | None = None

  def rewrite(self, text: str) -> str:
    """Returns a text with its boxes in pixels.

    Raises:
      ValueError: braces that are no box, a box outside of the image, or one
        whose range is not stated.

    Example: an image of 200 x 100 pixels (height x width).
      >>> Rewriter((200, 100)).rewrite("[[10, 20, 30, 40, 0]][[1, 2, 3, 4, 0]]")
      '[[10, 40, 30, 80], [1, 4, 3, 8]]'
    """
    found = _BOX.sub(self._in_pixels, text)
    if left := _LEFT_OVER.search(found):
      raise ValueError(f"{left[0]!r:.60} is no box of a known notation")
    return _GLUED.sub("], [", found) if found != text else text

  def _in_pixels(self, match: re.Match) -> str:
    groups = match.groups()
    braces, brackets, tags = groups[:5], groups[5:10], groups[10:]
    numbers = next(of for of in (braces, brackets, tags) if of[0] is not None)
    values = [pixels(v, match[0]) for v in numbers if v is not None]
    if tags[0] is not None:
      span = 1000
    elif len(values) == 5:
      span = 100
    else:
      span = self._span(match[0], values)
    corners = values[:4]
    if span is not None:
      box = boxes_lib.scale(corners, span, self.size)
      if len(values) == 5:
        rotated = np.column_stack([box, values[4:]])
        box = rotated_boxes.envelope(rotated)
      corners = box[0].tolist()
    return self.text_of(corners)

  def _span(self, written: str, values: Sequence[float]) -> int | None:
    if self.span is not None:
      return RANGES[self.span]
    if written[0] == "{":
      raise ValueError(
        f"{written!r:.60}: its range is not known; state it with --box-range"
        " (pixels, 100, ...)"
      )
    if max(values) <= 1 and any(v != int(v) for v in values):
      raise ValueError(
        f"{written!r:.60} looks relative to the image; state its range with"
        " --box-range (1, or pixels)"
      )
    return None

  def text_of(self, corners: Sequence[float]) -> str:
    """Returns "[x1, y1, x2, y2]" of corners in pixels, rounded."""
    check_overlap([round(float(v), 2) for v in corners], self.size)
    return str(np.rint(np.asarray(corners, float)).astype(int).tolist())


class Objects:
  """The values of ms-swift's "objects", in the order of their placeholders.

  Args:
    objects: {"ref": names, "bbox": boxes, "bbox_type": "real" or "norm1",
      "image_id": index of the image of each box}; real: pixels of the original.
    rewriters: one per image.

  Raises:
    ValueError: a list or a value of another kind.
  """

  def __init__(self, objects: Mapping, rewriters: Sequence[Rewriter]):
    known = {"ref", "bbox", "bbox_type", "image_id"}
    if unknown := sorted(map(str, {*objects} - known)):
      raise ValueError(f"'objects' holds {unknown[0]!r}, which is not known")
    refs, boxes = objects.get("ref") or [], objects.get("bbox") or []
    kind = objects.get("bbox_type") or "real"
    of = objects.get("image_id") or [0] * len(boxes)
    if kind not in ("real", "norm1"):
      raise ValueError(f"'bbox_type' must be real or norm1, got {kind!r:.40}")
    if not all(isinstance(v, list) for v in (refs, boxes, of)):
      raise ValueError("'ref', 'bbox' and 'image_id' must be lists")
    if not all(isinstance(ref, str) for ref in refs):
      raise ValueError("'ref' must hold names")
    if len(of) != len(boxes) or not all(
      type(i) is int and 0 <= i < len(rewriters) for i in of
    ):
      raise ValueError(
        f"'image_id' must give one of {len(rewriters)} images for each of"
        f" {len(boxes)} boxes, got {of!r:.60}"
      )
    self._names = iter(refs)
    self._boxes = self._texts(boxes, of, kind, rewriters)

  @staticmethod
  def _texts(boxes, of, kind: str, rewriters) -> Iterator[str]:
    first = rewriters[0].size
    for box, index in zip(boxes, of):
      if not isinstance(box, list) or len(box) != 4:
        raise ValueError(
          f"a 'bbox' must be [x1, y1, x2, y2], got {box!r:.60}; points and"
          " polygons are not supported"
        )
      size = rewriters[index].size
      if size != first:
        raise ValueError(
          f"a 'bbox' of image {index}, whose size differs from that of the"
          " first: a row has one coordinate size"
        )
      corners = [pixels(value, "bbox") for value in box]
      if kind == "norm1":
        corners = boxes_lib.scale(corners, 1, size)[0].tolist()
      yield rewriters[index].text_of(corners)

  def fill(self, text: str) -> str:
    """Returns a text with the next values in place of its placeholders."""

    def value(match: re.Match) -> str:
      of = self._boxes if match[0] == "<bbox>" else self._names
      if (found := next(of, None)) is None:
        raise ValueError(f"more {match[0]} than values in 'objects'")
      return found

    return _FILL.sub(value, text)

  def check_used(self) -> None:
    """Raises ValueError if a value has no placeholder."""
    for of, name in ((self._boxes, "<bbox>"), (self._names, "<ref-object>")):
      if next(of, None) is not None:
        raise ValueError(f"more values in 'objects' than {name} in the texts")
