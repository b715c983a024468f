/* The scene as a map: tiles on a canvas, boxes as SVG above it.

   Coordinates are pixels of the scene. `scale` is pixels of the screen (CSS)
   per pixel of the scene; (x, y) is the scene's point in the middle. */

import { request } from "/static/api.js";

const TOGETHER = 8; // Requests at a time.
const KEPT = 600; // Decoded tiles.
const SVG = "http://www.w3.org/2000/svg";

export class SceneMap {
  constructor(element, tile) {
    this.element = element;
    this.tile = tile;
    this.canvas = element.querySelector("canvas");
    this.context = this.canvas.getContext("2d", { alpha: false });
    this.shapes = element.querySelector("svg g");
    this.scene = null;
    this.dots = [];
    this.listeners = [];
    this.onSelect = () => {};
    this.onHover = () => {};
    this.onWindow = () => {};
    this.drawing = false;
    this.frame = 0;
    new ResizeObserver(() => this.resize()).observe(element);
    this.listen();
  }

  /* Shows a scene from the start. */
  open(scene) {
    this.scene = scene;
    this.tiles?.forEach((one) => one.stop?.abort());
    this.tiles = new Map();
    this.waiting = [];
    this.running = 0;
    this.dots = [];
    this.shapes.replaceChildren();
    this.resize();
    this.fit();
  }

  get least() {
    const { clientWidth: w, clientHeight: h } = this.element;
    return Math.min(w / this.scene.width, h / this.scene.height);
  }

  fit() {
    this.x = this.scene.width / 2;
    this.y = this.scene.height / 2;
    this.scale = Math.min(this.least, 8);
    this.draw();
  }

  /* The part of the scene that is visible, whole pixels. */
  view() {
    const w = this.element.clientWidth / this.scale / 2;
    const h = this.element.clientHeight / this.scale / 2;
    const { width, height } = this.scene;
    const clamp = (v, most) => Math.min(Math.max(Math.round(v), 0), most);
    return [clamp(this.x - w, width), clamp(this.y - h, height),
      clamp(this.x + w, width), clamp(this.y + h, height)];
  }

  /* Moves so that a box is visible. */
  show([x1, y1, x2, y2]) {
    const [left, top, right, bottom] = this.view();
    if (x1 >= left && y1 >= top && x2 <= right && y2 <= bottom) return;
    const { clientWidth: w, clientHeight: h } = this.element;
    this.x = (x1 + x2) / 2;
    this.y = (y1 + y2) / 2;
    this.scale = Math.min(this.scale, 0.8 * w / (x2 - x1), 0.8 * h / (y2 - y1));
    this.move(0, 0);
  }

  move(dx, dy) {
    this.x = Math.min(Math.max(this.x + dx / this.scale, 0), this.scene.width);
    this.y = Math.min(Math.max(this.y + dy / this.scale, 0), this.scene.height);
    this.draw();
  }

  /* Zooms about a point of the element. */
  zoom(factor, at = null) {
    const { clientWidth: w, clientHeight: h } = this.element;
    const scale = Math.min(Math.max(this.scale * factor,
      Math.min(this.least, 1) / 2), 32);
    const [px, py] = at ?? [w / 2, h / 2];
    this.x += (px - w / 2) * (1 / this.scale - 1 / scale);
    this.y += (py - h / 2) * (1 / this.scale - 1 / scale);
    this.scale = scale;
    this.move(0, 0);
  }

  toScene(event) {
    const box = this.element.getBoundingClientRect();
    return [this.x + (event.clientX - box.left - box.width / 2) / this.scale,
      this.y + (event.clientY - box.top - box.height / 2) / this.scale];
  }

  resize() {
    const { clientWidth: w, clientHeight: h } = this.element;
    const ratio = devicePixelRatio;
    this.canvas.width = Math.round(w * ratio);
    this.canvas.height = Math.round(h * ratio);
    if (this.scene) this.draw();
  }

  draw() {
    if (!this.frame) this.frame = requestAnimationFrame(() => this.paint());
  }

