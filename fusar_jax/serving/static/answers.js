/* Asks, streams answers, lists findings, compares anchors, keeps history. */

import * as api from "/static/api.js";
import { clearProblem, report } from "/static/problem.js";
import { CONDITIONS, describe, differs, summary } from "/static/words.js";

const $ = (id) => document.getElementById(id);
export class Answers {
  constructor(info, map, question) {
    this.info = info;
    this.map = map;
    this.question = question;
    this.shown = [];
    this.findings = [];
    this.selected = null;
    question.onChange = () => this.draw();
    map.onSelect = (i) => this.select(i, true);
    map.onHover = (i) => this.hover(i);
    $("ask").addEventListener("submit", (event) => {
      event.preventDefault();
      this.ask();
    });
    $("compare").addEventListener("click", () => this.compare());
    $("stop").addEventListener("click", () => this.stopped?.abort());
    $("list").addEventListener("keydown", (event) => this.key(event));
    for (const id of ["show-findings", "show-truth"]) {
      $(id).addEventListener("change", () => this.draw());
    }
    for (const kind of ["geojson", "csv"]) {
      $(kind).addEventListener("click", () => this.download(kind));
    }
  }

  open(scene) {
    this.stopped?.abort();
    this.scene = scene;
    this.shown = [];
    $("answer").hidden = true;
    $("for-truth").hidden = !scene.truth.length;
    $("show-truth").checked = false;
    this.setFindings([]);
    this.listPast();
  }

  /* Runs one question; `on` is given its events. Returns the answer. */
  async run(body, on) {
    const path = `/scenes/${this.scene.id}/ask`;
    let answer = null;
    for await (const event of api.events(path, body, this.stopped.signal)) {
      if (event.type === "error") {
        throw new api.Problem(event.message, event.status);
      }
      on(event);
      if (event.type === "end") ({ answer } = event);
    }
    if (answer) {
      this.scene.answers.push(answer);
      this.listPast();
      return answer;
    }
    throw new api.Problem("The answer was broken off: the server has stopped.");
  }

  begin() {
    clearProblem();
    this.stopped?.abort();
    this.stopped = new AbortController();
    this.shown = [];
    this.setFindings([]);
    $("answer").hidden = false;
    $("comparison").hidden = true;
    $("raw").hidden = false;
    $("asked").textContent = $("summary").textContent = "";
    $("text").textContent = "";
    $("stop").hidden = false;
    $("go").disabled = $("compare").disabled = true;
    $("answer").scrollIntoView({ block: "nearest" });
  }

  end(stopped) {
    if (stopped !== this.stopped) return;
    $("stop").hidden = true;
    $("go").disabled = $("compare").disabled = false;
    $("tiles-done").hidden = true;
  }

  async ask() {
    let bodies;
    try {
      bodies = this.question.bodies();
    } catch (error) {
      return report(error);
    }
    this.begin();
    const { stopped } = this;
    const texts = [], total = bodies.map(() => 1);
    let done = 0;
    $("summary").textContent = "The model is answering …";
    const one = (body, k) => this.run(body, (event) => {
      const place = 1000 * k + (event.tile ?? 0);
      if (event.type === "start") {
        total[k] = event.windows.length;
        const all = total.reduce((a, b) => a + b);
        $("asked").textContent = describe({ ...body, tiles: all,
          label: bodies.flatMap((each) => each.classes).join(", "),
          question: event.question });
        $("tiles-done").hidden = all < 2;
        $("tiles-done").max = all;
      } else if (event.type === "text") {
        texts[place] = (texts[place] ?? "") + event.text;
        $("text").textContent = texts.filter(Boolean).join("\n");
        if (!body.task || body.task === "captioning") {
          $("summary").textContent = $("text").textContent;
        }
      } else if (event.type === "tile") {
        $("tiles-done").value = ++done;
        this.setFindings([...this.findings, ...event.findings]);
      }
    });
    try {
      this.show(await Promise.all(bodies.map(one)));
    } catch (error) {
      // Of several, the others need not go on.
      stopped.abort();
      if (stopped === this.stopped) {
        $("summary").textContent = error.name === "AbortError" ? "Stopped." : "";
      }
      report(error);
    } finally {
      this.end(stopped);
    }
  }

  /* Shows answers: one, or those of several classes. */
  show(answers) {
    this.shown = answers;
    $("answer").hidden = false;
    $("comparison").hidden = true;
    $("raw").hidden = false;
    const labels = answers.map(({ label }) => label).join(", ");
    $("asked").textContent = describe({ ...answers[0], label: labels });
    $("summary").textContent = answers.map(summary).join(", ");
    $("text").textContent = answers.map(({ text }) => text).join("\n");
    this.setFindings(answers.flatMap(({ findings }) => findings));
    this.listPast();
  }

