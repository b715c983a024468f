"""All figures of an evaluation report.

Each figure has its own module. Tasks without answers have no figures.
"""

from collections.abc import Sequence

from fusar_jax.report import (
  axes,
  breakdowns,
  confusion_matrix,
  count_scatter,
  precision_recall,
)
from fusar_jax.report.answers import Answer

STYLE = axes.STYLE + confusion_matrix.STYLE + count_scatter.STYLE


def figures(answers: Sequence[Answer]) -> str:
  """Returns the HTML of all figures with data; "" if there are none.

  Args:
    answers: all scored answers, not only those shown as cards.
  """
  drawn = [
    precision_recall.figure(answers),
    count_scatter.figure(answers),
    *breakdowns.figures(answers),
    confusion_matrix.figure(answers),
  ]
  drawn = "".join(html for html in drawn if html)
  return f'<div class="figures">{drawn}</div>' if drawn else ""
