"""A gallery of answers: the best, the worst and random ones of each task.

Each card shows the image with true boxes as green corners and predicted ones
as orange frames, then question, truth and answer. A few lines of JavaScript
filter the cards by task, class, right or wrong, and kind of choice; without
them all cards are seen.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from fusar_jax.data import vision
from fusar_jax.report.answers import Answer
from fusar_jax.report.box_colours import PREDICTED_COLOUR, TRUE_COLOUR
from fusar_jax.report.sample_card import data_uri, escape
from fusar_jax.tasks import captioning

BEST, WORST, RANDOM = "best", "worst", "random"
_CHOICES = (BEST, WORST, RANDOM)
# Pixels of the longer side beyond which a picture is shown smaller.
_LARGEST = 504

STYLE = f"""
.filter {{ display: flex; flex-wrap: wrap; gap: 0.6rem 1.2rem;
  align-items: center; position: sticky; top: 0; z-index: 1;
  background: var(--back); padding: 0.6rem 0;
  border-bottom: 1px solid var(--line); }}
.filter[hidden], .answer[hidden] {{ display: none; }}
.filter select {{ font: inherit; color: inherit; background: var(--panel);
  border: 1px solid var(--line); border-radius: 4px; padding: 0.25rem 0.4rem; }}
.answers {{ display: grid; gap: 1.6rem 1.4rem; margin-top: 1.2rem;
  grid-template-columns: repeat(auto-fill, minmax(min(17rem, 100%), 1fr)); }}