  async compare() {
    let bodies;
    try {
      bodies = CONDITIONS.map(([name]) => {
        const [body, more] = this.question.bodies(name);
        if (more) {
          throw new api.Problem("Name one class to compare the anchors by.");
        }
        return body;
      });
    } catch (error) {
      return report(error);
    }
    this.begin();
    const { stopped } = this;
    $("raw").hidden = true;
    $("comparison").hidden = false;
    const rows = CONDITIONS.map(([, title, meaning]) => {
      const row = document.createElement("tr");
      row.append(cell("th", title, meaning), cell("td", "…"), cell("td", ""));
      row.firstChild.scope = "row";
      return row;
    });
    const table = document.createElement("table");
    const head = table.createTHead().insertRow();
    for (const name of ["Anchors", "Answer", "Difference"]) {
      head.append(cell("th", name));
    }
    table.createTBody().append(...rows);
    const note = document.createElement("p");
    note.className = "quiet";
    note.textContent = "If the anchors’ content matters, the first answer"
      + " differs from the others; if only their presence does, the last two"
      + " equal it.";
    $("comparison").replaceChildren(table, note);
    $("asked").textContent = describe({ ...bodies[0], anchors: null,
      label: bodies[0].classes.join(", "), tiles: 1 });
    $("summary").textContent = "The model is answering …";
    let first = null;
    const all = bodies.map(async (body, i) => {
      const [, show, difference] = rows[i].cells;
      try {
        const answer = await this.run(body, () => {});
        show.textContent = summary(answer);
        if (answer.findings.length) {
          const button = document.createElement("button");
          button.textContent = "Show";
          button.className = "small";
          button.setAttribute("aria-label", `Show findings ${CONDITIONS[i][1]}`);
          button.addEventListener("click", () => {
            this.shown = [answer];
            this.setFindings(answer.findings);
          });
          show.append(" ", button);
        }
        if (i === 0) first = answer;
        return answer;
      } catch (error) {
        if (error.name === "AbortError") throw error;
        show.textContent = error.message;
        show.className = "error";
        difference.textContent = "";
        return null;
      }
    });
    try {
      const found = await Promise.all(all);
      found.forEach((answer, i) => {
        const text = i === 0 || !answer || !first ? ""
          : differs(first, answer);
        rows[i].cells[2].textContent = text;
      });
      $("summary").textContent = "Compared under four conditions.";
      if (first) {
        this.shown = [first];
        this.setFindings(first.findings);
      }
    } catch (error) {
      $("summary").textContent = "Stopped.";
      report(error);
    } finally {
      this.end(stopped);
    }
  }

  setFindings(findings) {
    this.findings = findings;
    this.selected = null;
    $("findings").hidden = !this.shown.length && !findings.length;
    $("list").hidden = !findings.length;
    $("findings-title").textContent = findings.length
      ? `Findings (${findings.length})` : "Findings";
    $("list").replaceChildren(...findings.map((finding, i) => {
      const item = document.createElement("li");
      item.role = "option";
      item.id = `finding-${i}`;
      item.ariaSelected = "false";
      const label = document.createElement("span");
      label.textContent = finding.label;
      const where = document.createElement("span");
      where.className = "quiet";
      const [x1, y1, x2, y2] = finding.box.map(Math.round);
      where.textContent = `${x1}, ${y1} · ${x2 - x1} × ${y2 - y1}`;
      item.append(label, where);
      item.addEventListener("click", () => this.select(i));
      item.addEventListener("pointerenter", () => this.hover(i));
      item.addEventListener("pointerleave", () => this.hover(null));
      return item;
    }));
    this.draw();
  }

  draw() {
    if (!this.scene) return;
    const boxes = [];
    const window = this.question.window;
    if (window.every(Number.isFinite)) {
      boxes.push({ box: window, kind: "window", label: "window" });
    }
    if ($("show-truth").checked) {
      for (const { box, label } of this.scene.truth) {
        boxes.push({ box, kind: "true", label: `true: ${label}` });
      }
    }
    if ($("show-findings").checked) {
      const kind = this.shown[0]?.task === "grounding" ? "cell" : "predicted";
      this.findings.forEach(({ box, label }, id) => {
        boxes.push({ box, kind, label, id });
      });
    }
    this.map.setBoxes(boxes.filter(({ box: [x1, y1, x2, y2] }) => x2 > x1
      && y2 > y1));
    this.map.mark("selected", this.selected);
    this.map.draw();
  }

  hover(i) {
    this.map.mark("hover", i);
    [...$("list").children].forEach((item, k) => {
      item.classList.toggle("hover", k === i);
    });
  }

  select(i, fromMap = false) {
    this.selected = i;
    this.map.mark("selected", i);
    [...$("list").children].forEach((item, k) => {
      item.ariaSelected = `${k === i}`;
      if (k === i) item.scrollIntoView({ block: "nearest" });
    });
    if (i === null) {
      $("list").removeAttribute("aria-activedescendant");
      return;
    }
    $("list").setAttribute("aria-activedescendant", `finding-${i}`);
    if (!fromMap) this.map.show(this.findings[i].box);
  }

  key(event) {
    const last = this.findings.length - 1;
    const now = this.selected;
    const next = { ArrowDown: now === null ? 0 : Math.min(now + 1, last),
      ArrowUp: now === null ? last : Math.max(now - 1, 0), Home: 0, End: last,
    }[event.key];
    if (next === undefined || last < 0) return;
    event.preventDefault();
    this.select(next);
  }

  async download(kind) {
    try {
      await api.save(`/scenes/${this.scene.id}/findings.${kind}`
        + `?answers=${this.shown.map(({ id }) => id).join(",")}`, `findings.${kind}`);
    } catch (error) {
      report(error);
    }
  }

  listPast() {
    const { answers } = this.scene;
    $("history").hidden = !answers.length;
    $("past").replaceChildren(...[...answers].reverse().map((answer) => {
      const item = document.createElement("li");
      const button = document.createElement("button");
      button.className = "past";
      if (this.shown.includes(answer)) button.setAttribute("aria-current", "true");
      const what = document.createElement("span");
      what.textContent = describe(answer);
      const found = document.createElement("span");
      found.className = "quiet";
      found.textContent = summary(answer).slice(0, 120);
      button.append(what, found);
      button.addEventListener("click", () => {
        this.question.setWindow(answer.window);
        this.show([answer]);
        this.map.show(answer.window);
      });
      item.append(button);
      return item;
    }));
  }
}

function cell(name, text, note = "") {
  const made = document.createElement(name);
  made.textContent = text;
  if (note) {
    const small = document.createElement("span");
    small.className = "quiet";
    small.textContent = note;
    made.append(small);
  }
  return made;
}
