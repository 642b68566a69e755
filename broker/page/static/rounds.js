// Rounds with who contributed, the ledger's answers, and what happened.
import { ask, byId, count, deviceLink, fill, make, size, time } from "./text.js";

const EVENTS = 100;
const happened = new Map();
let task = "";
let before = 0; // 0: the newest

export function begin(name) {
  task = name;
  before = 0;
  happened.clear();
  byId("events").replaceChildren();
}

export function rounds(found) {
  fill(byId("rounds"), found.map((each) => [String(each.number), cells(each)]), { 2: "updates", 3: "frames", 4: "bytes" });
  byId("newest").disabled = !before;
  byId("older").disabled = !found.length || found[found.length - 1].number <= 1;
}

const cells = (round) => [
  round.number,
  time(round.made_s),
  count(round.updates),
  count(round.frames),
  round.frame_bytes == null ? "not recorded" : size(round.frame_bytes),
  [`${round.number} ${round.contributors}`, () => who(round)],
];

function who(round) {
  const list = make("span", { class: "who" }, ...names(round.devices));
  const left = round.contributors - round.devices.length;
  if (left > 0) {
    const more = make("button", { type: "button" }, `and ${count(left)} more`);
    more.addEventListener("click", async () => list.replaceChildren(...names(await ask("api/contributors", { task, version: round.number }))));
    list.append(" ", more);
  }
  return list;
}

const names = (devices) => devices.flatMap((name, index) => (index ? [", ", deviceLink(name)] : [deviceLink(name)]));

export const refresh = async () => rounds(await ask("api/rounds", before ? { task, before } : { task }));

export const atNewest = () => !before;

byId("older").addEventListener("click", () => {
  before = Number(byId("rounds").lastElementChild?.dataset.key ?? 0);
  refresh().catch(() => {});
});
byId("newest").addEventListener("click", () => {
  before = 0;
  refresh().catch(() => {});
});

export function verdicts({ answers, unreadable }) {
  const rows = answers.map((each) => [`${each.verdict} ${each.reason}`, [each.verdict, each.reason || "–", count(each.count)]]);
  const dropped = Object.entries(unreadable).map(([reason, frames]) => [`unreadable ${reason}`, ["unreadable, dropped", reason, count(frames)]]);
  const none = [["none", ["none yet", "–", "0"]]];
  fill(byId("verdicts"), rows.length + dropped.length ? [...rows, ...dropped] : none, { 2: "frames" });
}

export function events(arrived) {
  for (const each of arrived) {
    const key = JSON.stringify(each);
    if (happened.has(key)) continue;
    happened.set(key, each);
    const line = make("li", {}, make("time", {}, time(each.time_s)), " ");
    if (each.device) line.append(deviceLink(each.device), " ");
    line.append(each.text);
    byId("events").prepend(line);
  }
  while (byId("events").children.length > EVENTS) {
    byId("events").lastElementChild.remove();
    happened.delete(happened.keys().next().value);
  }
}
