// Asking the studio's program, waiting for its tasks, and building elements.
const tasks = new Map();

export async function ask(method, path, body) {
  const options = { method };
  if (body instanceof Blob) options.body = body;
  else if (body !== undefined) options.body = JSON.stringify(body);
  let response;
  try { response = await fetch(`/api${path}`, options); } catch { throw new Error("the studio does not answer; is it still running?"); }
  const content = await response.json().catch(() => ({ error: response.statusText || String(response.status) }));
  if (!response.ok) throw new Error(content.error || "refused");
  return content;
}
export const query = (values) => new URLSearchParams(values).toString();

// Wait for a task; it is shown with a button that cancels it. Returns its result, or undefined when it was cancelled.
export async function finished(id, title) {
  tasks.set(id, title); showTasks();
  try {
    for (;;) {
      const task = await ask("GET", `/tasks/${id}`);
      if (task.state === "done") return task.result;
      if (task.state === "failed") throw new Error(task.error);
      if (task.state === "cancelled") { say(`Cancelled: ${title}.`); return undefined; }
    }
  } finally { tasks.delete(id); showTasks(); }
}
export function cancel(id) { return ask("DELETE", `/tasks/${id}`); }
function showTasks() {
  const area = document.getElementById("tasks");
  if (!tasks.size) { area.replaceChildren(); return; }
  const [title] = tasks.values();
  const stop = make("button", { onclick: () => [...tasks.keys()].forEach(cancel) }, tasks.size > 1 ? `Cancel all ${tasks.size}` : "Cancel");
  area.replaceChildren(make("span", {}, `${title} …`), stop);
}

export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "colour") element.style.background = value;
    else if (name === "border") element.style.borderColor = value;
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}
export function say(text, problem = false) {
  const line = document.getElementById("said");
  line.textContent = text;
  line.classList.toggle("problem", problem);
}
// Run what a button does; an error is said in the status line.
export const careful = (work) => async (...values) => {
  try { return await work(...values); } catch (error) { say(error.message, true); return undefined; }
};
export function labelled(text, field) {
  field.id ||= `field-${Math.random().toString(36).slice(2)}`;
  return make("div", {}, make("label", { for: field.id }, text), field);
}
export function choice(options, chosen) {
  return make("select", {}, ...options.map(([value, text]) => make("option", { value, selected: value === chosen }, text)));
}
export const about = {};
export const rgb = (category) => `rgb(${(about.colours?.[category] || [90, 90, 90]).join(",")})`;
