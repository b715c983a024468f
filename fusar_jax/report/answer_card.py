"""HTML card of one answer: image with boxes, question, truth and prediction.

True boxes are drawn as corners, predicted boxes as frames, and false positives
as dashed frames. Shape and colour carry the same information.
"""

from collections.abc import Sequence

from fusar_jax.report.answers import Answer
from fusar_jax.report.box_colours import PREDICTED_COLOUR, TRUE_COLOUR
from fusar_jax.report.choice import Chosen
from fusar_jax.report.picture_store import Picture
from fusar_jax.report.sample_card import escape
from fusar_jax.tasks import captioning

NO_TARGET, NOTHING = "no target", "nothing"
# Most characters shown of a text, and the length from which it scrolls.
_MOST_TEXT, _LONG_TEXT = 2000, 300

STYLE = f"""
.answer {{ background: var(--panel); border-radius: 6px; overflow: hidden;
  content-visibility: auto; contain-intrinsic-size: auto 34rem; }}
.answer > svg {{ display: block; width: 100%; background: #000; }}
.answer > div {{ padding: 0.7rem 0.9rem 0.9rem; }}
.answer details {{ border: 0; padding: 0; font-size: 0.87rem; }}
.answer dl {{ margin: 0.5rem 0 0; display: grid; gap: 0.15rem 0.7rem;
  grid-template-columns: max-content 1fr; font-size: 0.87rem; }}
.answer dt {{ color: var(--quiet); }}
.answer dd {{ margin: 0; white-space: pre-wrap; overflow-wrap: anywhere;
  max-height: 8rem; overflow-y: auto; }}
.answer ins, .answer del {{ display: block; text-decoration: none; }}
.answer del {{ color: var(--error); }}
.true {{ stroke: rgb{TRUE_COLOUR}; }}
.said {{ stroke: rgb{PREDICTED_COLOUR}; }}
.alarm {{ stroke-dasharray: 5 3; }}
.answer :is(.true, .said), .key :is(.true, .said) {{ fill: none;
  stroke-width: 2; vector-effect: non-scaling-stroke; }}
.key svg {{ width: 1.7em; height: 1.7em; vertical-align: -0.5em;
  background: #000; border-radius: 3px; }}
.key span {{ white-space: nowrap; margin-right: 1em; }}
"""

LEGEND = (
  '<span class="key">'
  '<span><svg viewBox="0 0 20 20" aria-hidden="true"><path class="true"'
  ' d="M8 3H3V8M12 3H17V8M8 17H3V12M12 17H17V12"/></svg> true</span>'
  '<span><svg viewBox="0 0 20 20" aria-hidden="true"><path class="said"'
  ' d="M4 4h12v12h-12z"/></svg> predicted</span>'
  '<span><svg viewBox="0 0 20 20" aria-hidden="true"><path class="said alarm"'
  ' d="M4 4h12v12h-12z"/></svg> false positive</span></span>'
)


def classes_of(answer: Answer) -> tuple[str, ...]:
  """Returns the values of the class filter that match the card."""
  names = (name.replace("|", "/") for name in answer.classes if name)
  return tuple(names) or (NO_TARGET,)


def errors_of(answer: Answer) -> tuple[str, ...]:
  """Returns the values of the error filter that match the card."""
  return answer.errors or (NOTHING,)


def card(item: Chosen, picture: Picture | None) -> str:
  """Returns the card's HTML; without a picture, boxes are drawn on black."""
  answer = item.answer
  if answer.right:
    verdict = '<span class="good">✓ right</span>'
  else:
    verdict = f'<span class="error">✗ {escape(", ".join(answer.errors))}</span>'
  return (
    f'<article class="answer" data-task="{escape(answer.task)}"'
    f' data-classes="{escape("|".join(classes_of(answer)))}"'
    f' data-errors="{escape("|".join(errors_of(answer)))}"'
    f' data-kind="{item.kind}">'
    f"{_picture(answer, picture)}<div><h3>{escape(answer.id)}"
    f'<span class="task">{escape(answer.task)}</span></h3>'
    f'{verdict} <span class="quiet">{item.kind}</span>'
    f"<details><summary>question</summary>{_cut(answer.question)}</details>"
    f"{_words(answer)}{_unread(answer)}</div></article>"
  )


