// One chart: lines through what the server has found for each column of pixels.

import { duration, el, number, put } from "./dom.js";
import { inUnit, unitOf } from "./units.js";

const RIGHT = 10, TOP = 8, BOTTOM = 24;
const LIGHT = ["#2457c5", "#c2410c", "#15803d", "#a21caf", "#0e7490", "#b45309", "#be123c", "#4d7c0f", "#6d28d9", "#475569"];
const DARK = ["#7aa8ff", "#fb9a5b", "#4ade80", "#e879f9", "#22d3ee", "#fbbf24", "#fb7185", "#a3e635", "#a78bfa", "#94a3b8"];

export function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

export function colour(index) {
  const all = isDark() ? DARK : LIGHT;
  return all[index % all.length];
}

export function ticks(low, high, most, least = 0) {
  const raw = Math.max(high / Math.max(1, most) - low / Math.max(1, most), least); // their difference may be infinite
  if (!(raw > 0) || !Number.isFinite(raw)) return [low];
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((f) => f * power).find((s) => s >= raw * 0.999);
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9 && found.length < 100; i++) found.push(i * step);
  return found;
}

function logTicks(low, high, most) {
  const from = Math.ceil(low - 1e-9), to = Math.floor(high + 1e-9);
  if (to - from < 1) return ticks(10 ** low, 10 ** high, most).filter((t) => t > 0).map(Math.log10);
  const step = Math.max(1, Math.ceil((to - from) / most));
  const found = [];
  for (let i = from; i <= Math.min(to, 308); i += step) if (i > -308) found.push(i);
  return found;
}

export function short(value, step) { // the text of a mark, and how far it is from the next one
  const size = Math.abs(value);
  if (!size || size < Math.abs(step) * 1e-6) return "0";
  if (size >= 1e15 || size < 1e-4) return value.toExponential(Math.abs(step) / size < 0.09 ? 2 : 1).replace(/\.?0+e/, "e");
  for (const [unit, name] of [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]]) {
    if (size >= unit && size >= 1e4) return String(Number((value / unit).toPrecision(digits(value, step)))) + name;
  }
  return String(Number(value.toPrecision(digits(value, step))));
}

function digits(value, step) { // as many as two marks need to be told apart, and to be what they say
  if (!step) return 3;
  const power = Math.floor(Math.log10(Math.abs(step)) + 1e-9);
  const more = Math.abs(Math.abs(step) / 10 ** power - 2.5) < 1e-3 ? 2 : 1;
  return Math.min(12, Math.max(3, Math.floor(Math.log10(Math.abs(value)) + 1e-9) - power + more || 3));
}

function nearest(xs, x) {
  let low = 0, high = xs.length;
  while (low < high) { const middle = (low + high) >> 1; if (xs[middle] < x) low = middle + 1; else high = middle; }
  return low > 0 && (low === xs.length || x - xs[low - 1] < xs[low] - x) ? low - 1 : low;
}

export class Chart {
  // options: x, log (read at each drawing), zoom(from, to) when the reader asks for another range
  constructor(metric, options) {
    this.metric = metric;
    this.options = options;
    this.lines = [];
    this.cursor = null;
    this.left = 46; // pixels that the texts of the y axis take
    this.canvas = el("canvas", { "aria-hidden": "true" });
    this.plot = el("div", { class: "plot", tabIndex: 0, role: "img", "aria-label": metric });
    this.plot.append(this.canvas);
    this.readout = el("output", { class: "readout", "aria-live": "off" });
    this.values = el("span", { class: "latest" });
    this.tableButton = el("button", { type: "button", class: "quiet", "aria-expanded": "false",
      "aria-label": `Table of ${metric}`, onclick: () => this.toggleTable() }, "Table");
    this.wideButton = el("button", { type: "button", class: "quiet", "aria-pressed": "false",
      "aria-label": `Widen ${metric}`, onclick: () => this.toggleWide() }, "⤢");
    this.tableHost = el("div", { class: "table-host", hidden: true });
    const cut = metric.lastIndexOf("/") + 1;
    this.element = el("figure", { class: "chart" },
      el("figcaption", {},
        el("span", { class: "metric", title: metric }, el("span", { class: "dim" }, metric.slice(0, cut)), metric.slice(cut)),
        this.values, this.tableButton, this.wideButton),
      this.plot, this.readout, this.tableHost);
    this.listen();
  }

  get width() { return Math.max(80, Math.round(this.plot.clientWidth || 320)); }

