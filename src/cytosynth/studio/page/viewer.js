// An image of any size on a canvas: tiles, zoom to single pixels, boxes that can be picked, drawn, moved and resized.
import { make } from "./api.js";

const GRIP = 9;

export class Viewer {
  // `on` has: pick(index, several), drawn(box), changed(index, box), key(event) -> whether it was used.
  constructor(label, on) {
    this.on = on;
    this.canvas = make("canvas", { tabindex: "0", role: "application", "aria-label": label });
    this.element = make("div", { class: "view" }, this.canvas, this.tools());
    this.size = null; this.boxes = []; this.overlays = []; this.tiles = new Map();
    this.x = 0; this.y = 0; this.scale = 1; this.drawing = false; this.plain = false; this.drag = null;
    new ResizeObserver(() => this.draw()).observe(this.canvas);
    this.listen();
  }
  tools() {
    const button = (text, title, work) => make("button", { title, "aria-label": title, onclick: work }, text);
    this.drawButton = make("button", { hidden: !this.on.drawn, "aria-pressed": "false", title: "Draw a box (D)", onclick: () => this.setDrawing(!this.drawing) }, "Draw box");
    return make("div", { class: "tools", role: "toolbar", "aria-label": "View" }, button("+", "Zoom in (+)", () => this.zoom(1.5)),
      button("−", "Zoom out (−)", () => this.zoom(1 / 1.5)), button("Fit", "Whole image (F)", () => this.fit()),
      button("1:1", "Actual size (O)", () => this.zoomTo(1)), button("Pixels", "Single pixels (P)", () => this.zoomTo(8)), this.drawButton);
  }
  setDrawing(on) { this.drawing = on; this.drawButton.setAttribute("aria-pressed", String(on)); }
  // Show the image of that size whose tiles `address(level, x, y)` names.
  open(size, tile, address) {
    Object.assign(this, { size, tile, address, tiles: new Map(), overlays: [], boxes: [] });
    this.fit();
  }
  get ratio() { return window.devicePixelRatio || 1; }
  fit() {
    if (!this.size) return;
    const { clientWidth: w, clientHeight: h } = this.canvas;
    this.scale = Math.min(w / this.size.width, h / this.size.height) || 1;
    this.x = this.size.width / 2; this.y = this.size.height / 2; this.draw();
  }
  zoom(factor, at) {
    const { clientWidth: w, clientHeight: h } = this.canvas;
    const [px, py] = at || [w / 2, h / 2];
    const before = this.toImage(px, py);
    this.scale = Math.min(40, Math.max(0.002, this.scale * factor));
    const after = this.toImage(px, py);
    this.x += before[0] - after[0]; this.y += before[1] - after[1]; this.draw();
  }
  zoomTo(scale) { this.zoom(scale / this.scale); }
  centre(box) { this.x = (box[0] + box[2]) / 2; this.y = (box[1] + box[3]) / 2; this.draw(); }
  toImage(px, py) {
    const { clientWidth: w, clientHeight: h } = this.canvas;
    return [this.x + (px - w / 2) / this.scale, this.y + (py - h / 2) / this.scale];
  }
  toScreen(x, y) {
    const { clientWidth: w, clientHeight: h } = this.canvas;
    return [(x - this.x) * this.scale + w / 2, (y - this.y) * this.scale + h / 2];
  }
  draw() { if (!this.waiting) { this.waiting = true; requestAnimationFrame(() => { this.waiting = false; this.paint(); }); } }
  paint() {
    const { canvas, ratio } = this;
    const [w, h] = [canvas.clientWidth, canvas.clientHeight];
    if (canvas.width !== Math.round(w * ratio) || canvas.height !== Math.round(h * ratio)) {
      canvas.width = Math.round(w * ratio); canvas.height = Math.round(h * ratio);
    }
    const context = canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, w, h);
    if (!this.size) return;
    context.imageSmoothingEnabled = this.scale < 2;
    this.paintTiles(context, w, h);
    if (!this.plain) for (const { region, image } of this.overlays) this.place(context, image, region);
    for (const [index, box] of this.boxes.entries()) this.paintBox(context, box, index);
    if (this.drag?.box) this.paintBox(context, { box: this.drag.box, colour: "#111", selected: true }, -1);
  }
  paintTiles(context, w, h) {
    const level = Math.max(0, Math.floor(Math.log2(1 / this.scale) + 0.01));
    const side = this.tile * 2 ** level;
    const [left, top] = this.toImage(0, 0);
    const [right, bottom] = this.toImage(w, h);
    for (let y = Math.max(0, Math.floor(top / side)); y * side < Math.min(bottom, this.size.height); y++) {
      for (let x = Math.max(0, Math.floor(left / side)); x * side < Math.min(right, this.size.width); x++) {
        const image = this.fetch(level, x, y);
        if (!image.complete || !image.naturalWidth) continue;
        this.place(context, image, [x * side, y * side, x * side + image.naturalWidth * 2 ** level, y * side + image.naturalHeight * 2 ** level]);
      }
    }
  }
  fetch(level, x, y) {
    const address = this.address(level, x, y);
    if (!this.tiles.has(address)) {
      const image = new Image();
      image.onload = () => this.draw();
      image.src = address;
      this.tiles.set(address, image);
      if (this.tiles.size > 300) this.tiles.delete(this.tiles.keys().next().value);
    }
    return this.tiles.get(address);
  }
  place(context, image, [x0, y0, x1, y1]) {
    const [left, top] = this.toScreen(x0, y0);
    const [right, bottom] = this.toScreen(x1, y1);
    context.drawImage(image, left, top, right - left, bottom - top);
  }
  paintBox(context, { box, colour, label, selected, dashed }) {
    const [x0, y0] = this.toScreen(box[0], box[1]);
    const [x1, y1] = this.toScreen(box[2], box[3]);
    context.setLineDash(dashed ? [5, 4] : []);
    if (selected) { context.lineWidth = 6; context.strokeStyle = "#fff"; context.strokeRect(x0, y0, x1 - x0, y1 - y0); }
    context.lineWidth = selected ? 3 : 2; context.strokeStyle = colour;
    context.strokeRect(x0, y0, x1 - x0, y1 - y0);
    context.setLineDash([]);
    if (label) {
      context.font = "600 12px sans-serif";
      const width = context.measureText(label).width + 8;
      context.fillStyle = colour; context.fillRect(x0 - 1, y0 - 17, width, 16);
      const [red, green, blue] = colour.match(/\d+/g).map(Number);
      context.fillStyle = 0.3 * red + 0.59 * green + 0.11 * blue > 130 ? "#111" : "#fff"; context.fillText(label, x0 + 3, y0 - 5);
    }
  }
  // The smallest box under a point, -1 where there is none.
  hit([x, y]) {
    const area = ({ box }) => (box[2] - box[0]) * (box[3] - box[1]);
    const under = this.boxes.map((box, index) => [box, index])
      .filter(([{ box }]) => x >= box[0] && x <= box[2] && y >= box[1] && y <= box[3]).sort((a, b) => area(a[0]) - area(b[0]));
    return under.length ? under[0][1] : -1;
  }
  grip([px, py]) {
    const index = this.boxes.findIndex((box) => box.selected && box.movable);
    if (index < 0) return null;
    const [x, y] = this.toScreen(...this.boxes[index].box.slice(2));
    if (Math.hypot(px - x, py - y) < GRIP) return { index, corner: true };
    return this.hit(this.toImage(px, py)) === index ? { index, corner: false } : null;
  }
  listen() {
    const at = (event) => { const place = this.canvas.getBoundingClientRect(); return [event.clientX - place.left, event.clientY - place.top]; };
    this.canvas.addEventListener("wheel", (event) => { event.preventDefault(); this.zoom(Math.exp(-event.deltaY / 400), at(event)); }, { passive: false });
    this.canvas.addEventListener("pointerdown", (event) => {
      if (!this.size || event.button) return;
      this.canvas.focus(); this.canvas.setPointerCapture(event.pointerId);
      const point = at(event);
      const grip = this.drawing ? null : this.grip(point);
      this.drag = { start: point, from: this.toImage(...point), view: [this.x, this.y], grip, old: grip && [...this.boxes[grip.index].box] };
    });
    this.canvas.addEventListener("pointermove", (event) => this.drag && this.move(at(event)));
    this.canvas.addEventListener("pointerup", (event) => this.drop(at(event), event.shiftKey || event.ctrlKey || event.metaKey));
    this.canvas.addEventListener("keydown", (event) => { if (this.pressed(event)) event.preventDefault(); });
  }
  move(point) {
    const { drag } = this;
    if (Math.hypot(point[0] - drag.start[0], point[1] - drag.start[1]) > 4) drag.moved = true;
    if (!drag.moved) return;
    const [x, y] = this.toImage(...point);
    const [dx, dy] = [x - drag.from[0], y - drag.from[1]];
    if (this.drawing) drag.box = [Math.min(x, drag.from[0]), Math.min(y, drag.from[1]), Math.max(x, drag.from[0]), Math.max(y, drag.from[1])];
    else if (drag.grip) {
      const [a, b, c, d] = drag.old;
      this.boxes[drag.grip.index].box = drag.grip.corner ? [a, b, Math.max(a + 4, c + dx), Math.max(b + 4, d + dy)] : [a + dx, b + dy, c + dx, d + dy];
    } else { this.x = drag.view[0] - (point[0] - drag.start[0]) / this.scale; this.y = drag.view[1] - (point[1] - drag.start[1]) / this.scale; }
    this.draw();
  }
  drop(point, several) {
    const { drag } = this;
    this.drag = null;
    if (!drag || !this.size) return;
    if (!drag.moved) this.on.pick?.(this.hit(this.toImage(...point)), several, this.toImage(...point));
    else if (drag.box) { this.setDrawing(false); this.on.drawn?.(this.clipped(drag.box)); }
    else if (drag.grip) this.on.changed?.(drag.grip.index, this.clipped(this.boxes[drag.grip.index].box));
    this.draw();
  }
  clipped([x0, y0, x1, y1]) {
    const round = (value) => Math.round(value * 10) / 10;
    return [Math.max(0, x0), Math.max(0, y0), Math.min(this.size.width, x1), Math.min(this.size.height, y1)].map(round);
  }
  pressed(event) {
    if (event.ctrlKey || event.metaKey) return this.on.key?.(event);
    const pan = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (pan && this.size) {
      const index = this.boxes.findIndex((box) => box.selected && box.movable);
      if ((event.altKey || event.shiftKey) && index >= 0) {
        const [a, b, c, d] = this.boxes[index].box;
        const [dx, dy] = [pan[0] * 2, pan[1] * 2];
        const box = event.shiftKey ? [a, b, Math.max(a + 4, c + dx), Math.max(b + 4, d + dy)] : [a + dx, b + dy, c + dx, d + dy];
        this.on.changed?.(index, this.clipped(box));
      } else { this.x += pan[0] * 60 / this.scale; this.y += pan[1] * 60 / this.scale; this.draw(); }
      return true;
    }
    const work = { "+": () => this.zoom(1.5), "=": () => this.zoom(1.5), "-": () => this.zoom(1 / 1.5), f: () => this.fit(), o: () => this.zoomTo(1),
      p: () => this.zoomTo(8), d: () => this.on.drawn && this.setDrawing(!this.drawing) }[event.key.toLowerCase()];
    if (work && !event.altKey) { work(); return true; }
    return this.on.key?.(event);
  }
}
