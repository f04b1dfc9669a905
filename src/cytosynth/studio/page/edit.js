// The tab Edit: open images, pick cells, choose a category, look, save.
import { about, ask, careful, cancel, choice, finished, labelled, make, query, rgb, say } from "./api.js";
import { Viewer } from "./viewer.js";

const SEEDS = 4;
const close = (a, b) => a.every((value, index) => Math.abs(value - b[index]) < 0.06);
const signature = ({ id, ...edit }) => JSON.stringify(edit);

export class EditTab {
  constructor(panel) {
    this.project = null; this.image = null; this.picked = []; this.drawnBoxes = []; this.painted = new Map();
    this.viewer = new Viewer("Image. Arrows move, plus and minus zoom, N next cell, numbers choose a category", {
      pick: (index, several, point) => this.pick(index, several, point), drawn: (box) => this.addBox(box),
      changed: careful((index, box) => this.change(index, box)), key: (event) => this.key(event) });
    this.left = make("div", { class: "side" });
    this.right = make("div", { class: "side right" });
    panel.append(make("div", { class: "bench" }, this.left, this.viewer.element, this.right));
    this.showLeft(); this.showRight();
    panel.addEventListener("dragover", (event) => event.preventDefault());
    panel.addEventListener("drop", (event) => { event.preventDefault(); this.upload(event.dataTransfer.files); });
  }
  // What is shown as boxes: the edits, the cells that were found and are not edited, and boxes that were drawn.
  get items() {
    if (!this.image) return [];
    const edits = this.project.edits.filter((edit) => edit.image === this.image.name);
    const free = [...(this.image.cells || []), ...this.drawnBoxes].filter(({ box }) => !edits.some((edit) => close(edit.box, box)));
    return [...edits.map((edit) => ({ key: edit.id, box: edit.box, edit })), ...free.map((cell) => ({ key: cell.box.join(), box: cell.box, cell }))];
  }
  get chosen() { return this.items.filter((item) => this.picked.includes(item.key)); }

  async start(id) {
    this.places = await ask("GET", "/places");
    this.unfinished = await ask("GET", "/projects");
    this.showLeft();
    if (id) await this.take(await ask("GET", `/projects/${id}`));
  }
  async take(project, name) {
    this.project = project;
    location.hash = `edit/${project.id}`;
    const image = project.images.find((one) => one.name === name) || project.images[0];
    this.showLeft();
    if (image) await this.show(image);
  }
  async show(image) {
    this.image = image; this.picked = []; this.drawnBoxes = [];
    const path = `/projects/${this.project.id}`;
    const size = await ask("GET", `${path}/size?${query({ image: image.name })}`);
    this.viewer.open(size, about.tile, (level, x, y) => `/api${path}/tile?${query({ image: image.name, level, x, y })}`);
    this.refresh();
    if (!image.cells) {
      const task = await ask("POST", `${path}/find`, { image: image.name });
      const found = await finished(task.id, "Finding cells");
      if (found) { image.cells = found.cells; say(`${found.cells.length} cells found.`); }
    }
    this.refresh();
    await this.paintAll();
  }
  async paintAll() {
    const { image, project } = this;
    const missing = project.edits.filter((edit) => edit.image === image.name && !this.painted.has(signature(edit)));
    if (!missing.length) return;
    const ids = await ask("POST", `/projects/${project.id}/paint`, { image: image.name });
    await Promise.all(ids.map((id) => this.receive(id)));
  }
  async receive(id) {
    const result = await finished(id, "Editing");
    if (!result) return;
    const image = new Image(); image.src = result.png; await image.decode();
    this.painted.set(signature(result.edit), { ...result, image }); // of the edit that was painted: it may be another by now
    this.refresh();
  }
  refresh() {
    const here = this.project?.edits.filter((edit) => edit.image === this.image?.name) || [];
    this.viewer.overlays = here.map((edit) => this.painted.get(signature(edit))).filter(Boolean).map(({ region, image }) => ({ region, image }));
    this.viewer.boxes = this.items.map(({ key, box, edit }) => ({ box: [...box], colour: edit ? rgb(edit.category) : rgb("NILM"), label: edit?.category,
      dashed: !edit, selected: this.picked.includes(key), movable: this.picked.length === 1 }));
    this.viewer.draw(); this.showLeft(); this.showRight();
  }