  paint() {
    this.frame = 0;
    const { clientWidth: w, clientHeight: h } = this.element;
    if (!this.scene || !w || !h) return;
    const ratio = devicePixelRatio, context = this.context;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.fillStyle = "#000";
    context.fillRect(0, 0, w, h);
    const level = Math.min(Math.max(
      Math.floor(Math.log2(1 / (this.scale * ratio)) + 0.25), 0),
    this.scene.levels - 1);
    context.imageSmoothingEnabled = this.scale < 3;
    this.waiting = [];
    // Coarse tiles first: they stand in for those that are not here yet.
    for (let k = this.scene.levels - 1; k >= level; k--) {
      for (const [x, y] of this.inView(k)) this.paintTile(k, x, y, k === level);
    }
    this.fetchNext();
    this.paintDots();
    this.shapes.setAttribute("transform", `translate(${w / 2},${h / 2})`
      + ` scale(${this.scale}) translate(${-this.x},${-this.y})`);
    this.element.style.setProperty("--pixel", `${1 / this.scale}px`);
    for (const listener of this.listeners) listener();
  }

  /* Tiles of a level in view, the middle ones first. */
  inView(level) {
    const side = this.tile * 2 ** level;
    const [left, top, right, bottom] = this.view();
    const found = [];
    for (let y = Math.floor(top / side); y * side < bottom; y++) {
      for (let x = Math.floor(left / side); x * side < right; x++) {
        found.push([x, y]);
      }
    }
    const far = ([x, y]) => Math.hypot((x + 0.5) * side - this.x,
      (y + 0.5) * side - this.y);
    return found.sort((a, b) => far(a) - far(b));
  }

  paintTile(level, x, y, wanted) {
    const key = `${level}/${x}/${y}`;
    const tile = this.tiles.get(key);
    if (tile?.image) {
      const side = this.tile * 2 ** level, step = 2 ** level;
      const { clientWidth: w, clientHeight: h } = this.element;
      const left = w / 2 + (x * side - this.x) * this.scale;
      const top = h / 2 + (y * side - this.y) * this.scale;
      const pixel = step * this.scale;
      this.context.drawImage(tile.image, left, top,
        tile.image.width * pixel, tile.image.height * pixel);
      tile.used = performance.now();
    }
    // The coarsest level is always fetched, as the background of all others.
    const needed = wanted || level === this.scene.levels - 1;
    if (needed && (!tile || tile.stale) && !tile?.stop) this.waiting.push(key);
  }

  fetchNext() {
    while (this.running < TOGETHER && this.waiting.length) {
      this.fetchTile(this.waiting.shift());
    }
    for (const [key, tile] of this.tiles) {
      if (this.tiles.size <= KEPT) break;
      if (tile.image && performance.now() - tile.used > 2000) {
        tile.image.close();
        this.tiles.delete(key);
      }
    }
  }

  async fetchTile(key) {
    const scene = this.scene, tiles = this.tiles;
    const tile = tiles.get(key) ?? {};
    tiles.set(key, tile);
    tile.stop = new AbortController();
    this.running++;
    try {
      const response = await request(`/scenes/${scene.id}/tiles/${key}.png`,
        { signal: tile.stop.signal });
      const image = await createImageBitmap(await response.blob());
      if (tiles === this.tiles) {
        tile.image?.close();
        Object.assign(tile, { image, stale: false, used: performance.now() });
      }
    } catch (error) {
      tile.failed = true;
      if (error.name !== "AbortError") this.onError?.(error);
    } finally {
      tile.stop = null;
      if (tile.failed && !tile.image) tile.stale = false;
      if (tiles === this.tiles) {
        this.running--;
        this.draw();
      }
    }
  }

  /* Fetches again what was made before the overview was complete. */
  refresh(from) {
    for (const [key, tile] of this.tiles) {
      if (Number(key.split("/")[0]) >= from) tile.stale = true;
    }
    this.draw();
  }

