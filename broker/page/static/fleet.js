// The fleet: how many devices in which state, what they wait for, and a page of them that was asked for.
import { ask, byId, count, deviceLink, fill, make, say, size, stateMark, SYMBOLS, time } from "./text.js";

const STATES = ["training", "sending", "waiting", "offline"];
const NUMERIC = { 3: "version", 4: "outbox", 5: "counted", 6: "refused", 7: "sent" };
const wanted = { state: "", search: "", page: 0 };
let task = "";
let asked = 0;

export function begin(name) {
  task = name;
  Object.assign(wanted, { state: "", search: "", page: 0 });
  byId("search").value = "";
}

export function summary({ states, reasons }) {
  const total = STATES.reduce((sum, state) => sum + states[state], 0);
  const bar = byId("bar");
  if (!bar.children.length) bar.append(...STATES.map((state) => make("span", { class: state })));
  STATES.forEach((state, index) => (bar.children[index].style.flexGrow = states[state]));
  const group = byId("states");
  if (!group.children.length) group.append(...["", ...STATES].map(button));
  [total, ...STATES.map((state) => states[state])].forEach((value, index) => {
    group.children[index].lastElementChild.textContent = count(value);
    group.children[index].setAttribute("aria-pressed", String(wanted.state === ["", ...STATES][index]));
  });
  const told = JSON.stringify(reasons);
  if (byId("reasons").dataset.told !== told) {
    byId("reasons").dataset.told = told;
    byId("reasons").replaceChildren(...reasons.map(([reason, devices]) => make("li", {}, `${count(devices)} × ${reason}`)));
  }
  return { total, online: total - states.offline };
}

function button(state) {
  const made = make("button", { type: "button", class: state, "aria-pressed": "false" });
  if (state) made.append(make("i", { "aria-hidden": "true", class: "state" }, SYMBOLS[state]), " ");
  made.append(`${state || "all"} `, make("b"));
  made.addEventListener("click", () => turn({ state, page: 0 }));
  return made;
}

export function page(found) {
  const pages = Math.max(1, Math.ceil(found.total / found.per_page));
  if (found.page >= pages) return turn({ page: pages - 1 });
  fill(byId("devices"), found.rows.map((row) => [row.name, cells(row)]), NUMERIC);
  say("found", found.total === 1 ? "1 device" : `${count(found.total)} devices`);
  say("pages", `page ${found.page + 1} of ${pages}`);
  byId("previous").disabled = found.page === 0;
  byId("next").disabled = found.page + 1 >= pages;
}

const cells = (row) => [
  [row.name, () => deviceLink(row.name)],
  [row.state, () => stateMark(row.state)],
  row.state === "offline" ? `${row.note}${row.since_s ? `, since ${time(row.since_s)}` : ""}` : row.note,
  row.version < 0 ? "none" : row.version,
  count(row.outbox),
  count(row.applied),
  count(row.refused),
  size(row.up_bytes),
];

export async function refresh() {
  const mine = ++asked;
  const found = await ask("api/devices", { task, ...wanted });
  if (mine === asked) page(found);
}

function turn(change) {
  Object.assign(wanted, change);
  [...byId("states").children].forEach((each, index) => each.setAttribute("aria-pressed", String(wanted.state === ["", ...STATES][index])));
  return refresh().catch(() => {});
}

let typing = 0;
byId("search").addEventListener("input", (event) => {
  clearTimeout(typing);
  typing = setTimeout(() => turn({ search: event.target.value.trim(), page: 0 }), 200);
});
byId("previous").addEventListener("click", () => turn({ page: Math.max(0, wanted.page - 1) }));
byId("next").addEventListener("click", () => turn({ page: wanted.page + 1 }));
