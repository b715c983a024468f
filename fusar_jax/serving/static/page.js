/* Opens scenes and connects the parts of the page. */

import { Answers } from "/static/answers.js";
import * as api from "/static/api.js";
import { SceneMap } from "/static/map.js";
import { clearProblem, report } from "/static/problem.js";
import { Question } from "/static/question.js";

const KEY = "fusar-scene";
const KINDS = [[0x49, 0x49, 0x2a], [0x49, 0x49, 0x2b], [0x4d, 0x4d, 0],
  [0x89, 0x50, 0x4e, 0x47], [0xff, 0xd8, 0xff], [0x50, 0x4b, 3, 4]];
const $ = (id) => document.getElementById(id);

let info, map, question, answers, scene = null, opening = null;

async function start() {
  try {
    info = await api.json("/page");
  } catch (error) {
    return report(error);
  }
  $("token").hidden = true;
  clearProblem();
  $("model").textContent = `model ${info.model}`;
  $("known").replaceChildren(...info.classes.map((name) => new Option(name)));
  $("examples").replaceChildren(...info.examples.map((example, i) => {
    const item = document.createElement("li");
    const button = document.createElement("button");
    button.textContent = example.title;
    const note = document.createElement("span");
    note.textContent = `simulated · ${example.asks}s`;
    button.append(note);
    button.addEventListener("click", () => openExample(i));
    item.append(button);
    return item;
  }));
  $("address").hidden = !(info.named.hosts.length || info.named.folders);
  $("hosts").textContent = [
    info.named.hosts.length && `an address at ${info.named.hosts.join(", ")}`,
    info.named.folders && "a path in the server’s folders",
  ].filter(Boolean).join(" or ");
  if (!map) connect();
  const known = sessionStorage.getItem(KEY);
  if (known) {
    await api.json(`/scenes/${known}`).then(show, () => {
      sessionStorage.removeItem(KEY);
    });
  }
}

function connect() {
  map = new SceneMap($("map"), info.tile);
  question = new Question(info, map);
  answers = new Answers(info, map, question);
  map.onError = report;
  map.listeners.push(describeView);
  $("zoom-in").addEventListener("click", () => map.zoom(1.5));
  $("zoom-out").addEventListener("click", () => map.zoom(1 / 1.5));
  $("zoom-all").addEventListener("click", () => map.fit());
  $("zoom-full").addEventListener("click", () => map.zoom(1 / map.scale));
}

function describeView() {
  const [left, top, right, bottom] = map.view();
  const zoom = map.scale >= 1 ? `${map.scale.toFixed(1)} : 1`
    : `1 : ${(1 / map.scale).toFixed(1)}`;
  $("place").textContent
    = `${right - left} × ${bottom - top} pixels at (${left}, ${top}), ${zoom}`;
}

async function openFile(file) {
  if (!file) return;
  const bytes = new Uint8Array(await file.slice(0, 8).arrayBuffer());
  if (!KINDS.some((kind) => kind.every((byte, i) => bytes[i] === byte))) {
    return report(new api.Problem(`${file.name} is not an image that can be`
      + " opened here: expected a GeoTIFF, PNG or JPEG, or the zip of a"
      + " Sentinel-1 .SAFE product."));
  }
  if (file.size > info.limits.bytes) {
    return report(new api.Problem(`${file.name} has ${megabytes(file.size)},`
      + ` more than the ${megabytes(info.limits.bytes)} that this server takes.`
      + " Cut a part out of it: gdal_translate -srcwin."));
  }
  await open(`Uploading ${file.name}`, (signal) => api.upload(
    `/scenes?name=${encodeURIComponent(file.name)}`, file, (share) => {
      loading(share < 1 ? `Uploading ${file.name}` : `Opening ${file.name}`,
        share < 1 ? share : null);
    }, signal));
}

function openExample(index) {
  const { title } = info.examples[index];
  return open(`Drawing the simulated scene “${title}”`,
    async (signal) => (await api.post(`/examples/${index}`, {},
      { signal })).json());
}

/* View, history and anchors stay: only the picture is another. */
async function chooseBands() {
  const { id } = scene, bands = scene.choices[$("bands").value];
  const { x, y, scale } = map;
  await open(`Reading ${bands.join(", ")}`, async (signal) => (
    await api.post(`/scenes/${id}/bands`, { bands }, { signal })).json(), true);
  if (scene.id === id) return showBands();
  Object.assign(map, { x, y, scale });
  map.move(0, 0);
}

