// The tabs Correct and Look: finished data sets and training runs.
import { about, ask, careful, choice, finished, labelled, make, query, rgb, say } from "./api.js";
import { Viewer } from "./viewer.js";

const setsOf = (places) => places.filter(({ kind }) => kind === "set").map(({ name, title }) => [name, title]);
const option = (list, first) => [["", first], ...list];

export class CorrectTab {
  constructor(panel) {
    this.name = ""; this.at = -1;
    this.viewer = new Viewer("Image. N next cell, A accept, R reject, arrows move", { pick: (index) => { this.at = index < 0 ? -1 : this.here[index]; this.refresh(); },
      changed: careful((index, box) => this.decide(this.here[index], { box })), key: (event) => this.key(event) });
    this.left = make("div", { class: "side" }); this.right = make("div", { class: "side right" });
    panel.append(make("div", { class: "bench" }, this.left, this.viewer.element, this.right));
  }
  async start() { this.places = await ask("GET", "/places"); this.refresh(); }
  get cell() { return this.cells?.[this.at]; }
  get here() { return (this.cells || []).map((cell, index) => index).filter((index) => this.cells[index].image === this.image?.name); }
  async open(name) {
    if (!name) return;
    const data = await ask("GET", `/set?${query({ name })}`);
    const { decisions } = await ask("GET", `/corrections?${query({ name })}`);
    Object.assign(this, { name, cells: data.cells, images: data.images, categories: data.categories, decisions: new Map() });
    for (const one of decisions) this.decisions.set(`${one.image}|${one.number}`, one);
    this.show(this.images[0]); this.next(1);
  }
  show(image) {
    if (this.image === image && this.viewer.size) return;
    this.image = image;
    const address = `/api/set/image?${query({ name: this.name, image: image.name })}`;
    this.viewer.open(image, Math.max(image.width, image.height), () => address);
    this.viewer.paintTiles = (context) => { const tile = this.viewer.fetch(0, 0, 0); if (tile.complete && tile.naturalWidth) this.viewer.place(context, tile, [0, 0, image.width, image.height]); };
  }
  decision(cell) { return this.decisions.get(`${cell.image}|${cell.number}`) || { image: cell.image, number: cell.number, state: "open" }; }
  async decide(index, changes) {
    const cell = this.cells[index];
    const decision = { ...this.decision(cell), ...changes };
    await ask("POST", "/corrections", { name: this.name, decision });
    this.decisions.set(`${cell.image}|${cell.number}`, decision);
    this.at = index; this.refresh();
  }
  async review(state) {
    if (!this.cell) return;
    await this.decide(this.at, { state });
    say(`${this.cell.category}: ${state}.`);
    this.next(1);
  }
  next(step) {
    if (!this.cells?.length) return;
    this.at = (this.at + step + this.cells.length) % this.cells.length;
    this.show(this.images.find(({ name }) => name === this.cell.image));
    this.viewer.scale = Math.max(this.viewer.scale, 2); this.viewer.centre(this.cell.box); this.refresh();
  }
  key(event) {
    const work = { n: () => this.next(event.shiftKey ? -1 : 1), a: () => this.review("accepted"), r: () => this.review("rejected"), u: () => this.review("open") }[event.key.toLowerCase()];
    if (!work || !this.cells) return false;
    careful(work)();
    return true;
  }
  refresh() {
    const { cells, name } = this;
    const pick = choice(option(setsOf(this.places || []), "Choose a data set …"), name);
    pick.addEventListener("change", careful(() => this.open(pick.value)));
    const left = [make("h2", {}, "Finished data set"), labelled("Data set", pick)];
    if (cells) {
      const states = cells.map((cell) => this.decision(cell).state);
      const count = (state) => states.filter((one) => one === state).length;
      left.push(make("p", {}, `${cells.length} cells: ${count("accepted")} accepted, ${count("rejected")} rejected, ${count("open")} open.`));
      const to = make("input", { type: "text", value: "corrected", maxlength: "80" });
      const format = choice([["coco", "COCO"], ["yolo", "YOLO"], ["voc", "Pascal VOC"], ["geojson", "GeoJSON (QuPath)"]], "coco");
      left.push(make("h2", {}, "Export"), labelled("Name of the copy", to), labelled("Format", format), make("div", { class: "row" }, make("button", { class: "main", onclick: careful(async () => {
        const done = await ask("POST", "/corrections/export", { name, to: to.value, format: format.value });
        say(`Exported ${to.value}: ${done.cells} cells in ${done.images} images, ${done.rejected} left out.`);
      }) }, "Export")));
    }
    this.left.replaceChildren(...left);
    this.viewer.boxes = this.here.map((index) => {
      const cell = cells[index]; const { state, box, category } = this.decision(cell);
      return { box: [...(box || cell.box)], colour: rgb(category || cell.category), label: `${category || cell.category}${state === "accepted" ? " ✓" : state === "rejected" ? " ✗" : ""}`,
        dashed: state === "rejected", selected: index === this.at, movable: true };
    });
    this.viewer.draw();
    this.right.replaceChildren(...(this.cell ? this.details(this.cell) : [make("p", { class: "small" }, "Choose a data set, then accept or reject its cells.")]));
  }
  details(cell) {
    const decision = this.decision(cell);
    const category = choice(this.categories.map((one) => [one, one]), decision.category || cell.category);
    category.addEventListener("change", careful(() => this.decide(this.at, { category: category.value })));
    const button = (state, title, text) => make("button", { "aria-pressed": String(decision.state === state), onclick: careful(() => this.review(state)) }, make("kbd", {}, title), ` ${text}`);
    const gate = Object.entries(cell.gate).filter(([, value]) => value !== null).map(([name, value]) => `${name.replaceAll("_", " ")} ${value}`);
    return [make("h2", {}, `Cell ${this.at + 1} of ${this.cells.length}`), labelled("Category", category),
      make("div", { class: "row" }, button("accepted", "A", "accept"), button("rejected", "R", "reject"), button("open", "U", "leave open")),
      make("p", { class: "small" }, cell.synthetic ? "Synthetic cell." : "Not marked as synthetic."), gate.length ? make("p", { class: "small" }, `Gate: ${gate.join(", ")}`) : null,
      make("p", { class: "small" }, make("kbd", {}, "N"), " next, ", make("kbd", {}, "Shift+N"), " previous; drag a box or press Alt+arrows to move it, Shift+arrows to resize it.")].filter(Boolean);
  }
}