  toggleTable() {
    this.tableHost.hidden = !this.tableHost.hidden;
    this.tableButton.setAttribute("aria-expanded", String(!this.tableHost.hidden));
    this.fillTable();
  }

  toggleWide() {
    const wide = this.element.classList.toggle("wide");
    this.wideButton.setAttribute("aria-pressed", String(wide));
    this.options.changed?.();
  }

  listen() {
    const at = (event) => event.clientX - this.plot.getBoundingClientRect().left;
    let from = null;
    this.plot.addEventListener("pointermove", (event) => {
      this.cursor = this.unscale(at(event));
      this.drag = from === null ? null : [from, at(event)];
      this.draw();
    });
    this.plot.addEventListener("pointerleave", () => { if (from === null) { this.cursor = null; this.draw(); } });
    this.plot.addEventListener("pointerdown", (event) => {
      if (event.button !== 0 || event.pointerType === "touch") return;
      from = at(event);
      this.plot.setPointerCapture(event.pointerId);
    });
    const release = (event) => {
      if (from === null) return;
      const [a, b] = [this.unscale(from), this.unscale(at(event))].sort((m, n) => m - n);
      const far = Math.abs(at(event) - from) > 5;
      from = this.drag = null;
      if (far && b > a && event.type === "pointerup") this.options.zoom(a, b); else this.draw();
    };
    this.plot.addEventListener("pointerup", release);
    this.plot.addEventListener("pointercancel", release);
    this.plot.addEventListener("dblclick", () => this.options.zoom(null, null));
    this.plot.addEventListener("keydown", (event) => this.key(event));
    this.plot.addEventListener("blur", () => { this.cursor = null; this.draw(); });
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || !this.range) return;
    const [low, high] = this.range, span = high - low, middle = this.cursor ?? (low + high) / 2;
    if (event.key === "ArrowLeft" || event.key === "ArrowRight") {
      const xs = this.lines.find((line) => line.xs.length)?.xs || [];
      const right = event.key === "ArrowRight", reach = event.shiftKey ? 20 : 1;
      let index = this.cursor === null ? (right ? -1 : xs.length) : nearest(xs, this.cursor);
      const before = xs[index];
      do index += right ? reach : -reach; while (xs[index] === before && index > 0 && index < xs.length - 1);
      this.cursor = xs[Math.min(Math.max(index, 0), xs.length - 1)] ?? null;
      this.readout.setAttribute("aria-live", "polite");
      this.draw();
    } else if (event.key === "+" || event.key === "=") this.options.zoom(middle - span / 4, middle + span / 4);
    else if (event.key === "-") this.options.zoom(low - span / 2, high + span / 2);
    else if (event.key === "0") this.options.zoom(null, null);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  // lines: [{run, colour (its number), xs, ys, smooth, count, last, low, high, left_out}]
  show(lines) {
    this.lines = lines;
    const drawn = lines.filter((line) => line.count);
    put(this.values, drawn.length === 1 ? inUnit(this.metric, drawn[0].last) : "");
    const said = drawn.map((line) => `${lines.length > 1 ? line.run + ": " : ""}${number(line.count)} values, last ${inUnit(this.metric, line.last)}, least ${inUnit(this.metric, line.low)}, greatest ${inUnit(this.metric, line.high)}`);
    this.plot.setAttribute("aria-label", `${this.metric}. ${said.join("; ") || "no values here"}. Arrow keys read value by value.`);
    this.draw();
    if (!this.tableHost.hidden) this.fillTable();
  }

  bounds() {
    const log = this.options.log();
    let [x0, x1] = this.options.range() || [Infinity, -Infinity];
    let y0 = Infinity, y1 = -Infinity;
    const open = !this.options.range();
    for (const line of this.lines) {
      if (!line.xs.length) continue;
      if (open) { x0 = Math.min(x0, line.xs[0]); x1 = Math.max(x1, line.xs[line.xs.length - 1]); }
    }
    for (const line of this.lines) {
      for (let i = 0; i < line.xs.length; i++) {
        const y = line.ys[i];
        if (y === null || line.xs[i] < x0 || line.xs[i] > x1 || (log && y <= 0)) continue;
        if (y < y0) y0 = y;
        if (y > y1) y1 = y;
      }
    }
    if (x0 > x1) return null;
    if (x0 === x1) { x0 -= 0.5; x1 += 0.5; }
    if (y0 > y1) { if (log) return null; [y0, y1] = [0, 1]; }
    if (log) [y0, y1] = [Math.log10(y0), Math.log10(y1)];
    const spread = y1 - y0 > Math.abs(y1) * 1e-12 ? (y1 / 2 - y0 / 2) * 0.12 : Math.abs(y1) * 0.1 || 1;
    return [x0, x1, Math.max(y0 - spread, -Number.MAX_VALUE), Math.min(y1 + spread, Number.MAX_VALUE)];
  }