function showBands() {
  const shown = scene.bands.join(", ");
  $("for-bands").hidden = !scene.choices.length;
  $("bands").replaceChildren(...scene.choices.map((choice, i) => {
    const name = choice.join(", ");
    return new Option(name, i, false, name === shown);
  }));
}

async function open(text, fetchScene, replaces = false) {
  clearProblem();
  opening?.abort();
  opening = new AbortController();
  const { signal } = opening;
  loading(text, null);
  try {
    const opened = await fetchScene(signal);
    const before = scene;
    show(opened);
    // Others of this page may still lend their anchors to a comparison.
    if (before && !replaces) question.lend(before.id);
  } catch (error) {
    if (!signal.aborted) report(error);
  } finally {
    if (!signal.aborted) loading(null);
  }
}

function loading(text, share) {
  $("loading").hidden = text === null;
  if (text === null) return;
  $("loading").querySelector("p").textContent = text;
  const bar = $("loading").querySelector("progress");
  if (share === null) bar.removeAttribute("value");
  else bar.value = share;
}

function show(opened) {
  scene = opened;
  sessionStorage.setItem(KEY, scene.id);
  document.body.classList.add("open");
  $("start").hidden = true;
  for (const id of ["map", "tools", "place", "about", "ask", "open"]) {
    $(id).hidden = false;
  }
  $("about-title").textContent = scene.name;
  $("facts").textContent = facts(scene);
  showBands();
  $("notes").replaceChildren(...scene.notes.map((note) => {
    const item = document.createElement("li");
    item.textContent = note;
    return item;
  }));
  map.open(scene);
  question.open(scene);
  answers.open(scene);
  $("map").focus({ preventScroll: true });
  watch(scene);
}

function facts(one) {
  const parts = [`${one.width} × ${one.height} pixels`];
  if (one.distance) {
    parts.push(`${one.distance.map((d) => d.toPrecision(3)).join(" × ")} m`);
  }
  parts.push(one.bands.length > 1 || !/^\d+$/.test(one.bands[0])
    ? one.bands.join(", ") : "one band");
  parts.push(one.quantity === "db" ? "dB" : one.quantity);
  if (one.centre) {
    const [lon, lat] = one.centre;
    parts.push(`${Math.abs(lat).toFixed(4)}° ${lat < 0 ? "S" : "N"},`
      + ` ${Math.abs(lon).toFixed(4)}° ${lon < 0 ? "W" : "E"}`);
  } else parts.push("no georeference");
  return parts.join(" · ");
}

/* Until the overview of a large scene is complete. */
async function watch(one) {
  let seen = one.overview;
  while (seen < 1 && scene?.id === one.id) {
    await new Promise((resolve) => setTimeout(resolve, 700));
    let state;
    try {
      state = await api.json(`/scenes/${one.id}`);
    } catch (error) {
      return report(error);
    }
    if (scene?.id !== one.id) return;
    if (state.problem) return report(new api.Problem(state.problem));
    if (state.overview > seen) map.refresh(2);
    seen = state.overview;
    $("place").dataset.overview
      = seen < 1 ? `overview ${Math.round(100 * seen)} %` : "";
  }
}

function megabytes(bytes) {
  return `${Math.ceil(bytes / 2 ** 20).toLocaleString("en")} MiB`;
}

function toStart() {
  document.body.classList.remove("open");
  $("start").hidden = false;
  $("map").hidden = $("tools").hidden = $("place").hidden = true;
  $("file").focus();
}

$("file").addEventListener("change", (event) => {
  openFile(event.target.files[0]);
  event.target.value = "";
});
$("stop-loading").addEventListener("click", () => {
  opening?.abort();
  loading(null);
});
$("open").addEventListener("click", toStart);
$("bands").addEventListener("change", chooseBands);
$("address").addEventListener("submit", (event) => {
  event.preventDefault();
  const url = $("url").value.trim();
  open(`Fetching ${url}`, async (signal) => (await api.post("/scenes/named",
    { url }, { signal })).json());
});
$("token").addEventListener("submit", (event) => {
  event.preventDefault();
  api.setToken($("token-value").value);
  $("token-value").value = "";
  start();
});
for (const type of ["dragover", "dragleave", "drop"]) {
  addEventListener(type, (event) => {
    event.preventDefault();
    document.body.classList.toggle("drop", type === "dragover");
    if (type === "drop" && info) openFile(event.dataTransfer.files[0]);
  });
}
start();
