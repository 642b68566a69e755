// The page's root: one first answer with everything, then changes as server-sent events; it only ever reads.
import * as charts from "./charts.js";
import * as device from "./device.js";
import * as fleet from "./fleet.js";
import * as rounds from "./rounds.js";
import { address, ask, byId, count, make, say, short, size, time } from "./text.js";

const EVERY_MS = 1000;
let late = null; // mean accuracy of the last fifth of the versions
let task = "";
let stream = null;
let stale = false; // the fleet has changed since its page was asked for
let live = false; // changes arrive
let asked = 0;
let now = {};

// Of the task that the address names, or else of the one that is alive, which it names from then on.
async function begin() {
  const mine = ++asked;
  stream?.close();
  live = false;
  link("connecting …", false);
  const first = await ask("api/first", { task: address().task });
  if (mine !== asked) return;
  task = first.task;
  choices(first.tasks);
  if (!task) return link("no task yet: edgebroker task add", true);
  if (address().task !== task) history.replaceState(null, "", `#${task}`);
  for (const each of document.querySelectorAll("a.overview")) each.href = `#${task}`;
  charts.forget();
  fleet.begin(task);
  rounds.begin(task);
  rounds.rounds(first.rounds);
  take(first);
  fleet.page(first.devices);
  stale = false;
  listen(first.after);
  await route();
}

function choices(tasks) {
  byId("task").replaceChildren(...tasks.map((name) => make("option", { value: name }, name)));
  byId("task").value = task;
}

function take(change) {
  if (change.served) {
    if (stream && !change.served.tasks.includes(task)) return begin().catch(lost); // it was removed
    choices(change.served.tasks);
  }
  if (change.points) charts.take(change.points);
  if (change.now) {
    const made = now.version !== change.now.version;
    now = change.now;
    if (made && rounds.atNewest() && stream) rounds.refresh().catch(() => {});
    tiles();
  }
  if (change.learning) {
    charts.mark(change.learning.best);
    late = change.learning.late;
    const { wrong, rests } = change.learning;
    const told = [wrong, rests && `the task rests: ${rests}; new data lets it go on`].filter(Boolean).join(". ");
    say("learning-told", told);
    byId("learning-told").hidden = !told;
  }
  if (change.points || change.learning) worth();
  if (change.fleet) {
    const { total, online } = fleet.summary(change.fleet);
    say("t-online", `${count(online)} of ${count(total)}`);
    say("t-outbox", `${count(change.fleet.outbox)} frames wait on them`);
  }
  if (change.verdicts) rounds.verdicts(change.verdicts);
  if (change.events) rounds.events(change.events);
  if (change.statuses) stale = true;
}

function tiles() {
  say("t-version", count(now.version));
  say("t-made", `made ${time(now.made_s)}`);
  say("t-next", `${count(now.waiting)} of ${count(now.goal)}`);
  say("t-bytes", size(now.frame_bytes));
  say("t-up", `${size(now.upload_bytes)} came since the start, all included`);
  say("t-saved", size(Math.max(0, now.dense_bytes - now.frame_bytes)));
  say("t-times", now.frame_bytes ? `${count(Math.round(now.dense_bytes / now.frame_bytes))} times fewer than dense float32` : "");
  standing();
}

// What is shown may be old until the stream runs.
function standing() {
  if (live) link(now.wrong || "live", Boolean(now.wrong));
}

function worth() {
  const shown = charts.evaluated();
  const value = (point) => point.metrics[charts.metric()];
  say("t-metric-name", charts.metric() || "Metric");
  say("t-metric", shown.length ? short(value(shown[shown.length - 1])) : "–");
  const best = charts.best() == null ? "" : `, best is version ${charts.best()}`;
  const lately = late == null || charts.metric() !== "accuracy" ? "" : `, ${short(late)} late (mean of the last fifth)`;
  const version = `--version ${charts.best() == null ? "latest" : "best"}`;
  say("result", `edgebroker export ${task} ${version} --onnx ${task}.onnx\nedgebroker predict ${task} FILE ${version}`);
  say("t-gain", shown.length ? `${short(value(shown[0]))} in version ${shown[0].number}${lately}${best}` : "not evaluated");
}

function link(text, wrong) {
  say("link", text);
  byId("link").classList.toggle("wrong", wrong);
}

function listen(after) {
  stream = new EventSource(`api/stream?${new URLSearchParams({ task, after })}`);
  stream.onmessage = (event) => take(JSON.parse(event.data));
  stream.onopen = () => {
    live = true;
    standing();
  };
  stream.onerror = () => {
    live = false;
    link("connection lost, trying again …", true);
    if (stream.readyState === EventSource.CLOSED) setTimeout(() => begin().catch(lost), 3 * EVERY_MS);
  };
}

function lost(error) {
  link(`connection lost: ${error.message}`, true);
  setTimeout(() => begin().catch(lost), 3 * EVERY_MS);
}

async function route() {
  const wanted = address();
  if (wanted.task !== task) return begin();
  if (wanted.name) await device.open(task, wanted.name);
  else device.close();
}

addEventListener("hashchange", () => route().catch(lost));
addEventListener("metric", worth);
byId("task").addEventListener("change", (event) => (location.hash = event.target.value));
setInterval(() => {
  if (!stale || document.hidden || !task) return;
  stale = false;
  (device.current() ? device.refresh(task) : fleet.refresh()).catch(() => (stale = true));
}, EVERY_MS);
begin().catch(lost);
