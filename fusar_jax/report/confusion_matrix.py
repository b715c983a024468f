"""Which class is taken for which: a table, its cells shaded by their share.

Rows are true classes, columns what was answered; each cell says how many, and
the shade how large a part of its row that is. What was answered and is no true
class, and what could not be read, have columns of their own.
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
  """Returns (true classes, columns, answers by (true class, column)).

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
  """Returns the table as a figure; "" without classification answers."""
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
    '<figure class="plot wide"><h3>Confusion of classes</h3>'
    '<div class="scroll" tabindex="0" role="region"'
    ' aria-label="confusion of classes"><table class="confusion"><thead>'
    f"<tr><th>true ↓ answered →</th>{head}</tr></thead><tbody>{rows}</tbody>"
    "</table></div><figcaption>Answers; framed: right. The stronger the shade,"
    " the larger the share of its row."
    f"</figcaption></figure>"
  )


def _cell(name, column, columns, counts) -> str:
  n = counts[name, column]
  part = n / sum(counts[name, other] for other in columns)
  same = ' class="same"' if name == column else ""
  return (
    f'<td{same} style="--share:{part:.2f}" title="{escape(name)} answered as'
    f' {escape(column)}: {n} ({100 * part:.0f} %)">{n or "·"}</td>'
  )
