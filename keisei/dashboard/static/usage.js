// What a run has used of time, money and machines, what has held its loop, and its verdict.

import { get } from "./api.js";
import { colour } from "./chart.js";
import { duration, el, number, put } from "./dom.js";
import { table } from "./tables.js";
import { counted, inUnit, percent, seconds } from "./units.js";

export async function showUsage(host, run, wanted) {
  put(host, el("p", { class: "dim" }, "The run's journals are being read…"));
  const found = await get(`/api/run/${encodeURIComponent(run)}/usage`);
  if (!wanted()) return;
  const all = [time(found.time), lag(found.lag), cost(found.cost), resources(found.resources)].filter(Boolean);
  put(host, Object.entries(found.problems).map(([name, text]) => el("p", { class: "problem" }, `${name}: ${text}`)),
    all.length ? el("div", { class: "cards" }, all) : el("p", { class: "empty" }, "Nothing was measured."));
}

const card = (title, ...content) => el("section", { class: "usage", "aria-label": title }, el("h2", {}, title), content);
const said = (words) => words.length ? el("p", { class: "summary" }, words.join(", ")) : null;

function time(known) {
  if (!known) return null;
  const phases = Object.entries(known.seconds).filter(([, s]) => s > 0).slice(0, 60), words = [];
  const dot = (i) => { const one = el("span", { class: "dot" }); one.style.background = colour(i); return one; };
  const bar = el("div", { class: "shares", "aria-hidden": "true" }, phases.map(([name], i) => {
    const part = el("span", { title: `${name}: ${percent(known.shares[name])}` });
    part.style.flexGrow = known.shares[name];
    part.style.background = colour(i);
    return part;
  }));
  if (known.goodput !== null) words.push(`goodput ${percent(known.goodput)}`);
  const speed = known.throughput;
  if (speed) {
    words.push(`${number(speed.steps_per_s, 4)} steps/s`, `lately ${number(speed.recent_steps_per_s, 4)}`);
    if (speed.time_to_go_s) words.push(`${duration(speed.time_to_go_s)} to go to ${number(speed.total_steps)}`);
  }
  return card("Time", bar, table("Time by phase", ["Phase", "Time", "Share"],
    phases.map(([name, s], i) => [[dot(i), name], duration(s), percent(known.shares[name])]), [1, 2]), said(words));
}

function lag(known) {
  if (!known) return null;
  const rows = known.functions.map((one) => [one.function ?? "(not seen)", one.file ? el("span", { title: one.file }, `${one.file.slice(one.file.lastIndexOf("/") + 1)}:${one.line}`) : "", number(one.count),
    seconds(one.seconds), seconds(one.longest_s), Object.entries(one.causes).map(([cause, n]) => `${cause} ${number(n)}`).join(", ")]);
  return card("Event loop", said([counted(known.stalls, "stall"), `${seconds(known.seconds)} in all`, `the longest ${seconds(known.longest_s)}`]),
    table("What has held the event loop", ["Function", "Where", "Stalls", "Total", "Longest", "Causes"], rows, [2, 3, 4]));
}

function cost(known) {
  if (!known) return null;
  const rows = known.lines.map((one) => [one.what, one.of || "", one.amount, one.currency]);
  for (const [currency, total] of Object.entries(known.totals)) rows.push([el("b", {}, "total"), "", el("b", {}, total), currency]);
  return card("Cost", rows.length ? table("Cost", ["What", "Of", "Amount", ""], rows, [2, 3]) : null,
    known.unpriced.map((text) => el("p", { class: "unpriced" }, `unpriced: ${text}`)));
}

function resources(known) {
  if (!known) return null;
  const named = (name) => `system/${name}`, limits = known.limits, words = [counted(known.nodes, "node")];
  if (known.gpus !== null) words.push(counted(known.gpus, "GPU"));
  if (limits.cpus !== undefined) words.push(`${number(limits.cpus)} of ${number(limits.cpus_host ?? limits.cpus)} CPUs`);
  if (limits.memory_limit_bytes !== undefined) words.push(`at most ${inUnit("system/bytes", limits.memory_limit_bytes)} of memory`);
  words.push(known.energy_j === null ? "energy not measured" : `${number(known.energy_j / 3.6e6, 4)} kWh measured`);
  const rows = Object.keys(known.peaks).sort().map((name) => [name, inUnit(named(name), known.peaks[name]),
    known.means[name] === undefined ? "" : inUnit(named(name), known.means[name])]);
  return card("Machine", said(words), table("Peaks and means", ["Resource", "Peak", "Mean"], rows, [1, 2]),
    Object.entries(known.states).map(([source, state]) => el("p", { class: "dim" }, `${source}: ${state}`)));
}

const KINDS = { better: "ok", same: "else", worse: "bad", undecided: "warn" };

export async function showVerdict(host, run, wanted) {
  put(host, el("p", { class: "dim" }, "The runs' journals are being read…"));
  const found = await get(`/api/run/${encodeURIComponent(run)}/verdict`);
  if (!wanted()) return;
  const reasons = Object.entries(found.left_out).map(([name, why]) => el("p", { class: "dim" }, `${name} does not count: ${why.join("; ")}`));
  if (!found.against.length) {
    put(host, el("p", { class: "empty" }, reasons.length ? "No baseline is comparable with this run." :
      "No other run has the tag baseline: the verdict is against those that have it."), reasons);
    return;
  }
  const rows = found.verdicts.map((one) => [one.metric, el("span", { class: `state state-${KINDS[one.outcome]}` }, one.outcome),
    number(one.value), number(one.expected), one.low === null ? "–" : `${number(one.low)} to ${number(one.high)}`,
    one.difference === null ? "–" : `${one.difference > 0 ? "+" : ""}${percent(one.difference)}`, one.reason]);
  put(host, el("p", { class: "summary" }, `Against ${counted(found.against.length, "baseline")}: ${found.against.join(", ")}`),
    rows.length ? table("Verdict by metric", ["Metric", "Verdict", "Value", "Expected", "Noise band", "Difference", "Why"], rows, [2, 3, 4, 5])
      : el("p", { class: "empty" }, "There is no metric to judge."),
    found.unknown.length ? el("p", { class: "dim" }, `Not judged, for nobody has said which way they are better: ${found.unknown.slice(0, 20).join(", ")}`) : null, reasons);
}
