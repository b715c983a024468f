"""An evaluation on one page: scores, figures, answers with pictures, origin.

One HTML file that needs no network and no other file: pictures are embedded,
figures are SVG. It reads on a phone, in light and dark, and by keyboard; its
only script filters the gallery, and without it everything is seen.
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
  """Writes the page, whole or not at all.

  The same arguments give the same bytes. What is empty has no section.

  Args:
    path: of the HTML file; its folder is made.
    title: plain text.
    scores: of the model, of `score_table.read_scores`.
    baselines: by name, e.g. {"most common answer": ...}; shown beside.
    samples: all answers there are; figures count them all, and the page shows
      the best, the worst and random ones of each task.
    curves: of the runs, oldest first, of `curves.read_curve`.
    provenance: JSON values by name, of `lineage.records` and the like.

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
  beside = " Rings on the strips are the baselines." if baselines else ""
  return (
    '<p class="quiet">Percent with 95 % intervals; mae, the mean error of'
    " counts, in targets, and cider from 0 to 10. An answer that cannot be read"
    " counts as empty."
    f"{beside}</p><p><strong>Published numbers are of other data and cannot be"
    " compared with these:</strong> the authors scored about 198 images of"
    " their own, so that each of their numbers lies within about ± 7 points."
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
      " Anchors: like colours are like ground, by the three directions in which"
      " the AlphaEarth vectors of this page differ most; at most"
      f" {picture_store.MOST_ANCHORS} dots an image."
    )
  return (
    f'<p class="quiet">{len(kept)} of {len(samples)} answers: of each task'
    " the best, the worst and random ones. Right means exactly right; of boxes,"
    f" each found at IoU 0.25 and none too many.{anchors}</p>"
    f'<p class="quiet">{answer_card.LEGEND}</p>'
    f"{gallery.gallery(kept, store)}"
  )


def _curves(curves: Sequence[Curve]) -> str:
  figures = "".join(map(curves_lib.figure, curves))
  if not figures:
    return ""
  return (
    '<p class="quiet">Loss of the answers by step; the axis is logarithmic.'
    f'</p><div class="plots">{figures}</div>'
  )


def _provenance(provenance: Mapping[str, Any]) -> str:
  return "".join(
    f"<details><summary>{escape(name)}</summary>"
    f"<pre>{escape(json.dumps(value, indent=2, ensure_ascii=False))}</pre>"
    "</details>"
    for name, value in provenance.items()
  )
