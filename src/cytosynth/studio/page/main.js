// The tabs of the studio, and what they begin with.
import { about, ask, careful, say } from "./api.js";
import { CorrectTab, LookTab } from "./data.js";
import { EditTab } from "./edit.js";
import { QuizTab } from "./quiz.js";

const kinds = { edit: EditTab, correct: CorrectTab, look: LookTab, quiz: QuizTab };
const tabs = {};
const buttons = [...document.querySelectorAll('[role="tab"]')];

const open = careful(async (name, detail) => {
  for (const button of buttons) {
    const chosen = button.getAttribute("aria-controls") === name;
    button.setAttribute("aria-selected", String(chosen));
    button.tabIndex = chosen ? 0 : -1;
    document.getElementById(button.getAttribute("aria-controls")).hidden = !chosen;
  }
  if (!tabs[name]) { tabs[name] = new kinds[name](document.getElementById(name)); await tabs[name].start(detail); }
  else if (name !== "edit") await tabs[name].start();
});
for (const [index, button] of buttons.entries()) {
  button.addEventListener("click", () => open(button.getAttribute("aria-controls")));
  button.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (step) { const other = buttons[(index + step + buttons.length) % buttons.length]; other.focus(); other.click(); }
  });
}
careful(async () => {
  Object.assign(about, await ask("GET", "/about"));
  if (about.problem) say(about.problem, true);
  const [name, detail] = location.hash.slice(1).split("/");
  await open(kinds[name] ? name : "edit", detail);
  document.body.dataset.ready = "true";
})();
