"""Confusion matrix of classification answers, as a shaded HTML table.

Rows: ground truth; columns: prediction. Each cell shows its count, and its
shade shows its share of the row. Predictions outside the true classes and
answers that cannot be parsed have separate columns.
"""

import collections
from collections.abc import Sequence

from fusar_jax.report.answers import Answer
from fusar_jax.report.sample_card import escape

OTHER, UNREAD = "(other)", "(not read)"

STYLE = """
.plot .confusion { width: auto; border-collapse: separate;
  border-spacing: 2px; }
.confusion :is(th, td) { border: 0; padding: 0.25rem 0.5rem; }
.confusion thead th { vertical-align: bottom; text-align: center; }
.confusion thead th:first-child { text-align: right; }
.confusion thead span { writing-mode: vertical-rl; rotate: 180deg;
  color: var(--text); }
.confusion tbody th { text-align: right; }
.confusion td { min-width: 2.6rem; text-align: center; border-radius: 3px;
  background: color-mix(in srgb, var(--accent) calc(var(--share) * 55%),
    var(--panel)); }
.confusion .same { outline: 2px solid var(--text); outline-offset: -2px;
  font-weight: 600; }
figure.wide { grid-column: 1 / -1; }
"""


def counted(
  answers: Sequence[Answer],
) -> tuple[list[str], list[str], collections.Counter]:
  """Returns (true classes, columns, counts by (true class, column)).

  Args:
    answers: of the classification task.
  """
  names = sorted({answer.scored["true"] for answer in answers})
  counts = collections.Counter(
    (answer.scored["true"], _column(answer, names)) for answer in answers
  )
  told = {column for _, column in counts}
  extra = [column for column in (OTHER, UNREAD) if column in told]
  return names, [*names, *extra], counts


def _column(answer: Answer, names: Sequence[str]) -> str:
  if answer.error is not None:
    return UNREAD
  predicted = answer.scored["predicted"]
  return predicted if predicted in names else OTHER


def figure(answers: Sequence[Answer]) -> str:
  """Returns the table as an HTML figure; "" without classification answers."""
  answers = [answer for answer in answers if answer.task == "classification"]
  if not answers:
    return ""
  names, columns, counts = counted(answers)
  head = "".join(
    f'<th scope="col"><span>{escape(name)}</span></th>' for name in columns
  )
  rows = "".join(
    f'<tr><th scope="row">{escape(name)}</th>'
    + "".join(_cell(name, column, columns, counts) for column in columns)
    + "</tr>"
    for name in names
  )
  return (
    '<figure class="plot wide"><h3>Confusion matrix</h3>'
    '<div class="scroll" tabindex="0" role="region"'
    ' aria-label="confusion matrix"><table class="confusion"><thead>'
    f"<tr><th>true ↓ predicted →</th>{head}</tr></thead><tbody>{rows}</tbody>"
    "</table></div><figcaption>Number of answers; framed: correct. Shade:"
    " share of the row."
    f"</figcaption></figure>"
  )


def _cell(name, column, columns, counts) -> str:
  n = counts[name, column]
  part = n / sum(counts[name, other] for other in columns)
  same = ' class="same"' if name == column else ""
  return (
    f'<td{same} style="--share:{part:.2f}" title="{escape(name)} predicted as'
    f' {escape(column)}: {n} ({100 * part:.0f} %)">{n or "·"}</td>'
  )
