"""HTML report of an evaluation: scores, figures, answers, provenance.

The page is a single self-contained file: images are embedded and figures are
SVG. It supports phones, light and dark schemes, and keyboard navigation. Its
only script filters the gallery; without JavaScript everything is visible.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fusar_jax.data.triplets import write_text
from fusar_jax.report import (
  answer_card,
  choice,
  figures,
  gallery,
  picture_store,
  score_table,
)
from fusar_jax.report import curves as curves_lib
from fusar_jax.report.answers import Answer
from fusar_jax.report.curves import Curve
from fusar_jax.report.document import document
from fusar_jax.report.sample_card import escape
from fusar_jax.report.score_table import Score

_STYLE = """
nav { display: flex; flex-wrap: wrap; gap: 0.3rem 1.2rem; margin-top: 0.6rem; }
pre { overflow-x: auto; background: var(--panel); border-radius: 4px;
  padding: 0.8rem 1rem; font: 12px/1.5 ui-monospace, "SF Mono", Menlo,
  Consolas, monospace; }
"""


def write_report(
  path: str | os.PathLike,
  *,
  title: str,
  scores: Sequence[Score],
  baselines: Mapping[str, Sequence[Score]],
  samples: Sequence[Answer],
  curves: Sequence[Curve],
  provenance: Mapping[str, Any],
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

  Raises:
    FileNotFoundError, ValueError: an image or anchors that cannot be read.
  """
  sections = {
    "Scores": _scores(scores, baselines),
    "Figures": figures.figures(samples),
    "Samples": _samples(samples),
    "Training": _curves(curves),
    "Provenance": _provenance(provenance),
  }
  sections = {name: html for name, html in sections.items() if html}
  links = "".join(f'<a href="#{name.lower()}">{name}</a>' for name in sections)
  styles = (score_table, figures, gallery, curves_lib)
  body = "\n".join(
    [
      f"<header><h1>{escape(title)}</h1><nav>{links}</nav></header>\n<main>",
      *(
        f'<section id="{name.lower()}"><h2>{name}</h2>{html}</section>'
        for name, html in sections.items()
      ),
      "</main>",
    ]
  )
  page = document(
    title,
    body,
    style=_STYLE + "".join(part.STYLE for part in styles),
    script=gallery.SCRIPT if "Samples" in sections else "",
  )
  write_text(Path(path), page)


def _scores(
  scores: Sequence[Score], baselines: Mapping[str, Sequence[Score]]
) -> str:
  if not scores:
    return ""
  beside = " Circles on the strips are the baselines." if baselines else ""
  return (
    '<p class="quiet">Percent with 95 % intervals, except mae (mean absolute'
    " error of counts, in targets) and cider (0 to 10). Answers that cannot be"
    " parsed count as empty."
    f"{beside}</p><p><strong>Published numbers come from other data and are"
    " not comparable:</strong> the authors evaluated about 198 images of their"
    " own, so each of their numbers has a 95 % interval of about ± 7 points."
    "</p>"
    f"{score_table.score_table(scores, baselines)}"
  )


def _samples(samples: Sequence[Answer]) -> str:
  if not samples:
    return ""
  kept, store = picture_store.fill(choice.choose(samples))
  anchors = ""
  if picture_store.has_anchors([item.answer for item in kept], store):
    anchors = (
      " Anchors: similar colours mean similar ground (first three principal"
      " components of the AlphaEarth vectors on this page); at most"
      f" {picture_store.MOST_ANCHORS} dots per image."
    )
  return (
    f'<p class="quiet">{len(kept)} of {len(samples)} answers: the best,'
    " the worst and random ones of each task. Right means exactly right; for"
    " detection, every box found at IoU 0.25 without false positives."
    f"{anchors}</p>"
    f'<p class="quiet">{answer_card.LEGEND}</p>'
    f"{gallery.gallery(kept, store)}"
  )


def _curves(curves: Sequence[Curve]) -> str:
  figures = "".join(map(curves_lib.figure, curves))
  if not figures:
    return ""
  return (
    '<p class="quiet">Loss by step; the loss axis is logarithmic.'
    f'</p><div class="plots">{figures}</div>'
  )


def _provenance(provenance: Mapping[str, Any]) -> str:
  return "".join(
    f"<details><summary>{escape(name)}</summary>"
    f"<pre>{escape(json.dumps(value, indent=2, ensure_ascii=False))}</pre>"
    "</details>"
    for name, value in provenance.items()
  )
