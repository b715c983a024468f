"""Captioning: the eight fields of a FUSAR-GEOVL description, in their order.

Stage 1 trains on these texts. Each field is a sentence with a fixed beginning,
so a caption can be parsed field by field.
"""

import dataclasses
import re
from collections.abc import Sequence

FIELDS = {
  "Terrain": "The terrain is classified as",
  "Functionality": "The area functionality is described as",
  "Distribution": "Functional distribution:",
  "Layout": "Spatial layout:",
  "Boundary": "Boundary features:",
  "Buildings": "Building presence:",
  "Roads": "Road presence:",
  "Water": "Water presence:",
}
# Only at a sentence start: "mixed spatial layout: ..." occurs inside sentences.
# The space before it ends at a newline, which keeps long gaps linear in time.
# "^" would add an alternative to try at each character.
_BEGINNING = re.compile(
  rf"[.;\n][^\S\n]*({'|'.join(FIELDS.values())})", re.IGNORECASE
)
_FIELD = {text.lower(): name for name, text in FIELDS.items()}


@dataclasses.dataclass(frozen=True)
class Caption:
  """Fields parsed from a caption, by name; `error` is the reason if none."""

  fields: dict[str, str]
  error: str | None = None


def question(asked: Sequence[str] = tuple(FIELDS)) -> str:
  """Returns the question of this package; the published one is unknown.

  Args:
    asked: names of FIELDS to describe, at least one; listed in fixed order.

  Example:
    >>> question(["Water", "Terrain"])
    'This is a SAR image. Please describe the scene: its terrain and water.'
  """
  *others, last = [name.lower() for name in FIELDS if name in asked]
  listed = f"{', '.join(others)} and {last}" if others else last
  return f"This is a SAR image. Please describe the scene: its {listed}."


def answer(fields: dict[str, str], asked: Sequence[str] = tuple(FIELDS)) -> str:
  """Returns the caption: beginning and text of each field, in fixed order.

  Args:
    fields: text of each of FIELDS, without the beginning; if a text already
      starts with it (as published records do), it is not repeated.
    asked: names of the fields to include; the others are omitted.

  Raises:
    ValueError: fields missing or unknown.
  """
  if set(fields) != set(FIELDS):
    missing = [name for name in FIELDS if name not in fields]
    unknown = sorted(set(fields) - set(FIELDS))
    raise ValueError(
      f"expected the fields {', '.join(FIELDS)}; missing {missing}, unknown"
      f" {unknown}."
    )
  sentences = []
  for name, beginning in FIELDS.items():
    if name not in asked:
      continue
    text = fields[name].strip().rstrip(".")
    if text.lower().startswith(beginning.lower()):
      text = text[len(beginning) :].strip()
    sentences.append(f"{beginning} {text}.")
  return " ".join(sentences)


def parse(text: str) -> Caption:
  """Parses the fields of a caption; the first of each name counts."""
  text = f"\n{text}"
  marks = list(_BEGINNING.finditer(text))
  fields = {}
  for mark, after in zip(marks, [*marks[1:], None]):
    end = after.start() if after else len(text)
    name = _FIELD[mark.group(1).lower()]
    fields.setdefault(name, text[mark.end() : end].strip().rstrip(".").strip())
  if not fields:
    return Caption({}, f"none of the eight fields in {text.strip()[:60]!r}")
  return Caption(fields)