  pick(index, several) {
    const item = this.items[index];
    if (!item) this.picked = [];
    else if (several) this.picked = this.picked.includes(item.key) ? this.picked.filter((key) => key !== item.key) : [...this.picked, item.key];
    else this.picked = [item.key];
    this.refresh();
  }
  addBox(box) { this.drawnBoxes.push({ box, score: 0 }); this.picked = [box.join()]; this.refresh(); say("Choose a category for the new box."); }
  async change(index, box) {
    const item = this.items[index];
    if (item.edit) { await this.put({ ...item.edit, box }); this.picked = [item.edit.id]; this.refresh(); return; }
    this.drawnBoxes = this.drawnBoxes.filter((one) => one !== item.cell);
    this.addBox(box);
  }
  async put(edit) {
    const state = await ask("POST", `/projects/${this.project.id}/edit`, { do: "put", ...edit });
    Object.assign(this.project, state);
    const made = state.edits.find((one) => one.id === edit.id) || state.edits[state.edits.length - 1];
    this.refresh();
    return [made, state.task];
  }
  async grade(category, changes = {}) {
    const chosen = this.chosen;
    if (!chosen.length) return say("Select a cell first: click it, or press N.", true);
    const tasks = [];
    const picked = [];
    const started = performance.now();
    for (const { box, edit } of chosen) {
      const [made, task] = await this.put({ image: this.image.name, box, ...edit, category, ...changes });
      picked.push(made.id); tasks.push(task);
    }
    this.picked = picked; this.refresh();
    await Promise.all(tasks.map((task) => this.receive(task)));
    this.seconds = (performance.now() - started) / 1000;
    say(`${chosen.length === 1 ? "Cell" : `${chosen.length} cells`} edited into ${category} in ${this.seconds.toFixed(1)} s.`);
    document.body.dataset.seconds = this.seconds.toFixed(3);
    return undefined;
  }
  async anotherSeed() {
    for (const { edit } of this.chosen) if (edit) await this.receive((await this.put({ ...edit, seed: edit.seed + 1 }))[1]);
  }
  async step(action, more = {}) {
    Object.assign(this.project, await ask("POST", `/projects/${this.project.id}/edit`, { do: action, ...more }));
    this.refresh(); await this.paintAll();
    say({ undo: "Undone.", redo: "Done again.", delete: "Deleted." }[action]);
  }
  remove() {
    const ids = this.chosen.filter(({ edit }) => edit).map(({ edit }) => edit.id);
    this.drawnBoxes = this.drawnBoxes.filter(({ box }) => !this.picked.includes(box.join()));
    return ids.length ? this.step("delete", { ids }) : this.refresh();
  }
  compare(before) { this.viewer.plain = before; this.viewer.draw(); }
  next(step) {
    const { items } = this;
    if (!items.length) return;
    const at = items.findIndex(({ key }) => key === this.picked[0]);
    const item = items[(at + step + items.length) % items.length];
    this.picked = [item.key]; this.viewer.centre(item.box); this.refresh();
    say(`${item.edit ? item.edit.category : "Cell"} ${items.indexOf(item) + 1} of ${items.length}.`);
  }
  key(event) {
    if (!this.project) return false;
    const name = event.key.toLowerCase();
    const mod = event.ctrlKey || event.metaKey;
    const work = { n: () => this.next(event.shiftKey ? -1 : 1), s: () => this.anotherSeed(), z: () => this.step(mod && event.shiftKey ? "redo" : "undo"),
      y: () => this.step("redo"), delete: () => this.remove(), backspace: () => this.remove(), g: () => this.gallery(),
      b: () => this.compare(!this.viewer.plain), a: () => { const { x, y } = this.viewer; this.addBox(this.viewer.clipped([x - 20, y - 20, x + 20, y + 20])); } }[name];
    if (mod && name !== "z" && name !== "y") return false;
    if (/^[1-9]$/.test(name) && name <= about.grades.length) careful(() => this.grade(about.grades[Number(name) - 1]))();
    else if (work) careful(work)();
    else return false;
    return true;
  }

