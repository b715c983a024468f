"""The figures of an evaluation: where a model is right, and where it errs.

Each is drawn by a file of its own; a task that was not asked has none.
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
  """Returns the HTML of all figures that the answers have; "" of none.

  Args:
    answers: all that were scored, not only those that are shown.
  """
  drawn = [
    precision_recall.figure(answers),
    count_scatter.figure(answers),
    *breakdowns.figures(answers),
    confusion_matrix.figure(answers),
  ]
  drawn = "".join(html for html in drawn if html)
  return f'<div class="figures">{drawn}</div>' if drawn else ""