export class LookTab {
  constructor(panel) { this.panel = make("div", { class: "page" }); panel.append(this.panel); this.sets = ["", ""]; this.data = [null, null]; this.filter = ""; this.sort = "order"; this.page = 0; }
  async start() { this.places = await ask("GET", "/places"); this.refresh(); }
  async choose(side, name) { this.sets[side] = name; this.data[side] = name ? await ask("GET", `/set?${query({ name })}`) : null; this.page = 0; this.refresh(); }
  ordered(data) {
    const cells = data.cells.filter(({ category }) => !this.filter || category === this.filter);
    const value = { nucleus: (cell) => cell.nucleus, order: () => 0 }[this.sort] || ((cell) => cell.gate[this.sort]);
    return this.sort === "order" ? cells : [...cells].sort((a, b) => (value(b) ?? -1) - (value(a) ?? -1));
  }
  refresh() {
    const sets = setsOf(this.places || []);
    const pick = (side, title) => { const field = choice(option(sets, "none"), this.sets[side]); field.addEventListener("change", careful(() => this.choose(side, field.value))); return labelled(title, field); };
    const known = this.data.filter(Boolean);
    const categories = [...new Set(known.flatMap((data) => data.categories))];
    const scores = [...new Set(known.flatMap((data) => data.cells.flatMap((cell) => Object.keys(cell.gate))))];
    const filter = choice(option(categories.map((name) => [name, name]), "all classes"), this.filter);
    filter.addEventListener("change", () => { this.filter = filter.value; this.page = 0; this.refresh(); });
    const sort = choice([["order", "as in the set"], ["nucleus", "nucleus diameter"], ...scores.map((name) => [name, `gate: ${name.replaceAll("_", " ")}`])], this.sort);
    sort.addEventListener("change", careful(async () => { this.sort = sort.value; if (sort.value === "nucleus") await this.measure(); this.refresh(); }));
    const runs = (this.places || []).filter(({ kind }) => kind === "run").map(({ name, title }) => [name, title]);
    const run = choice(option(runs, "none"), this.runName || "");
    run.addEventListener("change", careful(async () => { this.runName = run.value; this.runData = run.value ? await ask("GET", `/run?${query({ name: run.value })}`) : null; this.refresh(); }));
    this.panel.replaceChildren(make("div", { class: "row" }, pick(0, "Data set"), pick(1, "Beside it"), labelled("Class", filter), labelled("Sorted by", sort), labelled("Training run", run)),
      make("div", { class: known.length === 2 ? "two" : "" }, ...[0, 1].filter((side) => this.data[side]).map((side) => this.cards(side))), this.nearestElement || "", this.runData ? this.curves() : "",
      known.length || this.runData ? "" : make("p", {}, "Choose a data set to see its cells, two to compare real and synthetic ones, or a training run to see its curves."));
  }
  async measure() {
    for (const side of [0, 1]) if (this.data[side]) {
      const name = this.sets[side];
      const task = await ask("POST", "/set/measure", { name });
      if (await finished(task.id, "Measuring nuclei")) this.data[side] = await ask("GET", `/set?${query({ name })}`);
    }
  }
  cards(side) {
    const name = this.sets[side]; const cells = this.ordered(this.data[side]); const shown = cells.slice(this.page * 60, this.page * 60 + 60);
    const card = (cell) => make("button", { "aria-label": `${cell.category}, ${cell.image}; find the nearest training cells`, onclick: careful(() => this.nearest(name, cell)) }, this.figure(name, cell));
    const turn = (step) => make("button", { disabled: step < 0 ? !this.page : (this.page + 1) * 60 >= cells.length, onclick: () => { this.page += step; this.refresh(); } }, step < 0 ? "Previous" : "Next");
    return make("div", {}, make("h2", {}, `${this.places.find((one) => one.name === name).title}: ${cells.length} cells${this.data[side].synthetic ? " (synthetic)" : ""}`),
      make("div", { class: "cards" }, ...shown.map(card)), make("div", { class: "row" }, turn(-1), turn(1)));
  }
  figure(name, cell, more = "") {
    const value = this.sort === "nucleus" ? cell.nucleus && `${cell.nucleus} px` : cell.gate?.[this.sort];
    return make("figure", {}, make("img", { loading: "lazy", alt: "", border: rgb(cell.category), src: `/api/set/crop?${query({ name, image: cell.image, number: cell.number })}` }),
      make("figcaption", {}, `${cell.category}${cell.synthetic ? ", synthetic" : ""}${value ? `, ${value}` : ""}${more}`));
  }
  async nearest(name, cell) {
    const training = choice(option(setsOf(this.places).filter(([other]) => other !== name), "Choose the training set …"), "");
    const area = make("div", { class: "cards" });
    this.nearestElement = make("div", {}, make("h2", {}, `Nearest training cells of a ${cell.category} of ${cell.image}`), labelled("Training set", training), area);
    training.addEventListener("change", careful(async () => {
      const task = await ask("POST", "/set/nearest", { name, image: cell.image, number: cell.number, training: training.value });
      const found = await finished(task.id, "Finding the nearest training cells");
      if (found) area.replaceChildren(this.figure(name, cell, ": this cell"), ...found.map((one) => this.figure(training.value, one, `, likeness ${one.likeness}`)));
    }));
    this.refresh(); training.focus();
  }
  curves() {
    const { curves, previews } = this.runData;
    const draw = ([title, points]) => {
      const xs = points.map(([x]) => x); const ys = points.map(([, y]) => y);
      const [x0, x1, y0, y1] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
      const line = points.map(([x, y]) => `${40 + 370 * (x - x0) / (x1 - x0 || 1)},${165 - 140 * (y - y0) / (y1 - y0 || 1)}`).join(" ");
      const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
      for (const [key, value] of Object.entries({ class: "curve", viewBox: "0 0 420 190", role: "img", "aria-label": `${title} from ${ys[0]} to ${ys[ys.length - 1]}` })) svg.setAttribute(key, value);
      const add = (tag, attributes, text) => { const one = document.createElementNS("http://www.w3.org/2000/svg", tag); for (const [key, value] of Object.entries(attributes)) one.setAttribute(key, value); if (text) one.textContent = text; svg.append(one); };
      add("polyline", { points: line, fill: "none", stroke: "#1f5fae", "stroke-width": "1.5" });
      add("text", { x: "40", y: "15", "font-size": "12" }, `${title}: ${ys[ys.length - 1].toPrecision(4)} at step ${x1}`);
      add("text", { x: "2", y: "30", "font-size": "10" }, y1.toPrecision(3)); add("text", { x: "2", y: "168", "font-size": "10" }, y0.toPrecision(3));
      return svg;
    };
    const last = previews[previews.length - 1];
    return make("div", {}, make("h2", {}, "Training run"), make("div", { class: "row" }, ...Object.entries(curves).filter(([, points]) => points.length > 1).map(draw)),
      last ? make("figure", {}, make("img", { alt: `Preview ${last}`, src: `/api/run/preview?${query({ name: this.runName, image: last })}` }), make("figcaption", {}, `${last} (of ${previews.length} previews)`)) : "");
  }
}
export { about };
