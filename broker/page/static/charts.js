// The learning curve over versions and over bytes; every point can be read in the table below them too.
import { byId, fill, make, say, short, size, time } from "./text.js";

const TABLE = 30;
const points = new Map();
let plots = [];
let drawn = "";
let wanted = "";
let marked = null; // the best version

export function forget() {
  points.clear();
  marked = null;
  wanted = drawn = "";
  byId("metric").replaceChildren();
}

export function take(arrived) {
  for (const point of arrived) points.set(point.number, point);
  draw();
}

export const evaluated = () => sorted().filter((point) => metric() in point.metrics);

export const metric = () => wanted;

export const best = () => marked;

export function mark(number) {
  marked = number;
  draw();
}

const sorted = () => [...points.values()].sort((a, b) => a.number - b.number);

function choose() {
  const names = new Set(sorted().flatMap((point) => Object.keys(point.metrics)));
  const select = byId("metric");
  for (const name of [...names].sort()) if (![...select.options].some((option) => option.value === name)) select.append(make("option", { value: name }, name));
  if (!wanted) wanted = names.has("accuracy") ? "accuracy" : ([...names].sort()[0] ?? "");
  select.value = wanted;
}

function draw() {
  choose();
  const shown = evaluated();
  const values = shown.map((point) => point.metrics[wanted]);
  const baseline = wanted === "accuracy" && shown.some((point) => "majority" in point.metrics) ? shown.map((point) => point.metrics.majority ?? null) : null;
  const data = [shown.map((point) => point.number), shown.map((point) => point.frame_bytes)].map((xs) => [xs, values, ...(baseline ? [baseline] : [])]);
  const kind = `${wanted}${Boolean(baseline)}${shown.length > 0}`;
  if (kind !== drawn) build(kind, Boolean(baseline), shown.length > 0);
  plots.forEach((plot, index) => plot.setData(data[index]));
  describe(shown);
  say("th-metric", wanted || "metric");
  fill(byId("curve"), shown.slice(-TABLE).reverse().map((point) => [String(point.number), [point.number === marked ? `${point.number} (best)` : point.number, time(point.made_s), short(point.metrics[wanted]), size(point.frame_bytes)]]), { 2: wanted, 3: "bytes" });
}

function describe(shown) {
  if (!shown.length) return;
  const [first, last] = [shown[0], shown[shown.length - 1]];
  const told = `${wanted} from ${short(first.metrics[wanted])} in version ${first.number} to ${short(last.metrics[wanted])} in version ${last.number}`;
  byId("by-version").setAttribute("aria-label", `Line chart: ${told}`);
  byId("by-bytes").setAttribute("aria-label", `Line chart: ${told}, after ${size(last.frame_bytes)}`);
}

function build(kind, baseline, any) {
  drawn = kind;
  for (const plot of plots) plot.destroy();
  plots = any ? [plotted("by-version", "version", (value) => String(value), baseline), plotted("by-bytes", "bytes", size, baseline)] : [];
}

function plotted(id, x, format, baseline) {
  const style = getComputedStyle(document.documentElement);
  const color = (name) => style.getPropertyValue(name).trim();
  const axis = { stroke: color("--quiet"), grid: { stroke: color("--line"), width: 1 }, ticks: { stroke: color("--line"), width: 1 } };
  const told = (value, say) => (value == null ? "–" : say(value));
  const whole = x === "version" ? { incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000] } : { space: 70 };
  const series = [
    { label: x, value: (_, value) => told(value, format) },
    { label: wanted, stroke: color("--accent"), width: 2, points: { size: 5 }, value: (_, value) => told(value, short) },
  ];
  if (baseline) series.push({ label: "always the commonest class", stroke: color("--quiet"), dash: [6, 4], points: { show: false }, value: (_, value) => told(value, short) });
  const place = byId(id);
  const options = { ...room(place), series, scales: { x: { time: false } }, axes: [{ ...axis, ...whole, values: (_, splits) => splits.map(format) }, { ...axis, size: 48 }], cursor: { drag: { x: false, y: false } } };
  return new uPlot(options, [[], [], ...(baseline ? [[]] : [])], place);
}

// The legend takes the last 28 pixels.
const room = (place) => ({ width: Math.max(place.clientWidth, 200), height: 212 });

const again = () => {
  drawn = "";
  draw();
};
addEventListener("resize", () => plots.forEach((plot) => plot.setSize(room(plot.root.parentElement))));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
byId("metric").addEventListener("change", (event) => {
  wanted = event.target.value;
  again();
  dispatchEvent(new Event("metric"));
});
