/* The form: which window, which task, which anchors. */

import * as api from "/static/api.js";
import { clearProblem, report } from "/static/problem.js";

const $ = (id) => document.getElementById(id);
const SIDES = ["left", "top", "right", "bottom"];
const TILED = ["detection", "counting"];
const ONE_CLASS = ["detection", "counting", "grounding"];

export class Question {
  constructor(info, map) {
    this.info = info;
    this.map = map;
    this.lent = [];
    map.onWindow = (corners, done) => this.drawn(corners, done);
    $("use-view").addEventListener("click", () => this.setWindow(map.view()));
    $("use-all").addEventListener("click", () => this.setWindow(
      [0, 0, this.scene.width, this.scene.height]));
    $("draw").addEventListener("click", () => this.setDrawing(!map.drawing));
    for (const id of SIDES) {
      $(id).addEventListener("input", () => this.changed());
    }
    for (const id of ["task", "tiles", "classes"]) {
      $(id).addEventListener("input", () => this.changed());
    }
    $("with-anchors").addEventListener("change", () => this.layer());
    $("show-anchors").addEventListener("change", () => this.layer());
    $("year").addEventListener("change", () => this.layer());
    $("npz").addEventListener("change", (event) => this.addFile(event.target));
    $("year").replaceChildren(new Option("the scene’s", ""),
      ...info.years.map((year) => new Option(year)));
  }

  open(scene) {
    this.scene = scene;
    const known = scene.anchors.kind !== null && this.info.anchors;
    $("anchor-choice").hidden = !this.info.anchors;
    $("compare").hidden = !known;
    $("with-anchors").disabled = !known;
    $("with-anchors").checked = known;
    $("for-npz").hidden = scene.simulated;
    $("for-year").hidden = scene.anchors.kind !== "aef";
    $("for-anchors").hidden = !known;
    $("show-anchors").checked = false;
    $("anchor-note").textContent = known
      ? { aef: "From the server’s archive.", file: "From the file you added.",
        simulated: "Simulated with the scene." }[scene.anchors.kind]
      : sentence(scene.anchors.reason);
    if (scene.simulated) {
      const kind = scene.truth[0]?.label ?? "ship";
      $("classes").value = kind;
    } else if (!$("classes").value) $("classes").value = "ship";
    for (const id of SIDES) {
      $(id).max = id === "left" || id === "right" ? scene.width : scene.height;
    }
    const { side } = this.info;
    const small = Math.max(scene.width, scene.height) <= 4 * side;
    this.setWindow(small ? [0, 0, scene.width, scene.height]
      : this.middle(side));
    this.setDrawing(false);
  }

  middle(side) {
    const { width, height } = this.scene;
    const w = Math.min(side, width), h = Math.min(side, height);
    const x = Math.floor((width - w) / 2), y = Math.floor((height - h) / 2);
    return [x, y, x + w, y + h];
  }

  /* Scenes of this page that "shuffled" may take anchors of. */
  lend(id) {
    this.lent = [id, ...this.lent].slice(0, 8);
  }

  get window() {
    return SIDES.map((id) => $(id).valueAsNumber);
  }

  setWindow(box) {
    SIDES.forEach((id, i) => { $(id).value = box[i]; });
    this.changed();
    this.layer();
  }

  setDrawing(on) {
    this.map.drawing = on;
    $("draw").setAttribute("aria-pressed", on);
    $("map").classList.toggle("drawing", on);
    if (on) $("map").scrollIntoView({ block: "nearest" });
  }

  drawn([a, b], done) {
    const { width, height } = this.scene;
    const clamp = (v, most) => Math.min(Math.max(Math.round(v), 0), most);
    const xs = [a[0], b[0]].map((v) => clamp(v, width)).sort((p, q) => p - q);
    const ys = [a[1], b[1]].map((v) => clamp(v, height)).sort((p, q) => p - q);
    SIDES.forEach((id, i) => { $(id).value = [xs[0], ys[0], xs[1], ys[1]][i]; });
    this.changed();
    if (done) {
      this.setDrawing(false);
      this.layer();
    }
  }

