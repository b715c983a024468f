"""SARChat-Bench-2M: six tasks, whose answers are sets of statements.

Published (arXiv 2502.08168): the tasks, their tags, and their score, see
`fusar_jax.metrics.sarchat_scores`. An answer is parsed into:

  classification, identification  each category that is named
  description, grounding          each category with its cell of the 3 x 3 grid
  counting                        the number

and the boxes that it contains; referring has only these. Synonyms of regions
and categories are accepted.
"""

import bisect
import dataclasses
import re

from fusar_jax.tasks import boxes as boxes_lib
from fusar_jax.tasks import class_names, counting, grounding
from fusar_jax.tasks.boxes import Parsed

SUBTASKS = (
  "classification",
  "description",
  "counting",
  "grounding",
  "identification",
  "referring",
)
# Task names in rows.
TASKS = tuple(f"sarchat-{name}" for name in SUBTASKS)
CATEGORIES = ("ship", "aircraft", "car", "tank", "bridge", "harbor")
TAGS = {
  "count": "counting",
  "grounding": "grounding",
  "identify": "identification",
  "refer": "referring",
}
# The published test files of these distinguish single and several targets.
SPLIT = ("grounding", "identification", "referring")

_TAG = re.compile(r"\s*\[([a-z]+)\]", re.IGNORECASE)
# Box format of this project's importer; tagged boxes may have text between.
_N = r"\s*(-?\d{1,9}(?:\.\d{1,9})?)\s*"
_BRACKETS = re.compile(rf"\[{_N},{_N},{_N},{_N}\]")
_HAS_BOXES = re.compile(r"\{\s*<|<\|box|\[\s*[\[{]|\[\s*-?\d[\d.]*\s*,|bbox")
_INSIDE = re.compile(r"[\[{][^\[\]{}]*[\]}]")
_DENIAL = re.compile(r"\b(?:no|none|not)\b", re.IGNORECASE)
_KINDS = {class_names.coarse(name): name for name in CATEGORIES}
_NO_BOXES = Parsed(boxes_lib.as_boxes([]))


@dataclasses.dataclass(frozen=True, eq=False)
class Statements:
  """Statements parsed from an answer.

  Attributes:
    statements: categories, a number, or "category, cell"; "any" stands for a
      missing category, "anywhere" for a missing cell.
    boxes: in pixels of the row's coordinate size.
    error: the reason for a parse failure, or None.
  """

  statements: frozenset[str]
  boxes: Parsed = _NO_BOXES
  error: str | None = None


def task_of(question: str) -> str | None:
  """Returns the task of a question's tag, one of TASKS, or None.

  Classification and description have no tag: their rows must name the task.

  Example:
    >>> task_of("[refer] Where is the bridge?"), task_of("What is there?")
    ('sarchat-referring', None)
  """
  tag = _TAG.match(question)
  subtask = TAGS.get(tag[1].lower()) if tag else None
  return f"sarchat-{subtask}" if subtask else None


def parse(
  text: str, subtask: str, *, question: str = "", size=None
) -> Statements:
  """Parses an answer; never raises.

  Args:
    text: the answer, with boxes in any notation of `notations` within it.
    subtask: one of SUBTASKS.
    question: gives the category if the answer omits it.
    size: (height, width) that boxes are pixels of.

  Example:
    >>> found = parse("A boat at the upper left, two cars.", "grounding")
    >>> sorted(found.statements)
    ['car, anywhere', 'ship, top-left']
  """
  tag = _TAG.match(text)
  body = _tagged(text[tag.end() :] if tag else text)
  words, boxes = body, _NO_BOXES
  if _HAS_BOXES.search(body):
    boxes = boxes_lib.parse_complete(body, size)
    # Numbers and labels of boxes are not statements.
    words = "" if "bbox" in body else _INSIDE.sub(" ", body)
  if boxes.error:
    return Statements(frozenset(), error=boxes.error)
  found = frozenset(_READERS[subtask](words, question, boxes))
  if found or len(boxes) or _DENIAL.search(words):
    return Statements(found, boxes)
  if subtask == "description" and re.search(r"\w", words):
    return Statements(found, boxes)
  return Statements(found, boxes, f"nothing to be scored in {text[:60]!r}")


def count_boxes(text: str) -> int:
  """Returns the number of boxes written in a text."""
  return _tagged(text).count("{<")


def _tagged(text: str) -> str:
  return _BRACKETS.sub(r"{<\1><\2><\3><\4>}", text)


def _categories(text: str) -> list[tuple[int, str]]:
  """Returns (offset in the text, category) of each category named."""
  words = re.finditer(r"[a-z]+", text.lower())
  kinds = ((word.start(), class_names.coarse(word[0])) for word in words)
  return [(place, _KINDS[kind]) for place, kind in kinds if kind in _KINDS]


def _named(text: str, question: str, boxes: Parsed) -> set[str]:
  return {name for _, name in _categories(text)}


def _counted(text: str, question: str, boxes: Parsed) -> set[str]:
  stated = counting.parse(text)
  if stated.value is None and len(boxes):
    return {str(len(boxes))}
  return {str(stated.value)} if stated.error is None else set()


def _placed(text: str, question: str, boxes: Parsed) -> set[str]:
  """Pairs each cell with the last category before it, else the first one."""
  names, cells = _categories(text), grounding.find_cells(text)
  asked = {name for _, name in _categories(question)}
  unnamed = asked.pop() if len(asked) == 1 else "any"
  places, pairs = [place for place, _ in names], []
  for place, cell in cells:
    before = max(bisect.bisect(places, place) - 1, 0)
    name = names[before][1] if names else unnamed
    pairs.append((name, grounding.CELLS[cell]))
  located = {name for name, _ in pairs}
  pairs += [(name, "anywhere") for _, name in names if name not in located]
  return {f"{name}, {cell}" for name, cell in pairs}


_READERS = {
  "classification": _named,
  "description": _placed,
  "counting": _counted,
  "grounding": _placed,
  "identification": _named,
  "referring": lambda text, question, boxes: set(),
}
