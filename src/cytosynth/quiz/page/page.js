"use strict";
// One page of a quiz. `data` comes from quiz/make.py; of a study it holds no answers.
const data = JSON.parse(document.getElementById("data").textContent);
const main = document.getElementById("main");
const teaching = data.kind === "teaching";
const question = data.mode === "origin" ? "Is this cell real or synthetic?" : "Which class is this cell?";
const storageName = `cytosynth-quiz-${data.quiz}-${data.order}`;
const fresh = () => ({ reader: "", answers: [] });
let state = restore();
let trial = null; // {item, shown, answer, milliseconds, confidence, phase}
let zoom = data.zoom;

function restore() {
  try {
    const kept = JSON.parse(localStorage.getItem(storageName));
    if (kept && Array.isArray(kept.answers)) return kept;
  } catch { /* a browser may keep nothing for local files: the page then works without */ }
  return fresh();
}
function keep() {
  try { localStorage.setItem(storageName, JSON.stringify(state)); } catch { /* see restore */ }
}
function make(tag, properties = {}, ...children) {
  const { className, text, ...attributes } = properties;
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null) element.setAttribute(name, value);
  }
  element.append(...children.filter(Boolean));
  return element;
}
function show(...children) { main.replaceChildren(make("h1", { text: data.title }), ...children); }
function say(text) { document.getElementById("said").textContent = text; }
function key(name) { return make("kbd", { text: name, "aria-hidden": "true" }); }

function start() {
  const name = make("input", { type: "text", id: "reader", value: state.reader, maxlength: "60", autocomplete: "off" });
  const begin = () => {
    state.reader = name.value.trim();
    if (!state.reader) { say("Enter a reader code first."); name.focus(); return; }
    keep(); next();
  };
  const done = state.answers.length;
  show(make("div", { className: "card" },
    make("p", { text: `${data.items.length} cells in ${data.blocks} ${data.blocks === 1 ? "block" : "blocks"}. ${question} ` +
      "Then state how confident you are." }),
    ...data.notes.map((note) => make("p", { className: "small", text: note })),
    make("p", { className: "small", text: "Keys: a number answers, + and − zoom, Escape withdraws an answer " +
      "before the confidence is given. Nothing leaves this page until you save the answers at the end." }),
    make("label", { for: "reader", text: "Your reader code" }), name,
    make("p", {}, make("button", { className: "main", text: done ? `Continue at cell ${done + 1}` : "Begin", onclick: begin })),
    done ? make("button", { text: "Start again from the first cell",
      onclick: () => { state = fresh(); keep(); start(); } }) : null));
  name.addEventListener("keydown", (event) => { if (event.key === "Enter") begin(); });
  name.focus();
}

function next() {
  const number = state.answers.length;
  if (number >= data.items.length) return finish();
  const item = data.items[number];
  const before = data.items[number - 1];
  if (before && before.block !== item.block && !(trial && trial.phase === "pause")) return pause(item.block);
  trial = { item, phase: "loading", confidence: null };
  draw();
}
function pause(block) {
  trial = { phase: "pause" };
  const go = make("button", { className: "main", text: "Continue", onclick: next });
  show(make("div", { className: "card" }, make("h2", { text: `Block ${block} of ${data.blocks} is finished` }),
    make("p", { text: "Rest your eyes as long as you like. The time of a pause is not counted." }), make("p", {}, go)));
  go.focus();
}

function draw() {
  const number = state.answers.length;
  const image = make("img", { alt: `Cell ${number + 1}`, draggable: "false" });
  image.addEventListener("load", () => { // the clock starts when the image has been painted
    requestAnimationFrame(() => requestAnimationFrame(() => {
      if (trial.phase !== "loading") return;
      trial.shown = performance.now(); trial.phase = "answer"; side();
    }));
  });
  image.src = trial.item.image;
  trial.image = image;
  trial.side = make("section", { className: "side", "aria-label": "Answer" });
  show(make("div", { className: "trial" },
    make("div", { className: "stage", tabindex: "0", role: "region", "aria-label": `Cell ${number + 1} of ${data.items.length}` }, image),
    trial.side));
  scale(); side();
  say(`Cell ${number + 1} of ${data.items.length}. ${question}`);
}
function scale() {
  trial.image.width = trial.image.height = data.side * zoom;
  trial.image.style.imageRendering = zoom >= 6 ? "pixelated" : "auto";
}
function zoomBy(step) {
  zoom = Math.min(10, Math.max(1, zoom + step));
  scale();
  say(`Zoom ${zoom}`);
}

