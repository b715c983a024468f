"""What a baseline may know of a row, and its answer as separate parts.

A caption is answered field by field, every other answer as one text. Texts that
have boxes are in pixels of a CANVAS x CANVAS image, so that answers of training
rows fit images of any size.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from fusar_jax.tasks import captioning

CANVAS = 1000
# Training rows per task; more are sampled, which bounds the distance matrices.
MAX_ROWS = 4000
SEED = 0
# Answers that a vote can give: the most common ones.
MAX_ANSWERS = 256


@dataclasses.dataclass(frozen=True, eq=False)
class Row:
  """A question with its truth in training, and its image as numbers.

  Attributes:
    task, question: of the row.
    answer: the true answer; "" for rows to be answered.
    image: name of the image.
    image_size: (height, width) of the image file; None: unknown.
    boxes: float64[n, 4], xyxy, true boxes of a detection row as fractions of
      the image.
    labels: one name per box.
    thumbnail: float32[1024], see `thumbnails.thumbnail`; None: unknown.
  """

  task: str
  question: str
  answer: str = ""
  image: str = ""
  image_size: tuple[int, int] | None = None
  boxes: np.ndarray = dataclasses.field(
    default_factory=lambda: np.zeros((0, 4))
  )
  labels: tuple[str, ...] = ()
  thumbnail: np.ndarray | None = None


def sample(rows: Sequence) -> list:
  """Returns at most MAX_ROWS of the rows, drawn with SEED, in their order."""
  if len(rows) <= MAX_ROWS:
    return list(rows)
  rng = np.random.default_rng(SEED)
  drawn = np.sort(rng.choice(len(rows), MAX_ROWS, replace=False))
  return [rows[i] for i in drawn]


def image_numbers(rows: Sequence[Row]) -> np.ndarray:
  """Returns int[n], equal for rows of one image."""
  return np.unique([row.image for row in rows], return_inverse=True)[1]


@dataclasses.dataclass(frozen=True, eq=False)
class Answers:
  """The answers of training rows, as codes.

  Attributes:
    names: caption fields, or ("",) for one text.
    texts: for each part, its answers, most common first; ties are sorted.
    codes: int[n, parts], index into the texts of the part; -1: a rare answer.
  """

  names: tuple[str, ...]
  texts: tuple[tuple[str, ...], ...]
  codes: np.ndarray

  @classmethod
  def of(cls, rows: Sequence[Row]) -> "Answers":
    """Returns the answers of the rows of one task, at least one row."""
    names, parts = ("",), [{"": row.answer} for row in rows]
    if rows[0].task == "captioning":
      fields = [captioning.parse(row.answer).fields for row in rows]
      if all(fields):
        names, parts = tuple(captioning.FIELDS), fields
    texts, codes = [], []
    for name in names:
      given = [part.get(name, "") for part in parts]
      found, counts = np.unique(given, return_counts=True)
      common = [str(t) for t in found[np.argsort(-counts, kind="stable")]]
      common = common[:MAX_ANSWERS]
      index = {text: i for i, text in enumerate(common)}
      texts.append(tuple(common))
      codes.append([index.get(text, -1) for text in given])
    return cls(names, tuple(texts), np.array(codes).T)

  def text(self, codes: Sequence[int]) -> str:
    """Returns the answer that consists of one code per part."""
    parts = {
      name: texts[code]
      for name, texts, code in zip(self.names, self.texts, codes)
    }
    if self.names == ("",):
      return parts[""]
    return captioning.answer(parts, [n for n, text in parts.items() if text])