  unscale(px) {
    if (!this.range) return 0;
    const [low, high] = this.range;
    const share = (px - this.left) / Math.max(1, this.width - this.left - RIGHT);
    return low + Math.min(1, Math.max(0, share)) * (high - low);
  }

  draw() {
    if (this.pending) return;
    this.pending = requestAnimationFrame(() => { this.pending = null; this.paint(); });
  }

  paint() {
    const width = this.width, height = this.plot.clientHeight || 180, ratio = devicePixelRatio || 1;
    const canvas = this.canvas, pen = canvas.getContext("2d");
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
    }
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    const style = getComputedStyle(this.plot), ink = style.color, rule = style.borderTopColor;
    pen.font = `11px ${style.fontFamily}`;
    const bounds = this.bounds(), log = this.options.log();
    if (!bounds) {
      this.range = null;
      pen.fillStyle = ink; pen.textAlign = "center";
      pen.fillText(this.lines.length ? (log && this.lines.some((line) => line.xs.length) ? "nothing above 0 here" : "no values here") : "…", width / 2, height / 2);
      return;
    }
    const [x0, x1, y0, y1] = bounds;
    this.range = [x0, x1];
    const marks = this.marks(y0, y1, log, height);
    const left = this.left = Math.min(Math.max(46, ...marks.map(([, text]) => pen.measureText(text).width + 12)), width / 2);
    const across = (x) => left + (x - x0) / (x1 - x0) * (width - left - RIGHT);
    const share = (y) => (y / 2 - y0 / 2) / (y1 / 2 - y0 / 2); // halves: the whole may be infinite
    const up = (y) => TOP + (1 - share(log ? Math.log10(y) : y)) * (height - TOP - BOTTOM);
    this.axes(pen, width, height, [x0, x1], marks.map(([y, text]) => [TOP + (1 - share(y)) * (height - TOP - BOTTOM), text]), across, ink, rule);
    pen.save();
    pen.beginPath();
    pen.rect(left, 0, width - left - RIGHT, height - BOTTOM + 1);
    pen.clip();
    pen.lineJoin = "round";
    for (const line of this.lines) {
      pen.strokeStyle = pen.fillStyle = colour(line.colour);
      pen.globalAlpha = line.smooth ? 0.28 : 1;
      pen.lineWidth = line.smooth ? 1 : 1.5;
      this.stroke(pen, line, across, up, log);
      pen.globalAlpha = 1;
      pen.lineWidth = 2;
      if (line.smooth) this.stroke(pen, line.smooth, across, up, log);
    }
    if (this.drag) {
      pen.fillStyle = style.caretColor;
      pen.globalAlpha = 0.15;
      pen.fillRect(Math.min(...this.drag), TOP, Math.abs(this.drag[1] - this.drag[0]), height - TOP - BOTTOM);
      pen.globalAlpha = 1;
    }
    pen.restore();
    this.read(pen, height, across, up, log, ink);
  }

  stroke(pen, line, across, up, log) {
    let open = false;
    pen.beginPath();
    for (let i = 0; i < line.xs.length; i++) {
      const y = line.ys[i];
      if (y === null || (log && y <= 0)) { open = false; continue; }
      const px = across(line.xs[i]), py = up(y);
      if (open) pen.lineTo(px, py); else pen.moveTo(px, py);
      open = true;
    }
    pen.stroke();
    if (line.xs.length <= 30) {
      for (let i = 0; i < line.xs.length; i++) {
        const y = line.ys[i];
        if (y === null || (log && y <= 0)) continue;
        pen.beginPath();
        pen.arc(across(line.xs[i]), up(y), 2.2, 0, 7);
        pen.fill();
      }
    }
  }

  marks(y0, y1, log, height) { // where lines are across the chart, and their texts
    const { divide, unit } = unitOf(this.metric, log ? 10 ** y1 : Math.max(Math.abs(y0), Math.abs(y1)));
    const ys = log ? logTicks(y0, y1, 4) : ticks(y0 / divide, y1 / divide, Math.max(2, Math.floor((height - TOP - BOTTOM) / 26))).map((y) => y * divide);
    const step = ys.length < 2 ? 0 : !log ? ys[1] - ys[0] : ys[1] - ys[0] < 0.999 ? 10 ** ys[1] - 10 ** ys[0] : 0;
    return ys.map((y) => [y, short((log ? 10 ** y : y) / divide, step / divide) + (unit && ` ${unit}`)]);
  }

  axes(pen, width, height, [x0, x1], marks, across, ink, rule) {
    const { left } = this;
    pen.strokeStyle = rule; pen.fillStyle = ink; pen.lineWidth = 1;
    pen.textAlign = "right"; pen.textBaseline = "middle";
    for (const [y, text] of marks) {
      const py = Math.round(y) + 0.5;
      pen.beginPath(); pen.moveTo(left, py); pen.lineTo(width - RIGHT, py); pen.stroke();
      pen.fillText(text, left - 6, py);
    }
    pen.textBaseline = "top";
    pen.fillText(this.options.x(), left - 14, height - BOTTOM + 7);
    pen.textAlign = "center";
    const isTime = this.options.x() === "time";
    const xs = ticks(x0, x1, Math.max(2, Math.floor((width - left) / 55)), isTime ? 0 : 1);
    const apart = xs.length > 1 ? xs[1] - xs[0] : 0;
    for (const x of xs) {
      const px = across(x), text = isTime ? duration(x) : short(x, apart), half = pen.measureText(text).width / 2;
      pen.fillText(text, Math.min(Math.max(px, left + half - 8), width - half - 1), height - BOTTOM + 7);
    }
  }

  read(pen, height, across, up, log, ink) {
    if (this.cursor === null) { this.sayRange(); return; }
    pen.strokeStyle = ink; pen.lineWidth = 1;
    const px = Math.round(across(this.cursor)) + 0.5;
    pen.beginPath(); pen.moveTo(px, TOP); pen.lineTo(px, height - BOTTOM); pen.stroke();
    const parts = [];
    let where = null;
    for (const line of this.lines) {
      if (!line.xs.length) continue;
      const i = nearest(line.xs, this.cursor), y = line.ys[i];
      if (y === null) continue;
      where ??= line.xs[i];
      if (!(log && y <= 0)) {
        pen.fillStyle = colour(line.colour);
        pen.beginPath(); pen.arc(across(line.xs[i]), up(y), 3.5, 0, 7); pen.fill();
      }
      const smooth = line.smooth?.xs.length ? line.smooth.ys[nearest(line.smooth.xs, this.cursor)] : null;
      const dot = el("span", { class: "dot" });
      dot.style.background = colour(line.colour);
      parts.push(el("span", { class: "read" }, dot, this.lines.length > 1 ? `${line.run} ` : "",
        el("b", {}, inUnit(this.metric, y)), smooth === null ? "" : ` (smooth ${inUnit(this.metric, smooth)})`));
    }
    const x = where === null ? "" : this.options.x() === "time" ? `after ${duration(where)}` : `step ${number(where, 12)}`;
    put(this.readout, el("span", { class: "dim" }, x), parts.slice(0, 12));
  }

  sayRange() {
    const [line, other] = this.lines;
    if (!line?.count || other) { put(this.readout); return; }
    const left = line.left_out ? `, ${number(line.left_out)} not finite` : "";
    put(this.readout, el("span", { class: "dim" }, line.low === null ? "no finite value" : `${inUnit(this.metric, line.low)} to ${inUnit(this.metric, line.high)}`,
      ` in ${number(line.count)} ${line.count === 1 ? "value" : "values"}${left}`));
  }

  fillTable() {
    const rows = [], most = 200;
    for (const line of this.lines) {
      const jump = Math.max(1, Math.ceil(line.xs.length / most));
      for (let i = 0; i < line.xs.length; i += jump) {
        rows.push(el("tr", {}, this.lines.length > 1 ? el("td", {}, line.run) : null,
          el("td", {}, this.options.x() === "time" ? duration(line.xs[i]) : number(line.xs[i], 12)), el("td", {}, inUnit(this.metric, line.ys[i]))));
      }
    }
    put(this.tableHost, el("table", { class: "plain" }, el("caption", { class: "hidden" }, `Values of ${this.metric}`),
      el("thead", {}, el("tr", {}, this.lines.length > 1 ? el("th", { scope: "col" }, "Run") : null,
        el("th", { scope: "col" }, this.options.x() === "time" ? "Time" : "Step"), el("th", { scope: "col" }, "Value"))),
      el("tbody", {}, rows)));
  }
}