.answer {{ background: var(--panel); border-radius: 6px; overflow: hidden; }}
.answer > svg {{ display: block; width: 100%; background: #000; }}
.answer > div {{ padding: 0.7rem 0.9rem 0.9rem; }}
.answer details {{ border: 0; padding: 0; font-size: 0.87rem; }}
.answer dl {{ margin: 0.5rem 0 0; display: grid; gap: 0.15rem 0.7rem;
  grid-template-columns: max-content 1fr; font-size: 0.87rem; }}
.answer dt {{ color: var(--quiet); }}
.answer dd {{ margin: 0; white-space: pre-wrap; overflow-wrap: anywhere;
  max-height: 11rem; overflow-y: auto; }}
.answer ins, .answer del {{ display: block; text-decoration: none; }}
.answer del {{ color: var(--error); }}
.store {{ position: absolute; width: 0; height: 0; }}
.true {{ stroke: rgb{TRUE_COLOUR}; }}
.said {{ stroke: rgb{PREDICTED_COLOUR}; }}
.key {{ display: inline-block; width: 0.9em; height: 0.9em;
  border: 2px solid; vertical-align: -0.1em; }}
.key.true {{ border-color: rgb{TRUE_COLOUR}; border-style: dashed; }}
.key.said {{ border-color: rgb{PREDICTED_COLOUR}; }}
"""

SCRIPT = """
const form = document.querySelector("form.filter");
const cards = [...document.querySelectorAll(".answer")];
function show() {
  const asked = [...form.querySelectorAll("select")].filter(s => s.value);
  for (const card of cards)
    card.hidden = !asked.every(
      s => card.dataset[s.name].split("|").includes(s.value));
  const seen = cards.filter(card => !card.hidden).length;
  form.querySelector("output").value = `${seen} of ${cards.length} shown`;
}
form.addEventListener("change", show);
form.addEventListener("submit", event => event.preventDefault());
form.hidden = false;
show();
"""


@dataclasses.dataclass(frozen=True, eq=False)
class Chosen:
  """An answer, and what it was chosen as: BEST, WORST or RANDOM."""

  answer: Answer
  kind: str


def choose(
  answers: Sequence[Answer], each: int = 4, *, seed: int = 0
) -> list[Chosen]:
  """Returns up to `each` best, worst and random answers of every task.

  None is chosen twice; an answer that is all right is never a worst one, and
  one of no worth never a best one.
  Among equals those with more targets come first: they say more.

  Args:
    answers: all there are.
    each: of a kind and task.
    seed: of the random ones; the same answers give the same choice.
  """
  chosen = []
  rng = np.random.default_rng(seed)
  for task in dict.fromkeys(answer.task for answer in answers):
    left = [answer for answer in answers if answer.task == task]
    left.sort(key=lambda a: (-a.quality, -len(a.true), a.id))
    best = [a for a in left[:each] if a.quality > 0]
    left = left[len(best) :]
    left.sort(key=lambda a: (a.quality, -len(a.true), a.id))
    worst = [a for a in left[:each] if not a.right]
    left = left[len(worst) :]
    order = sorted(rng.permutation(len(left))[:each])
    drawn = [left[k] for k in order]
    for kind, group in zip(_CHOICES, (best, worst, drawn)):
      chosen += [Chosen(answer, kind) for answer in group]
  return chosen


def gallery(chosen: Sequence[Chosen]) -> str:
  """Returns the HTML of the filter and the cards; it needs STYLE and SCRIPT.

  An image that several questions are about is embedded once.

  Raises:
    FileNotFoundError, ValueError: an image that cannot be read.
  """
  files = {str(item.answer.image): item.answer.image for item in chosen}
  names = {path: f"image{k}" for k, path in enumerate(files)}
  images = {path: _small(vision.load_image(f)) for path, f in files.items()}
  stored = "".join(
    f'<image id="{names[path]}" width="1" height="1" preserveAspectRatio="none"'
    f' href="{data_uri(image)}" style="image-rendering:pixelated"/>'
    for path, image in images.items()
  )
  cards = []
  for item in chosen:
    path = str(item.answer.image)
    shape = _shape(item.answer, images[path])
    cards.append(_card(item, names[path], shape))
  return (
    f"{_filter([item.answer for item in chosen])}"
    # Outside of all cards: a hidden card's image may serve a shown one.
    f'<svg class="store" aria-hidden="true"><defs>{stored}</defs></svg>'
    f'<div class="answers">{"".join(cards)}</div>'
  )


def _small(image: np.ndarray) -> np.ndarray:
  h, w = image.shape[:2]
  shrink = max(h, w) / _LARGEST
  if shrink <= 1:
    return image
  return vision.resize(image, (round(h / shrink), round(w / shrink)))


def _shape(answer: Answer, image: np.ndarray) -> tuple[int, int]:
  """What boxes are pixels of, so that none is moved; the picture is fitted."""
  return answer.size or image.shape[:2]


def _filter(answers: Sequence[Answer]) -> str:
  def select(name, label, values):
    options = "".join(
      f'<option value="{escape(v)}">{escape(v)}</option>' for v in values
    )
    return (
      f'<label>{label} <select name="{name}"><option value="">all</option>'
      f"{options}</select></label>"
    )

  classes = sorted({name for answer in answers for name in _classes(answer)})
  parts = [
    select("task", "task", dict.fromkeys(a.task for a in answers)),
    select("classes", "class", classes),
    select("right", "answer", ("right", "wrong")),
    select("kind", "chosen as", _CHOICES),
  ]
  return (
    f'<form class="filter" hidden>{"".join(parts)}'
    '<output class="quiet" aria-live="polite"></output></form>'
  )


def _classes(answer: Answer) -> tuple[str, ...]:
  names = (name.replace("|", "/") for name in answer.classes if name)
  return tuple(names) or ("no target",)


def _card(item: Chosen, image: str, shape: tuple[int, int]) -> str:
  answer = item.answer
  verdict = "right" if answer.right else "wrong"
  mark = "✓" if answer.right else "✗"
  kind = "good" if answer.right else "error"
  return (
    f'<article class="answer" data-task="{escape(answer.task)}"'
    f' data-classes="{escape("|".join(_classes(answer)))}"'
    f' data-right="{verdict}" data-kind="{item.kind}">'
    f"{_picture(answer, image, shape)}<div><h3>{escape(answer.id)}"
    f'<span class="task">{escape(answer.task)}</span></h3>'
    f'<span class="{kind}">{mark} {verdict}</span>'
    f' <span class="quiet">{item.kind}</span>'
    f"<details><summary>question</summary>{escape(answer.question)}</details>"
    f"{_words(answer)}{_unread(answer)}</div></article>"
  )


def _unread(answer: Answer) -> str:
  if answer.error is None:
    return ""
  return f'<p class="error">not read: {escape(answer.error)}</p>'


def _words(answer: Answer) -> str:
  """What is true and what was said; of a caption, field by field."""
  lines = [("true", escape(answer.truth)), ("said", escape(answer.said) or "–")]
  if answer.task == "captioning" and answer.error is None:
    said = captioning.parse(answer.said).fields
    lines = [
      (name, _field(text, said.get(name, "–")))
      for name, text in captioning.parse(answer.truth).fields.items()
    ]
  return "<dl>{}</dl>".format(
    "".join(f"<dt>{name}</dt><dd>{text}</dd>" for name, text in lines)
  )


def _field(true: str, said: str) -> str:
  if said.lower() == true.lower():
    return f"✓ {escape(said)}"
  return f"<del>✗ {escape(said)}</del><ins>true: {escape(true)}</ins>"


def _picture(answer: Answer, image: str, shape: tuple[int, int]) -> str:
  h, w = shape
  unit = max(h, w) / 336
  marks = [
    f'<g class="{kind}"><title>{told}: {escape(label)}</title>{draw(box)}</g>'
    for kind, told, given, draw in (
      ("true", "true", answer.true, lambda box: _corners(box, 3 * unit)),
      ("said", "predicted", answer.predicted, _frame),
    )
    for box, label in zip(given.boxes.tolist(), given.labels)
  ]
  counts = f"{len(answer.true)} true boxes, {len(answer.predicted)} predicted"
  return (
    f'<svg viewBox="0 0 {w} {h}" role="img"><title>{escape(answer.id)}:'
    f' {counts}</title><use href="#{image}" transform="scale({w} {h})"/>'
    f'<g fill="none" stroke-width="{2 * unit:.2f}">{"".join(marks)}</g></svg>'
  )


def _frame(box: Sequence[float]) -> str:
  x1, y1, x2, y2 = box
  return (
    f'<rect x="{x1:.1f}" y="{y1:.1f}" width="{x2 - x1:.1f}"'
    f' height="{y2 - y1:.1f}"/>'
  )


def _corners(box: Sequence[float], out: float) -> str:
  """Four corners, a little outside of the box, so that a frame hides none."""
  x1, y1, x2, y2 = box[0] - out, box[1] - out, box[2] + out, box[3] + out
  a, b = (x2 - x1) / 4, (y2 - y1) / 4
  path = "".join(
    f"M{x + i * a:.1f} {y:.1f}H{x:.1f}V{y + j * b:.1f}"
    for x, i in ((x1, 1), (x2, -1))
    for y, j in ((y1, 1), (y2, -1))
  )
  return f'<path d="{path}"/>'