  showLeft() {
    const { project } = this;
    const focused = document.activeElement?.dataset?.item;
    const scrolled = [...this.left.querySelectorAll("ul")].map((list) => [list.getAttribute("aria-label"), list.scrollTop]);
    const folders = (this.places || []).filter(({ kind }) => kind !== "run" && kind !== "quiz");
    const pick = choice([["", folders.length ? "Open …" : "No folder was opened"], ...folders.map(({ name, title, kind }) => [`${kind}|${name}`, `${title} (${kind})`])], "");
    pick.addEventListener("change", careful(() => this.openPlace(pick.value)));
    const file = make("input", { type: "file", multiple: true, accept: "image/*", "aria-label": "Image files", onchange: () => this.upload(file.files) });
    const seed = make("input", { type: "number", min: "0", value: "0" });
    const parts = [make("h2", {}, "Images"), labelled("Opened folders and slides", pick),
      make("div", { class: "drop" }, "Drop images here, or ", file),
      make("div", { class: "row" }, labelled("Seed of fields", seed),
        make("button", { onclick: careful(() => this.drawField(Number(seed.value))) }, project?.kind === "generated" ? "Generate another field" : "Draw a field"))];
    if (!project && this.unfinished?.length) parts.push(make("h2", {}, "Unfinished work"), make("ul", { class: "list" }, ...this.unfinished.slice(0, 20).map((one) =>
      make("li", {}, make("button", { onclick: careful(async () => this.take(await ask("GET", `/projects/${one.id}`))) }, `${one.title}: ${one.images} images, ${one.edits} edits`)))));
    if (project) {
      parts.push(make("ul", { class: "list", "aria-label": "Images" }, ...project.images.map((image) => make("li", {}, make("button", {
        "aria-pressed": String(image.name === this.image?.name), "data-item": `image:${image.name}`, onclick: careful(() => this.show(image)) }, image.name)))));
      parts.push(make("h2", {}, `Cells (${this.items.length})`), make("ul", { class: "list", "aria-label": "Cells" }, ...this.items.map(({ key, edit, cell }, index) =>
        make("li", {}, make("button", { "aria-pressed": String(this.picked.includes(key)), "data-item": `cell:${index}`,
          onclick: (event) => { this.pick(index, event.shiftKey || event.ctrlKey || event.metaKey); const item = this.items[index]; if (item) this.viewer.centre(item.box); } },
        make("span", { class: "dot", colour: edit ? rgb(edit.category) : rgb("NILM") }), edit ? edit.category : cell.score ? `NILM ${cell.score.toFixed(2)}` : "drawn box")))));
      parts.push(this.saveForm());
    }
    this.left.replaceChildren(...parts);
    for (const [label, top] of scrolled) { const list = this.left.querySelector(`ul[aria-label="${label}"]`); if (list) list.scrollTop = top; }
    if (focused) [...this.left.querySelectorAll("[data-item]")].find((one) => one.dataset.item === focused)?.focus();
  }
  saveForm() {
    const name = make("input", { type: "text", value: `edited-${this.project.id.slice(0, 4)}`, maxlength: "80" });
    this.saveName = name;
    return make("div", {}, make("h2", {}, "Save"), labelled("Name of the data set", name), make("div", { class: "row" },
      make("button", { class: "main", disabled: !this.project.edits.length, onclick: careful(() => this.save(name.value)) }, "Save"),
      make("button", { onclick: careful(() => this.discard()) }, "Discard this work")), this.savedNote || null);
  }
  async openPlace(value) {
    const [kind, name] = value.split("|");
    if (kind === "slide") return this.openSlide(name);
    if (value) await this.take(await ask("POST", "/projects", { kind: "own", folder: name }));
    return undefined;
  }
  async openSlide(name) {
    const size = await ask("GET", `/slide?${query({ name })}`);
    this.project ||= null;
    const project = await ask("POST", "/projects", { kind: "fields" });
    this.project = project; this.image = null;
    this.viewer.open(size, about.tile, (level, x, y) => `/api/slide/tile?${query({ name, level, x, y })}`);
    const cut = careful(async (index, several, [x, y]) => {
      const made = await ask("POST", `/projects/${project.id}/field`, { slide: name, x: Math.max(0, Math.round(x - 512)), y: Math.max(0, Math.round(y - 512)) });
      this.viewer.on.pick = pick;
      await this.take(await ask("GET", `/projects/${project.id}`), made.image);
    });
    const { pick } = this.viewer.on;
    this.viewer.on.pick = cut;
    say("Click on the slide to cut out a field of 1024 pixels.");
  }
  upload(files) {
    return careful(async () => {
      if (!files.length) return;
      let project = this.project?.kind === "uploads" ? this.project : await ask("POST", "/projects", { kind: "uploads" });
      for (const file of files) project = await ask("POST", `/projects/${project.id}/upload?${query({ name: file.name })}`, file);
      await this.take(project, files[files.length - 1].name);
    })();
  }
  async drawField(seed) {
    const project = this.project?.kind === "generated" && this.project.seed === seed ? this.project : await ask("POST", "/projects", { kind: "generated", seed });
    const task = await ask("POST", `/projects/${project.id}/field`, {});
    const made = await finished(task.id, "Generating a field");
    if (made) await this.take(await ask("GET", `/projects/${project.id}`), made.image);
  }
  async save(name) {
    const task = await ask("POST", `/projects/${this.project.id}/save`, { name });
    const saved = await finished(task.id, "Saving");
    if (!saved) return;
    this.savedNote = make("p", { class: "small" }, `Saved ${saved.title}: ${saved.images} images, ${saved.cells} cells. To repeat: `, make("code", {}, saved.command));
    say(`Saved ${saved.title}.`);
    this.places = await ask("GET", "/places");
    this.showLeft();
  }
  async discard() {
    if (!confirm("Discard this work? Saved data sets are kept.")) return;
    await ask("DELETE", `/projects/${this.project.id}`);
    location.hash = "edit"; location.reload();
  }

