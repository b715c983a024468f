"""Table of scores with 95 % intervals, baselines and published values.

Each row is one score, with a strip that shows whether intervals overlap, and
the value published on the authors' own, unreleased data.

Published: FUSAR-GPT (arXiv 2602.19190), about 198 images, so each of their
numbers has a 95 % interval of about +/- 7 points.
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

from fusar_jax.report.sample_card import escape

# The main scores of each task; metrics.json contains all.
HEADLINE = {
  "counting": ("accuracy", "within_1", "mae"),
  "grounding": ("acc@100", "acc@50", "top1"),
  "classification": ("accuracy", "coarse_accuracy"),
  "captioning": ("accuracy", "word_f1"),
  "detection": ("f1@0.25", "precision@0.25", "recall@0.25", "f1@0.5"),
}
# Scores that are shown only if metrics.json has them.
_MORE = {
  "classification": ("invalid",),
  "captioning": ("bleu_4", "rouge_l", "cider"),
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
_PUBLISHED = "published, other data: Qwen2.5-VL-7B fine-tuned / FUSAR-GPT"
# Scores that are not shares of 1.
_PLAIN = ("mae", "cider")
_WIDTH = 150

STYLE = """
.scores thead th { vertical-align: bottom; }
.scores td { white-space: nowrap; padding-left: 1.4rem; }
.scores .name { text-align: left; }
.scores .published { white-space: normal; min-width: 10rem;
  color: var(--quiet); }
.scores svg { display: block; width: 9.5rem; height: 1.3rem; }
/* On a phone a score is a block, and each of its cells names its column. */
@media (max-width: 40rem) { body { padding: 1.5rem 1rem 4rem; }
  .scores, .scores :is(tbody, tr, td, tbody th) { display: block; }
  .scores thead { display: none; }
  .scores :is(td, tbody th) { border: 0; padding: 0.1rem 0; }
  .scores tr { border-bottom: 1px solid var(--line); padding: 0.5rem 0; }
  .scores tbody th { font-size: 1rem; font-weight: 600; padding-top: 1rem; }
  .scores th br { display: none; }
  .scores tbody th .quiet { font-weight: 400; margin-left: 0.5rem; }
  .scores .name { font-weight: 600; }
  .scores td:not(.name) { display: flex; flex-wrap: wrap; gap: 0 0.8rem;
    justify-content: space-between; align-items: baseline; }
  .scores td:not(.name):empty { display: none; }
  .scores td:not(.name)::before { content: attr(data-column);
    color: var(--quiet); font-size: 0.87rem; text-align: left; }
  .scores .published { min-width: 0; }
  .scores td:not(.name) > * { margin-left: auto; } }
