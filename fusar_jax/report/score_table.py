"""Table of scores with 95 % intervals, baselines and published values.

Each row is one score, with a strip that shows whether intervals overlap, and
the value published on the authors' own, unreleased data.

Published: FUSAR-GPT (arXiv 2602.19190), about 198 images, so each of their
numbers has a 95 % interval of about +/- 7 points.
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

from fusar_jax.report.metric_names import in_words

# The main scores of each task; metrics.json contains all.
HEADLINE = {
  "counting": ("accuracy", "within_1", "mae"),
  "grounding": ("acc@100", "acc@50", "top1"),
  "classification": ("accuracy", "coarse_accuracy"),
  "captioning": ("accuracy", "word_f1"),
  "detection": ("f1@0.25", "precision@0.25", "recall@0.25", "f1@0.5"),
  "vqa": ("accuracy", "exact", "sarlang_substring"),
  "free-captioning": tuple(
    f"{prefix}{name}"
    for prefix in ("", "raw_")
    for name in ("bleu_1", "bleu_4", "rouge_l", "cider")
  ),
}
# Scores that are shown only if metrics.json has them.
MORE = {
  "classification": ("invalid",),
  "captioning": ("bleu_4", "rouge_l", "cider"),
  "vqa": ("option", "yes_no", "number", "text", "sarlang_undecided"),
}
# Percent: Qwen2.5-VL-7B fine-tuned, FUSAR-GPT.
PUBLISHED = {
  ("counting", "accuracy"): ("34.85", "52.53"),
  ("grounding", "acc@100"): ("30.81", "52.02"),
  ("grounding", "acc@50"): ("57.07", "79.29"),
  ("grounding", "top1"): ("78.28", "91.41"),
  ("classification", "coarse_accuracy"): (
    "plane 64.66, ship 55.19",
    "plane 76.85, ship 67.42",
  ),
  ("detection", "f1@0.25"): ("47.1", "74.8"),
  ("detection", "f1@0.5"): ("27.7", "58.7"),
}
PUBLISHED_HEAD = "published, other data: Qwen2.5-VL-7B fine-tuned / FUSAR-GPT"
# Scores that are not shares; all others are shown in percent.
PLAIN = ("mae", "cider", "raw_cider")


@dataclasses.dataclass(frozen=True)
class Score:
  """One number of a task.

  Attributes:
    task, name: as in metrics.json, e.g. "detection" and "f1@0.25".
    value: a share in [0, 1]; "mae" is in targets, "cider" up to 10.
    low, high: the 95 % interval.
    n: number of rows.
    unread: share of these rows whose answer could not be parsed.
    truncated: share of these rows whose answer reached the limit of new
      tokens; None: unknown.
  """

  task: str
  name: str
  value: float
  low: float
  high: float
  n: int
  unread: float = 0.0
  truncated: float | None = None


def read_scores(metrics: Mapping) -> tuple[Score, ...]:
  """Returns the main scores of all tasks in a metrics.json.

  The HEADLINE tasks come first. For other tasks, such as SARChat's, every score
  with an interval is included.
  """
  others = [task for task in metrics if task not in HEADLINE]
  found = {task: metrics.get(task) for task in (*HEADLINE, *others)}
  return tuple(
    Score(
      task,
      name,
      value,
      *interval,
      n=scores["n"],
      unread=scores["parse_failure_rate"],
      truncated=scores.get("truncated_share"),
    )
    for task, scores in found.items()
    if isinstance(scores, Mapping) and "ci95" in scores
    for name, value, interval in _headline(task, scores)
  )


def _headline(task: str, scores: Mapping) -> list[tuple[str, float, Sequence]]:
  intervals = scores["ci95"]
  names = [*HEADLINE.get(task, intervals)]
  names += [name for name in MORE.get(task, ()) if name in intervals]
  found = [(name, scores[name], intervals[name]) for name in names]
  # COCO's average precision, if every box has a confidence score.
  coco = scores.get("coco", {"ci95": {}})
  return found + [(f"coco {n}", coco[n], ci) for n, ci in coco["ci95"].items()]


@dataclasses.dataclass(frozen=True)
class Row:
  """One line of the table.

  Attributes:
    score: of the model.
    baselines: column name -> score, or None if it is missing.
    published: text of the last column, or "".
    blind: score of the strongest blind baseline; None: not tested.
  """

  score: Score
  baselines: Mapping[str, Score | None]
  published: str
  blind: float | None = None

  @property
  def name(self) -> str:
    """Name of the score in words."""
    return in_words(self.score.task, self.score.name)

  @property
  def shown(self) -> tuple[Score, ...]:
    """The scores on the strip: the model's, then the baselines'."""
    return (self.score, *filter(None, self.baselines.values()))

  @property
  def top(self) -> float:
    """Score at the right end of the strip."""
    if self.score.name not in PLAIN:
      return 1.0
    highest = max(score.high for score in self.shown)
    return max(highest, self.blind or 0.0) or 1.0

  @property
  def top_text(self) -> str:
    """The right end as text, e.g. "100" percent."""
    return f"{self.top:.2g}" if self.score.name in PLAIN else "100"


def score_groups(
  scores: Sequence[Score],
  baselines: Mapping[str, Sequence[Score]],
  blind: Mapping[tuple[str, str], float] | None = None,
) -> list[tuple[str, list[Row]]]:
  """Returns (task, its rows) of the table.

  Args:
    scores: of the model, in row order.
    baselines: column name -> scores, some of which may be missing.
    blind: (task, score) -> that of the strongest blind baseline.
  """
  found = {
    column: {(s.task, s.name): s for s in given}
    for column, given in baselines.items()
  }
  rows = [
    Row(
      score,
      {column: given.get(key) for column, given in found.items()},
      " / ".join(PUBLISHED.get(key, ())),
      (blind or {}).get(key),
    )
    for score in scores
    for key in [(score.task, score.name)]
  ]
  groups = itertools.groupby(rows, lambda row: row.score.task)
  return [(task, list(group)) for task, group in groups]


def interval_text(score: Score) -> str:
  """Returns e.g. "53.3 (40.9-65.4)", in percent except for PLAIN scores."""
  if score.name in PLAIN:
    return f"{score.value:.2f} ({score.low:.2f}-{score.high:.2f})"
  return (
    f"{100 * score.value:.1f} ({100 * score.low:.1f}-{100 * score.high:.1f})"
  )