  paintDots() {
    const { clientWidth: w, clientHeight: h } = this.element;
    const size = Math.min(Math.max(this.scale * this.dotSide * 0.35, 3), 9);
    for (const [x, y, colour] of this.dots) {
      const left = w / 2 + (x - this.x) * this.scale;
      const top = h / 2 + (y - this.y) * this.scale;
      if (left < -9 || top < -9 || left > w + 9 || top > h + 9) continue;
      this.context.beginPath();
      this.context.arc(left, top, size, 0, 7);
      this.context.fillStyle = colour;
      this.context.fill();
      this.context.lineWidth = 1.2;
      this.context.strokeStyle = "#fff";
      this.context.stroke();
    }
  }

  setDots(points, colours, side) {
    this.dots = points.map(([x, y], i) => [x, y, colours[i]]);
    this.dotSide = side;
    this.draw();
  }

  /* Replaces all boxes: [{box, kind, id, label}]. */
  setBoxes(boxes) {
    this.shapes.replaceChildren(...boxes.map((one) => {
      const [x1, y1, x2, y2] = one.box;
      const shape = document.createElementNS(SVG, "rect");
      for (const [name, value] of Object.entries(
        { x: x1, y: y1, width: x2 - x1, height: y2 - y1 })) {
        shape.setAttribute(name, value);
      }
      shape.setAttribute("class", one.kind);
      if (one.id !== undefined) {
        shape.dataset.id = one.id;
        shape.addEventListener("pointerenter", () => this.onHover(one.id));
        shape.addEventListener("pointerleave", () => this.onHover(null));
      }
      const title = document.createElementNS(SVG, "title");
      title.textContent = one.label ?? "";
      shape.append(title);
      return shape;
    }));
  }

  mark(name, id) {
    for (const shape of this.shapes.children) {
      shape.classList.toggle(name, id !== null && shape.dataset.id === `${id}`);
    }
  }

  listen() {
    const element = this.element;
    const fingers = new Map();
    let start = null, moved = 0, apart = 0;
    element.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      element.setPointerCapture(event.pointerId);
      fingers.set(event.pointerId, event);
      start = this.toScene(event);
      moved = 0;
      apart = 0;
    });
    element.addEventListener("pointermove", (event) => {
      const before = fingers.get(event.pointerId);
      if (!before) return;
      fingers.set(event.pointerId, event);
      const dx = event.clientX - before.clientX;
      const dy = event.clientY - before.clientY;
      moved += Math.abs(dx) + Math.abs(dy);
      if (fingers.size === 2) {
        const [a, b] = [...fingers.values()];
        const now = Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY);
        const box = element.getBoundingClientRect();
        if (apart) {
          this.zoom(now / apart, [(a.clientX + b.clientX) / 2 - box.left,
            (a.clientY + b.clientY) / 2 - box.top]);
        }
        apart = now;
        this.move(-dx / 2, -dy / 2);
      } else if (this.drawing) {
        const end = this.toScene(event);
        this.onWindow([start, end], false);
      } else {
        this.move(-dx, -dy);
      }
    });
    const release = (event) => {
      if (!fingers.delete(event.pointerId)) return;
      if (this.drawing && moved > 4) {
        this.onWindow([start, this.toScene(event)], true);
      } else if (event.type === "pointerup" && moved <= 4) {
        const [below] = document.elementsFromPoint(event.clientX, event.clientY)
          .filter((e) => e.dataset?.id !== undefined);
        this.onSelect(below ? Number(below.dataset.id) : null);
      }
    };
    element.addEventListener("pointerup", release);
    element.addEventListener("pointercancel", release);
    element.addEventListener("wheel", (event) => {
      event.preventDefault();
      const box = element.getBoundingClientRect();
      this.zoom(2 ** (-event.deltaY / (event.deltaMode ? 6 : 240)),
        [event.clientX - box.left, event.clientY - box.top]);
    }, { passive: false });
    element.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const step = event.shiftKey ? 300 : 80;
      const act = {
        ArrowLeft: () => this.move(-step, 0), ArrowUp: () => this.move(0, -step),
        ArrowRight: () => this.move(step, 0), ArrowDown: () => this.move(0, step),
        "+": () => this.zoom(1.5), "=": () => this.zoom(1.5),
        "-": () => this.zoom(1 / 1.5), 0: () => this.fit(),
        1: () => this.zoom(1 / this.scale),
      }[event.key];
      if (!act) return;
      event.preventDefault();
      act();
    });
  }
}
