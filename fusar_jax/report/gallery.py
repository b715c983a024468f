"""Gallery of answer cards with filters for task, class, error and selection.

A short script filters the cards and shows them in batches, which keeps a page
of a thousand cards fast. Without JavaScript all cards are visible. CSS alone
toggles boxes and anchors.
"""

from collections.abc import Iterable, Sequence

from fusar_jax.report import answer_card, picture_store
from fusar_jax.report.answer_card import classes_of, errors_of
from fusar_jax.report.answers import Answer
from fusar_jax.report.choice import KINDS, Chosen
from fusar_jax.report.picture_store import Store
from fusar_jax.report.sample_card import escape

# Cards per batch.
_STEP = 24

STYLE = (
  """
.filter { display: flex; flex-wrap: wrap; gap: 0.6rem 1.2rem;
  align-items: center; position: sticky; top: 0; z-index: 1;
  background: var(--back); padding: 0.6rem 0;
  border-bottom: 1px solid var(--line); }
.filter label { white-space: nowrap; }
.filter fieldset { display: contents; }
.filter output { flex: 1 0 10rem; }
.filter[hidden], .answer[hidden], .more[hidden] { display: none; }
.filter select, .more { font: inherit; color: inherit;
  background: var(--panel); border: 1px solid var(--quiet);
  border-radius: 4px; padding: 0.3rem 0.5rem; max-width: 11rem; }
.filter input { accent-color: var(--accent); width: 1.05rem; height: 1.05rem;
  vertical-align: -0.15rem; }
.more { display: block; margin: 1.6rem auto 0; padding: 0.5rem 1.4rem;
  cursor: pointer; }
.answers { display: grid; gap: 1.6rem 1.4rem; margin-top: 1.2rem;
  align-items: start;
  grid-template-columns: repeat(auto-fill, minmax(min(17rem, 100%), 1fr)); }
:has(#show-anchors:not(:checked)) .answers .anchors,
:has(#show-true:not(:checked)) .answers .true,
:has(#show-said:not(:checked)) .answers .said { display: none; }
@media (max-width: 40rem) {
  .filter { position: static; gap: 0.5rem 1rem; }
  .filter label.choice { display: flex; flex: 1 1 100%; align-items: center;
    gap: 0.4rem; justify-content: space-between; }
  .filter select { flex: 0 1 11rem; min-width: 0; min-height: 2.5rem; }
  .filter label { min-height: 2rem; display: flex; align-items: center;
    gap: 0.4rem; }
}
"""
  + answer_card.STYLE
  + picture_store.STYLE
)

SCRIPT = f"""
const form = document.querySelector("form.filter");
const cards = [...document.querySelectorAll(".answer")];
const more = document.querySelector(".more");
let room = {_STEP};
function show() {{
  const asked = [...form.querySelectorAll("select")].filter(s => s.value);
  let found = 0;
  for (const card of cards) {{
    const fits = asked.every(
      s => card.dataset[s.name].split("|").includes(s.value));
    found += fits;
    card.hidden = !fits || found > room;
  }}
  const seen = Math.min(found, room);
  form.querySelector("output").value =
    found ? `${{seen}} of ${{found}} shown` : "no matching cards";
  more.hidden = found <= room;
}}
form.addEventListener("change", event => {{
  if (event.target.matches("select")) room = {_STEP};
  show();
}});
form.addEventListener("submit", event => event.preventDefault());
more.addEventListener("click", () => {{ room += {_STEP}; show(); }});
form.hidden = false;
show();
"""


def gallery(kept: Sequence[Chosen], store: Store) -> str:
  """Returns the HTML of filter and cards; the page needs STYLE and SCRIPT.

  Args:
    kept, store: the result of `picture_store.fill`.
  """
  answers = [item.answer for item in kept]
  cards = (
    answer_card.card(item, store.pictures.get(item.answer.image_name))
    for item in kept
  )
  return (
    # Outside the cards: a visible card may reuse the image of a hidden one.
    f"{_filter(answers, store)}{store.html}"
    f'<div class="answers">{"".join(cards)}</div>'
    f'<button type="button" class="more" hidden>{_STEP} more</button>'
  )


def _filter(answers: Sequence[Answer], store: Store) -> str:
  classes = {name for answer in answers for name in classes_of(answer)}
  errors = {name for answer in answers for name in errors_of(answer)}
  choices = (
    _choice("task", "task", dict.fromkeys(a.task for a in answers)),
    _choice("classes", "class", sorted(classes)),
    _choice("errors", "error", sorted(errors)),
    _choice("kind", "selection", KINDS),
  )
  layers = [("true", "true boxes", True), ("said", "predicted boxes", True)]
  if picture_store.has_anchors(answers, store):
    layers.append(("anchors", "anchors", False))
  boxes = "".join(
    f'<label><input type="checkbox" id="show-{name}"'
    f"{' checked' * on}> {label}</label>"
    for name, label, on in layers
  )
  return (
    f'<form class="filter" aria-label="filter samples" hidden>'
    f"{''.join(choices)}<fieldset>{boxes}</fieldset>"
    '<output class="quiet" aria-live="polite"></output></form>'
  )


def _choice(name: str, label: str, values: Iterable[str]) -> str:
  options = "".join(
    f'<option value="{escape(value)}">{escape(value)}</option>'
    for value in values
  )
  return (
    f'<label class="choice">{label} <select name="{name}">'
    f'<option value="">all</option>{options}</select></label>'
  )
