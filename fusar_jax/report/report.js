// Filters the answer cards and shows them in batches, which keeps a page of a
// thousand cards fast; smaller batches on a phone, where they are longer.
const BATCH = matchMedia("(max-width: 40rem)").matches ? 12 : 24;
const form = document.querySelector("form.filter");
const cards = [...document.querySelectorAll(".answer")];
const more = document.querySelector(".more");
let limit = BATCH;

function show() {
  const active = [...form.querySelectorAll("select")].filter(s => s.value);
  let found = 0;
  for (const card of cards) {
    const matches = active.every(
      s => card.dataset[s.name].split("|").includes(s.value));
    found += matches;
    card.hidden = !matches || found > limit;
  }
  form.querySelector("output").value = found
    ? `${Math.min(found, limit)} of ${found} shown`
    : "no matching cards";
  more.hidden = found <= limit;
  more.textContent = `show ${Math.min(BATCH, found - limit)} more`;
  makeButtons();
}

form.addEventListener("change", event => {
  if (event.target.matches("select")) limit = BATCH;
  show();
});
form.addEventListener("submit", event => event.preventDefault());
more.addEventListener("click", () => {
  const first = cards.filter(card => !card.hidden).length;
  limit += BATCH;
  show();
  // Keys continue at the first new card.
  const shown = cards.filter(card => !card.hidden);
  shown[first]?.querySelector(".open")?.focus();
});
form.hidden = false;
show();