  /* Shows what the form stands at. */
  changed() {
    const [left, top, right, bottom] = this.window;
    const task = $("task").value;
    const { side } = this.info;
    const width = right - left, height = bottom - top;
    const large = Math.max(width, height) > 1.25 * side;
    $("for-classes").hidden = !task || task === "captioning";
    $("for-words").hidden = task !== "";
    $("for-tiles").hidden = !(TILED.includes(task) && large);
    $("classes-note").textContent = task === "classification"
      ? "The classes to choose from, separated by commas."
      : ONE_CLASS.includes(task) ? "Classes in the singular, separated by commas." : "";
    // Seen by all where it is not obvious.
    $("classes-note").classList.toggle("visually-hidden",
      task !== "classification");
    $("window-note").textContent = this.note(width, height, large, task);
    this.map.window = this.window;
    this.onChange?.();
  }

  note(width, height, large, task) {
    if (!(width > 0 && height > 0)) return "The window is empty.";
    const { side } = this.info;
    const size = `${width} × ${height} pixels`;
    if (task === "classification") {
      return `${size}. Draw the window closely around the object.`;
    }
    if (TILED.includes(task) && large && $("tiles").checked) {
      const step = task === "detection" ? 0.75 * side : side;
      const count = (length) => Math.max(1, Math.ceil(
        (length - (side - step)) / step));
      return `${size}: ${count(width) * count(height)} tiles of`
        + ` ${side} × ${side}.`;
    }
    if (large) {
      return `${size}, reduced to ${side} × ${side} for the model: what is`
        + ` smaller than ${Math.ceil(2 * Math.max(width, height) / side)} pixels`
        + " is lost.";
    }
    return `${size}; the model sees ${side} × ${side}.`;
  }

  /* The bodies of requests, one for each class, or an error in words. */
  bodies(condition = null) {
    const task = $("task").value || null;
    const names = $("classes").value.split(",").map((n) => n.trim())
      .filter(Boolean);
    if (ONE_CLASS.includes(task) && !names.length) {
      $("classes").focus();
      throw new api.Problem(
        "Name a class in the singular, for example ship; several with commas.");
    }
    if (task === "classification" && names.length < 2) {
      $("classes").focus();
      throw new api.Problem("Name the classes to choose from, at least two,"
        + " separated by commas: cargo ship, fishing ship.");
    }
    if (!task && !$("words").value.trim()) {
      $("words").focus();
      throw new api.Problem("Write a question first.");
    }
    const anchors = condition
      ?? ($("with-anchors").checked ? "aligned" : "none");
    const body = {
      task,
      classes: task && task !== "captioning" ? names : [],
      question: task ? "" : $("words").value,
      window: this.window,
      tiles: $("tiles").checked,
      anchors,
      year: $("year").value ? Number($("year").value) : null,
      others: anchors === "shuffled" ? this.lent : [],
    };
    return ONE_CLASS.includes(task)
      ? names.map((name) => ({ ...body, classes: [name] })) : [body];
  }

  /* Draws the anchors of the window. */
  async layer() {
    if (!this.scene || !$("show-anchors").checked) {
      this.map.setDots([], [], 1);
      return;
    }
    const { scene, window } = this;
    try {
      const year = $("year").value ? `&year=${$("year").value}` : "";
      const layer = await api.json(`/scenes/${scene.id}/anchors`
        + `?window=${window.join(",")}${year}`);
      if (scene !== this.scene || `${window}` !== `${this.window}`) return;
      const [x1, y1, x2, y2] = window;
      const side = Math.sqrt((x2 - x1) * (y2 - y1) / layer.points.length);
      this.map.setDots(layer.points, layer.colours, side);
      $("anchor-note").textContent = `${layer.points.length} anchors`
        + `${layer.year ? ` of ${layer.year}` : ""}; colours are three principal`
        + ` components, ${Math.round(100 * layer.explained)} % of the variance:`
        + " similar ground has similar colours.";
    } catch (error) {
      $("show-anchors").checked = false;
      this.map.setDots([], [], 1);
      report(error);
    }
  }

  async addFile(input) {
    const [file] = input.files;
    input.value = "";
    if (!file) return;
    clearProblem();
    try {
      const scene = await api.json(`/scenes/${this.scene.id}/anchors`, {
        method: "PUT", body: file,
        headers: { "Content-Type": "application/octet-stream" },
      });
      const window = this.window;
      this.scene.anchors = scene.anchors;
      this.open(this.scene);
      this.setWindow(window);
    } catch (error) {
      report(error);
    }
  }
}

function sentence(text) {
  return text ? text[0].toUpperCase() + text.slice(1) : "";
}
