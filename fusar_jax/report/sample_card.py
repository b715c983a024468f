"""HTML card of a data set row as the model receives it.

Left: the image at the model's input size with the true boxes. Right: the same
image with its anchors. Below: all tokens, supervised ones marked by colour and
underline. HTML and SVG without scripts; all text from the data is escaped.
"""

import base64
import dataclasses
import html
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from fusar_jax.data.examples import decode, encode_texts
from fusar_jax.data.row_texts import texts
from fusar_jax.data.tokenizer import Tokenizer
from fusar_jax.datasets.scan import Row
from fusar_jax.geo.anchors import Anchors, read_anchors
from fusar_jax.model.config import FusarConfig
from fusar_jax.report.anchor_colours import anchor_colours

# Gap between the two panels, as a fraction of the image width.
_GAP = 0.04


@dataclasses.dataclass(frozen=True)
class Piece:
  """One token, or several that together encode one character.

  Attributes:
    text: the decoded text, special tokens by name.
    ids: token ids.
    learned: whether the loss includes it.
    visual: number of visual tokens in this run; 0 for text.
  """

  text: str
  ids: tuple[int, ...]
  learned: bool
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
    question=question,
    answer=answer or "",
    pieces=pieces,
  )


def split_tokens(
  tokenizer: Tokenizer, ids: Sequence[int], mask: Sequence[bool]
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


def card(
  sample: Sample, colours: Sequence[np.ndarray | None], number: int, split: str
) -> str:
  """Returns the HTML of one sample.

  Args:
    sample: the row.
    colours: per image uint8[S, 3], or None without anchors.
    number: index of the card on its page.
    split: name of the row's split.
  """
  row = sample.row
  pictures = "".join(
    picture(
      image,
      row.boxes if k == 0 else row.boxes[:0],
      row.labels if k == 0 else (),
      anchors,
      colour,
      name=f"s{number}i{k}",
    )
    for k, (image, anchors, colour) in enumerate(
      zip(sample.images, sample.anchors, colours)
    )
  )
  return (
    f'<article><h3>{escape(row.triplet.id)} <span class="task">'
    f"{escape(row.task)}</span></h3>"
    f'<p class="quiet">{_facts(sample, split)}</p>'
    f'<div class="show">{pictures}{_words(sample)}</div></article>'
  )


def picture(
  image: np.ndarray,
  boxes: np.ndarray,
  labels: Sequence[str],
  anchors: Anchors | None,
  colours: np.ndarray | None,
  *,
  name: str,
) -> str:
  """Returns one SVG: image with boxes, and to its right image with anchors.

  Args:
    image: uint8[H, W, 3].
    boxes: float32[n, 4], xyxy, pixels of the image.
    labels: one name per box.
    anchors, colours: S of each; None omits the right panel.
    name: element id of the image, unique in the page.
  """
  h, w = image.shape[:2]
  left = "".join(
    f"<g><title>{escape(label)} {[round(v, 1) for v in box]}</title>{_box(box)}"
    "</g>"
    for box, label in zip(boxes.tolist(), labels, strict=True)
  )
  # Lines and dots scale with the image, so they look the same on every card.
  unit = max(h, w) / 336
  right, width = "", w
  if anchors is not None:
    width = w * (2 + _GAP)
    radius = max(1.2 * unit, min(5 * unit, 0.3 * (h * w / len(anchors)) ** 0.5))
    dots = "".join(
      f'<circle r="{radius:.1f}" cx="{x * w:.1f}" cy="{y * h:.1f}"'
      f' fill="#{r:02x}{g:02x}{b:02x}"/>'
      for (y, x), (r, g, b) in zip(anchors.positions.tolist(), colours.tolist())
    )
    right = (
      f'<g transform="translate({w * (1 + _GAP):.1f} 0)">'
      # The black background dims the image on light pages too.
      f'<rect width="{w}" height="{h}"/><use href="#{name}" opacity="0.6"/>'
      f'<g stroke="#fff" stroke-width="{0.5 * unit:.2f}">{dots}</g></g>'
    )
  return (
    f'<svg class="picture{" pair" if right else ""}" role="img"'
    f' viewBox="0 0 {width:.1f} {h}"><defs><image id="{name}" width="{w}"'
    f' height="{h}" href="{data_uri(image)}" style="image-rendering:'
    f'pixelated"/></defs><use href="#{name}"/>'
    f'<g fill="none" stroke-width="{1.6 * unit:.2f}" stroke="#46dc6e">{left}'
    f"</g>{right}</svg>"
  )


def data_uri(image: np.ndarray) -> str:
  """Returns uint8[H, W, 3] as a data URI with a PNG (lossless)."""
  grey = (image == image[..., :1]).all()
  file = io.BytesIO()
  Image.fromarray(image[..., 0] if grey else image).save(file, "PNG")
  return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def escape(text: str) -> str:
  """Returns text escaped for HTML; control characters become U+24xx symbols."""
  seen = "".join(
    chr(0x2400 + ord(c)) if c < " " and c not in "\n\t" else c for c in text
  )
  return html.escape(seen.encode("utf-8", "replace").decode())


def _box(box) -> str:
  x1, y1, x2, y2 = box
  return (
    f'<rect x="{x1:.1f}" y="{y1:.1f}" width="{max(x2 - x1, 0):.1f}"'
    f' height="{max(y2 - y1, 0):.1f}"/>'
  )


def _facts(sample: Sample, split: str) -> str:
  row = sample.row
  facts = [f"{split}, row {row.triplet.row}"]
  for file, seen, anchors in zip(row.images, row.seen, sample.anchors):
    facts.append(
      f"{file.size[0]} × {file.size[1]} seen at {seen[0]} × {seen[1]}"
    )
    facts.append(f"{len(anchors)} anchors" if anchors else "no anchors")
  facts.append(f"{row.visual_tokens} visual tokens")
  if row.length is not None:
    facts.append(
      f"{row.length} tokens, {row.answer_length} of them supervised"
      if row.with_answer
      else f"{row.length} tokens of prompt"
    )
  names = sorted(set(row.labels))
  if names:
    counted = ", ".join(f"{row.labels.count(n)} {n}" for n in names)
    facts.append(f"boxes: {counted}")
  return " · ".join(map(escape, facts))


def _words(sample: Sample) -> str:
  if sample.pieces is not None:
    return f'<div class="words">{"".join(map(_piece, sample.pieces))}</div>'
  return (
    f'<div class="words">{escape(sample.question)}\n'
    f'<b class="learned">{escape(sample.answer)}</b></div>'
  )


def _piece(piece: Piece) -> str:
  ids = ", ".join(map(str, piece.ids[:4]))
  kind = "learned" if piece.learned else "given"
  if piece.visual:
    shown = f"{piece.visual} visual tokens"
    kind += " visual"
    ids = str(piece.ids[0])
  else:
    shown = escape(piece.text).replace("\n", "↵\n")
  tag = "b" if piece.learned else "i"
  return f'<{tag} class="{kind}" title="{ids}">{shown}</{tag}>'