def _unread(answer: Answer) -> str:
  if answer.error is None:
    return ""
  return f'<p class="error">not read: {_cut(answer.error)}</p>'


def _cut(text: str) -> str:
  if len(text) <= _MOST_TEXT:
    return escape(text)
  more = len(text) - _MOST_TEXT
  return f"{escape(text[:_MOST_TEXT])}… <i>({more} more characters)</i>"


def _words(answer: Answer) -> str:
  """Returns truth and prediction; captions are compared field by field."""
  lines = [
    ("true", _cut(answer.truth), len(answer.truth)),
    ("predicted", _cut(answer.said) or "–", len(answer.said)),
  ]
  if answer.task == "captioning" and answer.error is None:
    said = captioning.parse(answer.said).fields
    lines = [
      (name, _field(text, said.get(name, "–")), 0)
      for name, text in captioning.parse(answer.truth).fields.items()
    ]
  # Texts that scroll are focusable, so that keys can scroll them.
  scrolls = (' tabindex="0"' * (n > _LONG_TEXT) for _, _, n in lines)
  return "<dl>{}</dl>".format(
    "".join(
      f"<dt>{name}</dt><dd{focus}>{text}</dd>"
      for (name, text, _), focus in zip(lines, scrolls)
    )
  )


def _field(true: str, said: str) -> str:
  if said.lower() == true.lower():
    return f"✓ {_cut(said)}"
  return f"<del>✗ {_cut(said)}</del><ins>true: {_cut(true)}</ins>"


def _picture(answer: Answer, picture: Picture | None) -> str:
  # The view box is the coordinate system of the boxes; the image is scaled
  # to it.
  shape = answer.size or (picture.shape if picture else None)
  if shape is None or not (
    picture or len(answer.true) or len(answer.predicted)
  ):
    return ""
  h, w = shape
  unit = max(h, w) / 336
  marks = [
    _mark("true", "true", label, _corners(box, 3 * unit))
    for box, label in zip(answer.true.boxes.tolist(), answer.true.labels)
  ]
  given = answer.predicted
  marks += [
    _mark("said", "predicted", label, _frame(box))
    if hit
    else _mark("said alarm", "false positive", label, _frame(box))
    for box, label, hit in zip(given.boxes.tolist(), given.labels, answer.hit)
  ]
  told = (
    f"{answer.id}: {len(answer.true)} true boxes, {len(given)} predicted"
    f"{f', {picture.anchors} anchors' if picture and picture.dots else ''}"
  )
  under = dots = ""
  if picture:
    fitted = f'transform="scale({w} {h})"'
    under = f'<use href="#{picture.name}" {fitted}/>'
    if picture.dots:
      dots = f'<use class="anchors" href="#{picture.dots}" {fitted}/>'
  return (
    f'<svg viewBox="0 0 {w} {h}" role="img"><title>{escape(told)}</title>'
    f"{under}{dots}{''.join(marks)}</svg>"
  )


def _mark(kind: str, told: str, label: str, d: str) -> str:
  return (
    f'<path class="{kind}" d="{d}"><title>{told}: {escape(label)}</title>'
    "</path>"
  )


def _frame(box: Sequence[float]) -> str:
  x1, y1, x2, y2 = box
  return f"M{x1:.1f} {y1:.1f}H{x2:.1f}V{y2:.1f}H{x1:.1f}Z"


def _corners(box: Sequence[float], out: float) -> str:
  """Returns four corners just outside the box, clear of predicted frames."""
  x1, y1, x2, y2 = box[0] - out, box[1] - out, box[2] + out, box[3] + out
  a, b = (x2 - x1) / 4, (y2 - y1) / 4
  return "".join(
    f"M{x + i * a:.1f} {y:.1f}H{x:.1f}V{y + j * b:.1f}"
    for x, i in ((x1, 1), (x2, -1))
    for y, j in ((y1, 1), (y2, -1))
  )
