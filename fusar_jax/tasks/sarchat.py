"""SARChat-Bench-2M: six tasks, scored by Acc = TP / (TP + FP + FN).

Published (arXiv 2502.08168): the tasks, their tags, Acc, and that boxes are
matched at an IoU of 0.25 and 0.5. The unit of counting is unpublished. Here, an
answer is parsed into a set of statements. A statement that the true answer also
makes is a TP, any other an FP, and one that only the true answer makes an FN.
Counts are summed over the rows.

  classification, identification  each category that is named
  description, grounding          each category with its cell of the 3 x 3 grid
  counting                        the number

If true answers of a task contain boxes, they are matched one-to-one as in
detection: acc@0.25 and acc@0.5; referring has only these. `exact` is the share
of rows with all true statements (in referring, all boxes at 0.5) and no others.
For answers with one statement, `exact` is the accuracy; Acc counts a wrong one
twice, as an FP and an FN. Synonyms of regions and categories are accepted.
"""

import bisect
import dataclasses
import re
from collections.abc import Sequence

import numpy as np

from fusar_jax.metrics import intervals, text_metrics
from fusar_jax.tasks import boxes as boxes_lib
from fusar_jax.tasks import class_names, counting, detection, grounding
from fusar_jax.tasks.boxes import Parsed
from fusar_jax.tasks.predictions import Prediction, raise_bad

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
    said: categories, a number, or "category, cell"; "any" stands for a
      missing category, "anywhere" for a missing cell.
    boxes: in pixels of the row's coordinate size.
    error: the reason for a parse failure, or None.
  """

  said: frozenset[str]
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
    >>> sorted(parse("A boat at the upper left, two cars.", "grounding").said)
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
  said = frozenset(_READERS[subtask](words, question, boxes))
  if said or len(boxes) or _DENIAL.search(words):
    return Statements(said, boxes)
  if subtask == "description" and text_metrics.words(words):
    return Statements(said, boxes)
  return Statements(said, boxes, f"nothing to be scored in {text[:60]!r}")


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
  told = {name for name, _ in pairs}
  pairs += [(name, "anywhere") for _, name in names if name not in told]
  return {f"{name}, {cell}" for name, cell in pairs}


_READERS = {
  "classification": _named,
  "description": _placed,
  "counting": _counted,
  "grounding": _placed,
  "identification": _named,
  "referring": lambda text, question, boxes: set(),
}


def score(rows: list[Prediction]) -> tuple[dict, list[dict]]:
  """Scores rows of one of the six tasks.

  An unparsable answer has no statements and no boxes.

  Returns:
    Metrics `exact`, `acc` of statements, `acc@0.25` and `acc@0.5` of boxes, the
    latter if true answers contain boxes; for SPLIT the same for rows with a
    `single` target and with `several`; for descriptions the text scores; and
    one sample per row.

  Raises:
    ValueError: rows of several tasks or of an unknown one, or unparsable true
      answers.
  """
  tasks = {row.task for row in rows}
  if len(tasks) != 1 or not tasks <= set(TASKS):
    raise ValueError(
      f"expected rows of one of {', '.join(TASKS)}, got {sorted(tasks)}."
    )
  subtask = tasks.pop().removeprefix("sarchat-")
  truths, answers = (
    [
      parse(text, subtask, question=row.question, size=row.size)
      for row, text in pairs
    ]
    for pairs in ([(r, r.gt) for r in rows], [(r, r.text) for r in rows])
  )
  raise_bad(
    "true answers (gt) that cannot be read",
    [f"{row.where}: {t.error}" for row, t in zip(rows, truths) if t.error],
  )
  samples = [
    _sample(given, true, subtask) for given, true in zip(answers, truths)
  ]
  images = [row.image or row.id for row in rows]
  parts = [p for p in _PARTS if any(s[f"tp{p}"] + s[f"fn{p}"] for s in samples)]
  metrics = _summary(samples, images, parts)
  if subtask in SPLIT:
    targets = np.array([_targets(r, t) for r, t in zip(rows, truths)])
    for name, chosen in (("single", targets == 1), ("several", targets > 1)):
      if where := np.flatnonzero(chosen).tolist():
        metrics[name] = _summary(
          [samples[i] for i in where], [images[i] for i in where], parts
        )
  if subtask == "description":
    found = text_metrics.compare(
      ["" if a.error else row.text for row, a in zip(rows, answers)],
      [[row.gt] for row in rows],
    )
    values, ci95 = text_metrics.summary(found, images)
    metrics = {**metrics, **values, "ci95": {**metrics["ci95"], **ci95}}
  return metrics, samples


def _targets(row: Prediction, true: Statements) -> int:
  """Returns the number of targets in the question, else in the answer."""
  asked = _tagged(row.question).count("{<")
  return asked or max(len(true.boxes), len(true.said))


# Units of counting: statements, and boxes at each threshold.
_PARTS = ("", *(f"@{threshold}" for threshold in detection.THRESHOLDS))


def _sample(given: Statements, true: Statements, subtask: str) -> dict:
  iou = _matched(given.boxes.boxes, true.boxes.boxes)
  counts = {"": (len(given.said & true.said), len(given.said), len(true.said))}
  for threshold in detection.THRESHOLDS:
    hits = int((iou >= threshold).sum())
    counts[f"@{threshold}"] = hits, len(given.boxes), len(true.boxes)
  decisive = counts["@0.5" if subtask == "referring" else ""]
  return {
    "predicted": sorted(given.said),
    "true": sorted(true.said),
    "correct": given.error is None and len(set(decisive)) == 1,
    **{f"tp{part}": tp for part, (tp, _, _) in counts.items()},
    **{f"fp{part}": said - tp for part, (tp, said, _) in counts.items()},
    **{f"fn{part}": want - tp for part, (tp, _, want) in counts.items()},
    "parse_error": given.error,
  }


def _matched(predicted, true) -> np.ndarray:
  """Returns the IoU of each matched pair of boxes; ignores categories."""
  labels = [""] * len(predicted), [""] * len(true)
  return detection.match(predicted, labels[0], true, labels[1]).iou


def _summary(samples, images, parts: Sequence[str]) -> dict:
  columns, rules = [], {}
  for part in parts:
    k = len(columns)
    hits = np.array([s[f"tp{part}"] for s in samples])
    misses = np.array([s[f"fp{part}"] + s[f"fn{part}"] for s in samples])
    columns += [hits, hits + misses]
    rules[f"acc{part}"] = lambda s, k=k: intervals.ratio(
      s[..., k], s[..., k + 1]
    )
  right = np.array([s["correct"] for s in samples])
  metrics, ci95 = {}, {}
  if parts:
    sums = intervals.by_image(images, np.stack(columns, 1))
    metrics = {name: float(rule(sums.sum(0))) for name, rule in rules.items()}
    ci95 = intervals.bootstrap_all(sums, rules)
  n = len(samples)
  return {
    **metrics,
    "exact": intervals.share(right),
    "n": n,
    "ci95": {**ci95, "exact": intervals.wilson(right.sum(), n)},
    "parse_failure_rate": intervals.share(
      [s["parse_error"] is not None for s in samples]
    ),
  }
