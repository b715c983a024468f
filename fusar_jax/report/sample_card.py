"""A data set row as the model receives it.

Left: the image at the model's input size with the true boxes. Right: the same
image with its anchors. Below: all tokens, supervised ones marked by colour and
underline. The macro `sample_card` of `templates/dataset.html.j2` draws it.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from fusar_jax.data.examples import decode, encode_texts
from fusar_jax.data.row_texts import texts
from fusar_jax.data.tokenizer import Tokenizer
from fusar_jax.datasets.scan import Row
from fusar_jax.geo.anchors import Anchors, read_anchors
from fusar_jax.model.config import FusarConfig
from fusar_jax.report.anchor_colours import anchor_colours, hex_colour
from fusar_jax.report.data_uri import data_uri


@dataclasses.dataclass(frozen=True)
class Piece:
  """One token, or several that together encode one character.

  Attributes:
    text: the decoded text, special tokens by name.
    ids: token ids.
    supervised: whether the loss includes it.
    visual: number of visual tokens in this run; 0 for text.
  """

  text: str
  ids: tuple[int, ...]
  supervised: bool
  visual: int = 0


@dataclasses.dataclass(frozen=True, eq=False)
class Sample:
  """A row with its files loaded.

  Attributes:
    row: the scanned row.
    images: uint8[H, W, 3] each, at the model's input size.
    anchors: per image, or None.
    question, answer: as the model receives them, boxes in pixels of its input.
    pieces: the complete token sequence, or None without a tokenizer.
  """

  row: Row
  images: tuple[np.ndarray, ...]
  anchors: tuple[Anchors | None, ...]
  question: str
  answer: str
  pieces: tuple[Piece, ...] | None


def read_sample(
  row: Row, config: FusarConfig, tokenizer: Tokenizer | None
) -> Sample:
  """Loads a sample with the functions that build training examples."""
  triplet = row.triplet
  images = tuple(decode(path, config)[0] for path in triplet.images)
  question, answer = texts(triplet, row.images[0].size, row.seen[0])
  pieces = None
  if tokenizer is not None:
    ids, mask = encode_texts(question, answer, row.seen, tokenizer, config)
    pieces = split_tokens(tokenizer, ids, mask)
  return Sample(
    row=row,
    images=images,
    anchors=tuple(read_anchors(p) if p else None for p in triplet.anchors),
    question=str(question),
    answer=answer or "",
    pieces=pieces,
  )


def split_tokens(
  tokenizer: Tokenizer, ids: Sequence[int], mask: Sequence[bool] | np.ndarray
) -> tuple[Piece, ...]:
  """Splits a token sequence into displayable pieces.

  Consecutive image tokens become one piece, as do tokens that are bytes of one
  character.

  Args:
    ids: int[L].
    mask: bool[L], True for supervised tokens.
  """
  image = tokenizer.special_tokens().image
  pieces, i = [], 0
  while i < len(ids):
    end = i + 1
    if ids[i] == image:
      while end < len(ids) and ids[end] == image:
        end += 1
      text, visual = "", end - i
    else:
      text, visual = tokenizer.decode([ids[i]], skip_special=False), 0
      if "\ufffd" in text:
        end, text = _whole_character(tokenizer, ids, mask, i)
    pieces.append(Piece(text, tuple(ids[i:end]), bool(mask[i]), visual))
    i = end
  return tuple(pieces)


def _whole_character(tokenizer, ids, mask, start) -> tuple[int, str]:
  """Returns (end, text) of the tokens from `start` that decode without loss."""
  # A character has at most four bytes and may begin inside a token.
  for end in range(start + 2, min(start + 5, len(ids)) + 1):
    if mask[end - 1] != mask[start]:
      break
    text = tokenizer.decode(ids[start:end], skip_special=False)
    if "\ufffd" not in text:
      return end, text
  return start + 1, "\ufffd"


def colour_samples(
  samples: Sequence[Sample],
) -> tuple[list[list[np.ndarray | None]], float]:
  """Returns (uint8[S, 3] or None per sample and image, explained variance).

  Colours are computed over the anchors of all samples, so they are comparable
  across the page.
  """
  known = [a for sample in samples for a in sample.anchors if a is not None]
  if not known:
    return [[None] * len(sample.anchors) for sample in samples], 1.0
  colours, shown = anchor_colours(np.concatenate([a.features for a in known]))
  parts = iter(np.split(colours, np.cumsum([len(a) for a in known])[:-1]))
  return [
    [None if a is None else next(parts) for a in sample.anchors]
    for sample in samples
  ], shown


@dataclasses.dataclass(frozen=True, eq=False)
class Panels:
  """An image with its boxes and, to its right, with its anchors.

  Attributes:
    name: element id of the image, unique in the page.
    uri: data URI of the image.
    shape: (height, width) in pixels.
    boxes: (label, box), xyxy, pixels.
    dots: (x, y, "#rrggbb") of the anchors in pixels; None: no right panel.
  """

  name: str
  uri: str
  shape: tuple[int, int]
  boxes: Sequence[tuple[str, Sequence[float]]]
  dots: Sequence[tuple[float, float, str]] | None

  @property
  def unit(self) -> float:
    """Scale of lines and dots, which look the same on every card."""
    return max(self.shape) / 336

  @property
  def radius(self) -> float:
    """Radius of a dot in pixels; many anchors get small dots."""
    h, w = self.shape
    room = 0.3 * (h * w / max(len(self.dots or ()), 1)) ** 0.5
    return max(1.2 * self.unit, min(5 * self.unit, room))


def panels(
  sample: Sample, colours: Sequence[np.ndarray | None], name: str
) -> list[Panels]:
  """Returns the panels of each image; boxes belong to the first image.

  Args:
    sample: the row.
    colours: per image uint8[S, 3], or None without anchors.
    name: prefix of the element ids.
  """
  found = []
  for k, (image, anchors, colour) in enumerate(
    zip(sample.images, sample.anchors, colours)
  ):
    h, w = image.shape[:2]
    dots = None
    if anchors is not None and colour is not None:
      dots = [
        (x * w, y * h, hex_colour(rgb))
        for (y, x), rgb in zip(anchors.positions.tolist(), colour)
      ]
    boxes = zip(sample.row.labels, sample.row.boxes.tolist(), strict=True)
    found.append(
      Panels(
        f"{name}i{k}",
        data_uri(image),
        (h, w),
        [*boxes] if k == 0 else (),
        dots,
      )
    )
  return found


def facts(sample: Sample, split: str) -> str:
  """Returns a line about sizes, lengths and boxes of the row."""
  row = sample.row
  found = [f"{split}, row {row.triplet.row}"]
  for file, seen, anchors in zip(row.images, row.seen, sample.anchors):
    found.append(
      f"{file.size[0]} × {file.size[1]} seen at {seen[0]} × {seen[1]}"
    )
    found.append(f"{len(anchors)} anchors" if anchors else "no anchors")
  found.append(f"{row.visual_tokens} visual tokens")
  if row.length is not None:
    found.append(
      f"{row.length} tokens, {row.answer_length} of them supervised"
      if row.with_answer
      else f"{row.length} tokens of prompt"
    )
  if row.labels:
    names = sorted(set(row.labels))
    counts = ", ".join(f"{row.labels.count(name)} {name}" for name in names)
    found.append(f"boxes: {counts}")
  return " · ".join(found)
