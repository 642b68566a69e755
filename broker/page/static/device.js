// One device: its story in plain words, and the figures behind it.
import { ask, byId, count, fill, make, say, short, size, stateMark, time } from "./text.js";

let shown = "";

export const current = () => shown;

export async function open(task, name) {
  shown = name;
  byId("device").hidden = false;
  byId("overview").hidden = true;
  say("d-name", name);
  for (const id of ["d-state", "d-story", "d-facts", "d-recent"]) byId(id).replaceChildren();
  await refresh(task);
  byId("d-name").focus();
}

export function close() {
  if (!shown) return;
  shown = "";
  byId("device").hidden = true;
  byId("overview").hidden = false;
  byId("main").focus();
}

export async function refresh(task) {
  const name = shown;
  let found;
  try {
    found = await ask("api/device", { task, device: name });
  } catch (error) {
    return say("d-state", `Nothing is known of it: ${error.message}.`);
  }
  if (name !== shown) return;
  const said = found.said;
  byId("d-state").replaceChildren(...(said.state ? [stateMark(said.state), said.since_s ? ` since ${time(said.since_s)}` : "", said.note ? ` · ${said.note}` : ""] : ["has said nothing of itself"]));
  byId("d-story").replaceChildren(...found.story.map((line) => make("li", {}, line)));
  byId("d-facts").replaceChildren(...facts(found, said).map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, String(value)))));
  fill(byId("d-recent"), found.recent.map((each) => [`${each.update} ${each.received_s}`, frame(each)]), { 2: "from", 4: "examples", 5: "bytes" });
}

const frame = (each) => [each.update, time(each.received_s), each.base_version, each.version ?? "waits for the next", count(each.examples), each.size == null ? "forgotten" : size(each.size)];

function facts(found, said) {
  const percent = (fraction) => `${short(100 * fraction)} %`;
  const refusal = found.last_refusal;
  const known = said.state
    ? [
        ["Version", said.version < 0 ? `none, current is ${found.version}` : `${said.version}, current is ${found.version}`],
        ["Conditions", said.note || "nothing told"],
        ["Outbox: not sent yet", count(said.queued)],
        ["Outbox: await a receipt", count(said.sent)],
        ["Outbox: come back", count(said.returned)],
        ["Rounds trained", count(said.rounds)],
        ["Sent in this session", size(said.up_bytes)],
        ["Received in this session", size(said.down_bytes)],
        ["Begun anew", `${count(said.renewals)} times`],
      ]
    : [];
  return [
    ...known,
    ["Density", found.density == null ? `asked for ${percent(found.task_density)}` : `${percent(found.density)}, asked for ${percent(found.task_density)}`],
    ["Frames counted", count(found.applied)],
    ["Frames refused", count(found.refused)],
    ["Last refusal", refusal ? `frame ${refusal[0]}: ${refusal[1]}, ${time(refusal[2])}` : "none known"],
    ["Last frame came", time(found.last_frame_s) || "unknown"],
  ];
}