function side() {
  const number = state.answers.length;
  const { phase } = trial;
  const options = phase === "confidence" ? data.confidence : data.choices;
  const pick = phase === "confidence" ? rate : answer;
  const group = make("fieldset", { className: "choices" },
    make("legend", { text: phase === "confidence" ? "How confident are you?" : question }),
    ...options.map((option, index) => make("button", {
      disabled: phase === "loading" || phase === "feedback",
      "aria-pressed": phase === "feedback" && option === trial.answer ? "true" : null,
      onclick: () => pick(index) }, key(String(index + 1)), option)));
  trial.side.replaceChildren(
    make("p", { className: "small", text: `Cell ${number + 1} of ${data.items.length}, block ${trial.item.block} of ${data.blocks}` }),
    make("progress", { max: data.items.length, value: number, "aria-label": "Cells answered" }),
    ...(phase === "confidence"
      ? [make("p", { text: `Your answer: ${trial.answer}` }), group,
        make("button", { onclick: takeBack }, key("Esc"), "Change the answer")]
      : phase === "feedback" ? feedback() : [group]),
    make("div", { className: "row" }, make("button", { onclick: () => zoomBy(1), "aria-label": "Zoom in" }, key("+"), "larger"),
      make("button", { onclick: () => zoomBy(-1), "aria-label": "Zoom out" }, key("−"), "smaller")));
}
function answer(index) {
  trial.milliseconds = Math.round(performance.now() - trial.shown);
  trial.answer = data.choices[index];
  trial.phase = "confidence";
  side();
  say(`${trial.answer}. How confident are you?`);
}
function takeBack() { trial.phase = "answer"; trial.answer = null; side(); say("Taken back."); }
function rate(index) {
  trial.record = { item: trial.item.id, answer: trial.answer, confidence: index + 1, milliseconds: trial.milliseconds };
  if (!teaching) return proceed();
  trial.phase = "feedback"; // the cell is counted as answered when the reader goes on
  side();
}
function proceed() { state.answers.push(trial.record); keep(); next(); }

function feedback() {
  const { truth } = trial.item;
  const right = truth.answer === trial.answer;
  const verdict = right ? `Right: ${truth.answer}.` : `It is ${truth.answer}; you said ${trial.answer}.`;
  const go = make("button", { className: "main", onclick: proceed }, "Next cell (Enter)");
  setTimeout(() => go.focus(), 0);
  say(verdict);
  return [
    make("p", { className: `verdict ${right ? "right" : "wrong"}`, text: verdict }),
    truth.synthetic ? make("p", {}, make("span", { className: "mark", text: "synthetic image" }),
      document.createTextNode(" made by a program to look like this class; no patient's cell")) : null,
    make("p", { className: "small", text: truth.panel || "" }),
    criteria(truth.category),
    right || data.mode === "origin" ? null : criteria(trial.answer),
    go, progressByClass([...state.answers, trial.record])].filter(Boolean);
}
function criteria(category) {
  const lines = Object.entries(data.criteria[category] || {});
  if (!lines.length) return null;
  return make("details", { open: category === trial.item.truth.category },
    make("summary", { text: `What to look at in ${category}` }),
    make("dl", {}, ...lines.flatMap(([label, text]) => [make("dt", { text: label }), make("dd", { text })])));
}
function progressByClass(answers) {
  const rows = new Map();
  for (const one of answers) {
    const { truth } = data.items.find((item) => item.id === one.item);
    const row = rows.get(truth.category) || { right: 0, all: 0 };
    row.all += 1; row.right += Number(truth.answer === one.answer);
    rows.set(truth.category, row);
  }
  return make("table", {}, make("caption", { className: "small", text: "Your progress by class" }),
    make("thead", {}, make("tr", {}, ...["class", "right", "seen"].map((title) => make("th", { scope: "col", text: title })))),
    make("tbody", {}, ...[...rows].sort().map(([name, row]) => make("tr", {}, make("th", { scope: "row", text: name }),
      make("td", { className: "n", text: row.right }), make("td", { className: "n", text: row.all })))));
}

function result() {
  return { quiz: data.quiz, order: data.order, mode: data.mode, reader: state.reader, answers: state.answers };
}
function csv() {
  const quoted = (value) => `"${String(value).replaceAll('"', '""')}"`;
  const lines = state.answers.map((one) => [data.quiz, quoted(state.reader), one.item, one.answer, one.confidence, one.milliseconds]);
  return [["quiz", "reader", "item", "answer", "confidence", "milliseconds"], ...lines].map((line) => line.join(",") + "\n").join("");
}
function download(content, kind, ending) {
  const link = make("a", { download: `answers-${state.reader.replace(/[^\p{L}\p{N}_-]+/gu, "_")}.${ending}`,
    href: `data:${kind};charset=utf-8,${encodeURIComponent(content)}` });
  link.click();
}
function finish() {
  trial = null;
  const save = make("button", { className: "main", text: "Save the answers (JSON)",
    onclick: () => download(JSON.stringify(result(), null, 1), "application/json", "json") });
  show(make("div", { className: "card" }, make("h2", { text: "Finished. Thank you." }),
    make("p", { text: teaching ? "Save your answers if your teacher asks for them."
      : "Save the answers and send the file to the organiser of the study. One of the two files is enough." }),
    make("div", { className: "row" }, save,
      make("button", { text: "Save as CSV", onclick: () => download(csv(), "text/csv", "csv") })),
    teaching ? progressByClass(state.answers) : null,
    make("p", {}, make("button", { text: "Back to the beginning", onclick: start })),
    ...data.notes.map((note) => make("p", { className: "small", text: note }))));
  save.focus();
}

document.addEventListener("keydown", (event) => {
  if (!trial || event.ctrlKey || event.metaKey || event.altKey || event.target.tagName === "INPUT") return;
  if (event.key === "+" || event.key === "=") zoomBy(1);
  else if (event.key === "-") zoomBy(-1);
  else if (event.key === "Escape" && trial.phase === "confidence") takeBack();
  else if (/^[1-9]$/.test(event.key)) {
    const index = Number(event.key) - 1;
    if (trial.phase === "answer" && index < data.choices.length) answer(index);
    else if (trial.phase === "confidence" && index < data.confidence.length) rate(index);
  } else return;
  event.preventDefault();
});
start();
