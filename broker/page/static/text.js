// Numbers, times and elements for people. Text only ever becomes text, whatever a device calls itself.

export const byId = (id) => document.getElementById(id);

export function size(bytes) {
  for (const [unit, scale] of [["GB", 1e9], ["MB", 1e6], ["kB", 1e3]]) if (bytes >= scale) return `${(bytes / scale).toFixed(1)} ${unit}`;
  return `${Math.round(bytes ?? 0)} B`;
}

export const count = (value) => (value ?? 0).toLocaleString("en");

export const short = (value) => (value == null ? "–" : Number(value.toPrecision(3)).toString());

export function time(seconds) {
  if (seconds == null) return "";
  const when = new Date(seconds * 1000);
  const today = when.toDateString() === new Date().toDateString();
  return today ? when.toLocaleTimeString("en-GB") : `${when.toLocaleDateString("en-CA")} ${when.toLocaleTimeString("en-GB")}`;
}

export function make(tag, attributes = {}, ...inside) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...inside);
  return element;
}

export function say(id, text) {
  const element = byId(id);
  if (element.textContent !== text) element.textContent = text;
}

// The address names the task and the device: #TASK or #TASK/device/NAME.
export function address() {
  const [task, kind, name] = location.hash.slice(1).split("/").map(decodeURIComponent);
  return { task, name: kind === "device" ? (name ?? "") : "" };
}

export const deviceLink = (name) => make("a", { href: `#${address().task}/device/${name}` }, name);

export const SYMBOLS = { training: "▲", sending: "●", waiting: "■", offline: "✕" };

export const stateMark = (state) => make("span", { class: `state ${state}` }, make("i", { "aria-hidden": "true" }, SYMBOLS[state] ?? ""), state);

// Rows of a table by their key: those that stay are changed in place, so that focus and scrolling stay too.
// A cell is text, or [key, () => element], made again only when its key changes.
export function fill(body, rows, numeric = {}) {
  const before = new Map([...body.children].map((row) => [row.dataset.key, row]));
  let at = body.firstElementChild;
  for (const [key, cells] of rows) {
    let row = before.get(key);
    before.delete(key);
    if (!row) {
      row = make("tr", { role: "row" });
      row.dataset.key = key;
      cells.forEach((_, index) => {
        const cell = index ? make("td", { role: "cell" }) : make("th", { scope: "row", role: "rowheader" });
        if (index in numeric) {
          cell.className = "n";
          cell.dataset.name = numeric[index];
        }
        row.append(cell);
      });
    }
    cells.forEach((value, index) => {
      const cell = row.children[index];
      const [mark, build] = Array.isArray(value) ? value : [String(value), null];
      if (cell.dataset.mark === mark) return;
      cell.dataset.mark = mark;
      cell.replaceChildren(build ? build() : mark);
    });
    if (row === at) at = at.nextElementSibling;
    else body.insertBefore(row, at);
  }
  for (const row of before.values()) row.remove();
}

export async function ask(path, query) {
  const answer = await fetch(`${path}?${new URLSearchParams(query)}`);
  if (answer.status === 401) location.reload(); // the session has ended: the form
  if (!answer.ok) throw new Error((await answer.text()).trim());
  return answer.json();
}
