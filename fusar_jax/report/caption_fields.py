"""Texts of the caption fields in a split: how varied, how long, how common.

A field whose commonest text dominates teaches little: a model that never looks
at the image gets it right as often.
"""

import collections
import dataclasses
import statistics
from collections.abc import Sequence

from fusar_jax.datasets.scan import Row
from fusar_jax.tasks import captioning

MOST_COMMON = 5


@dataclasses.dataclass(frozen=True)
class FieldTexts:
  """Texts of one field.

  Attributes:
    name: of `captioning.FIELDS`.
    captions: that have the field.
    distinct: different texts.
    unknown: captions whose text contains the word "unknown".
    words: (fewest, median, most) words of a text.
    common: (text, captions) of the MOST_COMMON commonest texts.
  """

  name: str
  captions: int
  distinct: int
  unknown: int
  words: tuple[int, float, int]
  common: Sequence[tuple[str, int]]


def fields_of(row: Row) -> dict[str, str]:
  """Returns the fields of a row's true caption; {} for another task."""
  if row.task != "captioning" or not row.triplet.answer:
    return {}
  return captioning.parse(row.triplet.answer).fields


def field_texts(rows: Sequence[Row]) -> list[FieldTexts]:
  """Returns what the captions of rows say, field by field."""
  texts = collections.defaultdict(list)
  for row in rows:
    for name, text in fields_of(row).items():
      texts[name].append(text)
  found = []
  for name in captioning.FIELDS:
    if not (those := texts[name]):
      continue
    counts = collections.Counter(those)
    lengths = [len(text.split()) for text in those]
    found.append(
      FieldTexts(
        name=name,
        captions=len(those),
        distinct=len(counts),
        unknown=sum("unknown" in text.lower() for text in those),
        words=(min(lengths), statistics.median(lengths), max(lengths)),
        common=counts.most_common(MOST_COMMON),
      )
    )
  return found
