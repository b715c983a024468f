"""HTML report of an evaluation: scores, figures, answers, provenance.

The page supports phones, light and dark schemes, and keyboard navigation. Its
script filters the gallery, shows it in batches and enlarges images; without
JavaScript every card is visible. CSS alone toggles boxes and anchors.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fusar_jax.data.triplets import write_text
from fusar_jax.report import (
  baseline_table,
  breakdowns,
  choice,
  count_chart,
  picture_store,
  precision_recall,
  score_table,
)
from fusar_jax.report import (
  curves as curves_lib,
)
from fusar_jax.report.answer_card import Card
from fusar_jax.report.answers import Answer
from fusar_jax.report.baselines import Tested
from fusar_jax.report.charts import Chart
from fusar_jax.report.confusion_matrix import confusion
from fusar_jax.report.curves import Curve
from fusar_jax.report.render import render
from fusar_jax.report.score_table import Score


def write_report(
  path: str | os.PathLike,
  *,
  title: str,
  scores: Sequence[Score],
  baselines: Mapping[str, Sequence[Score]],
  samples: Sequence[Answer],
  curves: Sequence[Curve],
  provenance: Mapping[str, Any],
  tested: Sequence[Tested] = (),
) -> None:
  """Writes the page atomically.

  The same arguments give the same bytes. Empty sections are left out.

  Args:
    path: of the HTML file; its folder is created.
    title: plain text.
    scores: of the model, from `score_table.read_scores`.
    baselines: name -> scores, e.g. {"most common answer": ...}, shown for
      comparison.
    samples: all answers. Figures use all of them; the gallery shows the best,
      the worst and random ones of each task.
    curves: of the runs, oldest first, from `curves.read_curve`.
    provenance: name -> JSON value, such as `lineage.records`.
    tested: tests against the strongest baselines, see `report.baselines`.

  Raises:
    FileNotFoundError, ValueError: an image or anchors that cannot be read.
  """
  kept, pictures = picture_store.fill(choice.choose(samples))
  cards = [Card.of(item, pictures.get(item.answer.image_name)) for item in kept]
  page = render(
    "evaluation.html.j2",
    scripts=("enlarge.js", "report.js") if samples else (),
    title=title,
    score_groups=score_table.score_groups(
      scores, baselines, baseline_table.strongest(tested)
    ),
    baselines=list(baselines),
    baseline_groups=baseline_table.groups(tested),
    interval_text=score_table.interval_text,
    published_head=score_table.PUBLISHED_HEAD,
    charts=figures(samples),
    confusion=confusion(samples),
    number_of_answers=len(samples),
    cards=cards,
    pictures=list(pictures.values()),
    most_anchors=picture_store.MOST_ANCHORS,
    filters={
      "task": dict.fromkeys(card.answer.task for card in cards),
      "classes": sorted({name for card in cards for name in card.classes}),
      "errors": sorted({name for card in cards for name in card.errors}),
      "kind": choice.KINDS,
    },
    curves=[chart for curve in curves if (chart := curves_lib.chart(curve))],
    provenance=provenance,
  )
  write_text(Path(path), page)


def figures(answers: Sequence[Answer]) -> list[Chart]:
  """Returns the charts of all answers; tasks without answers have none."""
  found = (
    precision_recall.chart(answers),
    count_chart.chart(answers),
    *breakdowns.charts(answers),
  )
  return [chart for chart in found if chart]