.strip { color: var(--accent); }
.strip .ground { stroke: var(--line); }
.strip .other { stroke: var(--warning); fill: none; stroke-width: 1.6; }
"""


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
    for name, value, interval in _told(task, scores)
  )


def _told(task: str, scores: Mapping) -> list[tuple[str, float, Sequence]]:
  intervals = scores["ci95"]
  names = [*HEADLINE.get(task, intervals)]
  names += [name for name in _MORE.get(task, ()) if name in intervals]
  told = [(name, scores[name], intervals[name]) for name in names]
  # COCO's average precision, if every box has a confidence score.
  coco = scores.get("coco", {"ci95": {}})
  return told + [(f"coco {n}", coco[n], ci) for n, ci in coco["ci95"].items()]


def score_table(
  scores: Sequence[Score], baselines: Mapping[str, Sequence[Score]]
) -> str:
  """Returns the table's HTML.

  Args:
    scores: of the model, in row order.
    baselines: column name -> scores; a missing score leaves its cell empty.
  """
  others = {
    column: {(s.task, s.name): s for s in given}
    for column, given in baselines.items()
  }
  published = any((s.task, s.name) in PUBLISHED for s in scores)
  heads = ["this model", *others, "95 % intervals"]
  cells = '<th></th><th class="name">score</th>' + "".join(
    f"<th>{escape(head)}</th>" for head in heads
  )
  if published:
    cells += f'<th class="published">{_PUBLISHED}</th>'
  lines = []
  for task, group in itertools.groupby(scores, lambda score: score.task):
    rows = [_row(score, others, heads, published) for score in group]
    head = _task(task, next(s for s in scores if s.task == task), len(rows))
    lines += [f"<tr>{head}{rows[0]}</tr>"]
    lines += [f"<tr>{row}</tr>" for row in rows[1:]]
  return (
    '<div class="scroll" tabindex="0" role="region" aria-label="scores">'
    f'<table class="scores"><thead><tr>{cells}</tr></thead>'
    f"<tbody>{''.join(lines)}</tbody></table></div>"
  )


def _task(task: str, score: Score, rows: int) -> str:
  cut = ""
  if score.truncated is not None:
    cut = f",<br>{100 * score.truncated:.1f} % truncated"
  return (
    f'<th rowspan="{rows}">{escape(task)}<br><span class="quiet">n {score.n}, '
    f"<br>{100 * score.unread:.1f} % unread{cut}</span></th>"
  )


def _row(
  score: Score, others: Mapping, heads: Sequence[str], published: bool
) -> str:
  key = (score.task, score.name)
  beside = [given.get(key) for given in others.values()]
  cells = [
    f'<td class="name">{escape(score.name)}</td>',
    _cell(heads[0], f"<b>{interval_text(score)}</b>"),
    *(
      _cell(head, f"<span>{interval_text(other)}</span>" if other else "")
      for head, other in zip(heads[1:], beside)
    ),
    _cell("", _strip(score, [other for other in beside if other])),
  ]
  if published:
    values = " / ".join(PUBLISHED.get(key, ()))
    values = f"<span>{values}</span>" if values else ""
    cells.append(_cell(_PUBLISHED, values, ' class="published"'))
  return "".join(cells)


def _cell(column: str, html: str, more: str = "") -> str:
  return f'<td{more} data-column="{escape(column)}">{html}</td>'


def interval_text(score: Score) -> str:
  """Returns e.g. "53.3 (40.9-65.4)", in percent except for _PLAIN scores."""
  if score.name in _PLAIN:
    return f"{score.value:.2f} ({score.low:.2f}-{score.high:.2f})"
  return (
    f"{100 * score.value:.1f} ({100 * score.low:.1f}-{100 * score.high:.1f})"
  )


def _strip(score: Score, others: Sequence[Score]) -> str:
  """Returns an SVG: score as a dot, baselines as rings, intervals as lines."""
  top = 1.0
  if score.name in _PLAIN:
    top = max(s.high for s in (score, *others)) or 1.0

  def place(value):
    return f"{5 + (_WIDTH - 10) * min(value / top, 1):.1f}"

  marks = [
    f'<path class="ground" d="M5 10H{_WIDTH - 5}M5 7v6M{_WIDTH - 5} 7v6"/>'
  ]
  for k, other in enumerate(others):
    y = 15 if k % 2 else 5
    marks.append(
      f'<path class="other" d="M{place(other.low)} {y}H{place(other.high)}"/>'
      f'<circle class="other" cx="{place(other.value)}" cy="{y}" r="2.6"/>'
    )
  return (
    f'<svg class="strip" viewBox="0 0 {_WIDTH} 20" role="img">'
    f"<title>{interval_text(score)} on 0 to {_end(score, top)}</title>"
    f"{''.join(marks)}"
    f'<path stroke="currentColor" stroke-width="2.4"'
    f' d="M{place(score.low)} 10H{place(score.high)}"/>'
    f'<circle fill="currentColor" cx="{place(score.value)}" cy="10" r="3.8"/>'
    "</svg>"
  )


def _end(score: Score, top: float) -> str:
  return f"{top:.2f}" if score.name in _PLAIN else "100"
