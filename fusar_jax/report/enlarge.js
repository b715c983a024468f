// Enlarges an image with the texts of its card in a dialog. A drawing becomes a
// button only once it is visible: a page may have a thousand.
const dialog = document.querySelector("dialog.enlarged");
const stage = dialog.querySelector(".stage");
let opened = null;

const name = drawing => drawing.querySelector("title").textContent;

function makeButtons() {
  for (const drawing of document.querySelectorAll("svg.drawing")) {
    if (drawing.parentElement.matches(".open") || drawing.closest("[hidden]"))
      continue;
    const button = document.createElement("button");
    button.type = "button";
    button.className = "open";
    button.setAttribute("aria-label", `enlarge ${name(drawing)}`);
    drawing.replaceWith(button);
    button.append(drawing);
  }
}

function enlarge(button) {
  opened = button;
  const drawing = button.firstElementChild.cloneNode(true);
  // The elements that it uses stay in the page; ids are unique.
  for (const defined of drawing.querySelectorAll("defs")) defined.remove();
  const text = button.closest("article")?.querySelector(".about");
  stage.replaceChildren(drawing, ...(text ? [text.cloneNode(true)] : []));
  for (const folded of stage.querySelectorAll("details")) folded.open = true;
  const [height, width] = [3, 2].map(
    k => Number(drawing.getAttribute("viewBox").split(" ")[k]));
  drawing.style.setProperty("--ratio", width / height);
  dialog.querySelector("strong").textContent = name(drawing).split(":")[0];
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
}

function step(by) {
  const all = [...document.querySelectorAll("main .open")].filter(
    button => !button.closest("[hidden]"));
  const next = all[(all.indexOf(opened) + by + all.length) % all.length];
  if (next) enlarge(next);
}

document.addEventListener("click", event => {
  const button = event.target.closest(".open");
  if (button) enlarge(button);
});
dialog.addEventListener("click", event => {
  // The dialog itself is clicked only beside its content.
  if (event.target === dialog || event.target.matches(".close"))
    dialog.close();
  if (event.target.matches(".previous")) step(-1);
  if (event.target.matches(".next")) step(1);
});
dialog.addEventListener("keydown", event => {
  if (event.key === "ArrowLeft") step(-1);
  if (event.key === "ArrowRight") step(1);
});
// The focus returns to the image that was shown last.
dialog.addEventListener("close", () => opened?.focus());
document.documentElement.classList.add("js");
if (!document.querySelector("form.filter")) makeButtons();