  showRight() {
    const { chosen } = this;
    const grades = make("div", { class: "row", role: "group", "aria-label": "Category" }, ...about.grades.map((name, index) => make("button", {
      disabled: !chosen.length, "aria-pressed": String(chosen.length === 1 && chosen[0].edit?.category === name), title: `Key ${index + 1}`,
      onclick: careful(() => this.grade(name)) }, make("span", { class: "dot", colour: rgb(name) }), ` ${name}`)));
    for (const dot of grades.querySelectorAll(".dot")) dot.style.display = "inline-block";
    const project = this.project;
    const history = make("div", { class: "row" }, make("button", { disabled: !project?.undo, onclick: careful(() => this.step("undo")) }, "Undo"),
      make("button", { disabled: !project?.redo, onclick: careful(() => this.step("redo")) }, "Redo"),
      make("button", { disabled: !chosen.length, onclick: careful(() => this.remove()) }, "Delete"),
      make("button", { "aria-pressed": String(this.viewer.plain), onclick: () => { this.compare(!this.viewer.plain); this.showRight(); } }, "Before"));
    const parts = [make("h2", {}, chosen.length > 1 ? `${chosen.length} cells` : chosen.length ? "Cell" : "Select a cell"), grades, history];
    if (chosen.length === 1 && chosen[0].edit) parts.push(...this.details(chosen[0].edit));
    if (chosen.length === 1) parts.push(make("div", { class: "row" }, make("button", { onclick: careful(() => this.gallery()) }, "Gallery: every category, four seeds")));
    if (this.galleryElement && chosen.length === 1 && this.galleryBox === chosen[0].box.join()) parts.push(this.galleryElement);
    const keys = [[`1–${about.grades.length}`, "category"], ["N", "next cell"], ["S", "another seed"], ["Z Y", "undo, redo"], ["Del", "delete"], ["B", "before"], ["A", "new box"],
      ["Alt+arrows", "move box"], ["Shift+arrows", "resize box"], ["G", "gallery"]];
    parts.push(make("h2", {}, "Keys in the image"), make("p", { class: "small" }, ...keys.flatMap(([name, text]) => [make("kbd", {}, name), ` ${text}  `])));
    this.right.replaceChildren(...parts);
  }
  details(edit) {
    const painted = this.painted.get(signature(edit));
    const seed = make("input", { type: "number", min: "0", value: String(edit.seed) });
    const again = (changes) => careful(async () => this.receive((await this.put({ ...edit, ...changes }))[1]))();
    seed.addEventListener("change", () => again({ seed: Math.max(0, Math.floor(Number(seed.value))) }));
    const strength = make("input", { type: "range", min: "0.1", max: "1", step: "0.05", value: String(edit.strength ?? about.strength) });
    strength.addEventListener("change", () => again({ strength: Number(strength.value) }));
    const parts = [make("div", { class: "row" }, labelled("Seed", seed), make("button", { onclick: careful(() => this.anotherSeed()) }, "Another seed")),
      labelled(`Strength ${(edit.strength ?? about.strength).toFixed(2)}`, strength)];
    if (!painted) return [...parts, make("p", { class: "small" }, "Being edited …")];
    const figure = (title, source) => make("figure", {}, make("img", { src: source, alt: title }), make("figcaption", {}, title));
    return [...parts, make("div", { class: "pair" }, figure("Before", painted.before), figure("After (synthetic)", painted.after)),
      ...painted.verdict.map((line, index) => make("p", { class: `small ${index ? "" : painted.kept ? "kept" : "refused"}` }, line))];
  }
  async gallery() {
    const [item] = this.chosen;
    if (!item) return say("Select one cell first.", true);
    const base = { image: this.image.name, box: item.box, ...(item.edit ? { seed: item.edit.seed, strength: item.edit.strength } : {}) };
    const tasks = await ask("POST", `/projects/${this.project.id}/gallery`, base);
    const cells = tasks.map(({ category, seed }) => make("button", { title: `${category}, seed ${seed}`, "aria-label": `Use ${category}, seed ${seed}`, disabled: true,
      onclick: careful(() => this.grade(category, { seed })) }));
    this.galleryBox = item.box.join();
    this.galleryElement = make("div", {}, make("h2", {}, "Gallery"), make("div", { class: "gallery" },
      ...about.grades.flatMap((grade, row) => [make("span", {}, grade), ...cells.slice(row * SEEDS, (row + 1) * SEEDS)])));
    this.showRight();
    this.galleryElement.scrollIntoView();
    await Promise.all(tasks.map(async ({ task }, index) => {
      const result = await finished(task, "Gallery");
      if (result) { cells[index].replaceChildren(make("img", { src: result.after, alt: "" })); cells[index].disabled = false; }
    }));
    return undefined;
  }
}
export { cancel };
