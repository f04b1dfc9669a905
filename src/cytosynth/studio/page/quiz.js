// The tab Quiz: make reader studies and teaching pages, score their answers.
import { ask, careful, choice, finished, labelled, make, query, say } from "./api.js";

export class QuizTab {
  constructor(panel) { this.panel = make("div", { class: "page" }); panel.append(this.panel); }
  async start() { this.places = await ask("GET", "/places"); this.refresh(); }
  refresh() {
    this.panel.replaceChildren(make("div", { class: "two" }, this.makeForm(), this.scoreForm()), this.result || "");
  }
  makeForm() {
    const sets = this.places.filter(({ kind }) => kind === "set").map(({ name, title }) => [name, title]);
    const number = (value, max) => make("input", { type: "number", min: "1", max: String(max), value: String(value) });
    const field = { real: choice([["", "none"], ...sets], ""), synthetic: choice([["", "none"], ...sets], ""),
      mode: choice([["class", "Which class?"], ["origin", "Real or synthetic?"]], "class"), kind: choice([["study", "Study: no answers on the page"], ["teaching", "Teaching: feedback"]], "study"),
      categories: make("input", { type: "text", value: "NILM, ASC-US, ASC-H, LSIL, HSIL" }), per_class: number(10, 1000), blocks: number(2, 100), readers: number(1, 100),
      side: number(128, 512), real_scale: make("input", { type: "number", min: "0.01", max: "8", step: "any", value: "1" }),
      match: choice([["", "nothing"], ["size", "nucleus size"], ["sharpness", "sharpness"], ["size,sharpness", "both"]], ""), to: make("input", { type: "text", value: "quiz", maxlength: "80" }),
      moodle: make("input", { type: "checkbox" }) };
    const go = careful(async () => {
      const list = (text) => text.split(",").map((part) => part.trim()).filter(Boolean);
      const settings = { mode: field.mode.value, kind: field.kind.value, categories: list(field.categories.value), match: list(field.match.value), real_scale: Number(field.real_scale.value) };
      for (const name of ["per_class", "blocks", "readers", "side"]) settings[name] = Number(field[name].value);
      const task = await ask("POST", "/quiz", { real: field.real.value, synthetic: field.synthetic.value, to: field.to.value, moodle: field.moodle.checked, settings });
      const made = await finished(task.id, "Making a quiz");
      if (!made) return;
      say(`${made.items} cells; give readers the pages, keep key.json.`);
      this.result = make("div", {}, make("h2", {}, "Pages"), ...made.pages.map((page) => make("p", {}, make("a", { href: `/quiz/${made.name}/pages/${page}`, target: "_blank" }, page))));
      this.places = await ask("GET", "/places"); this.refresh();
    });
    const titles = { real: "Real cells", synthetic: "Synthetic cells", mode: "Question", kind: "Kind", categories: "Categories", per_class: "Cells of each category and set", blocks: "Blocks", readers: "Readers (pages)",
      side: "Side of a square, pixels", real_scale: "Scale of the real images", match: "Match real and synthetic by", to: "Name of the folder", moodle: "Also Moodle questions (teaching)" };
    return make("div", {}, make("h2", {}, "Make a quiz"), make("div", { class: "form" }, ...Object.entries(titles).map(([name, title]) => labelled(title, field[name]))), make("div", { class: "row" }, make("button", { class: "main", onclick: go }, "Make the quiz")));
  }
  scoreForm() {
    const quizzes = this.places.filter(({ kind }) => kind === "quiz").map(({ name, title }) => [name, title]);
    const quiz = choice([["", "Choose a quiz …"], ...quizzes], "");
    const files = make("input", { type: "file", multiple: true, accept: ".json,.csv" });
    const go = careful(async () => {
      const answers = await Promise.all([...files.files].map((file) => file.text()));
      const done = await ask("POST", "/quiz/score", { name: quiz.value, answers });
      say("Scored; tables, plot and report.md are in the output folder.");
      this.result = make("div", {}, ...Object.values(done.tables).map(table), make("img", { alt: "Accuracy by reader and class, and confusion of answers", src: `/api/quiz/plot?${query({ name: done.name })}` }));
      this.refresh();
    });
    return make("div", {}, make("h2", {}, "Score answers"), labelled("Quiz", quiz), labelled("Answer files, one per reader", files), make("div", { class: "row" }, make("button", { class: "main", onclick: go }, "Score")));
  }
}
function table({ title, columns, rows }) {
  const said = (value) => typeof value === "number" && !Number.isInteger(value) ? value.toFixed(3) : value ?? "";
  return make("div", {}, make("h2", {}, title), make("table", {}, make("thead", {}, make("tr", {}, ...columns.map((name) => make("th", { scope: "col" }, name.replaceAll("_", " "))))),
    make("tbody", {}, ...rows.map((row) => make("tr", {}, ...row.map((value) => make("td", { class: typeof value === "number" ? "n" : "" }, String(said(value)))))))));
}
