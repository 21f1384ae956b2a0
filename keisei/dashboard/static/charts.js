// All charts of some runs: which metrics, how they are drawn, and only those that can be seen.

import { get, series } from "./api.js";
import { Chart, colour } from "./chart.js";
import { el, later, number, put, runAddress, settled } from "./dom.js";

const PAGE = 48, TOGETHER = 2, EARLY = 2;

export class Charts {
  // runs: names; params: the address's; changed(params): keeps them there; only: a test of a metric's name
  constructor(host, runs, params, changed, only = null) {
    this.runs = runs;
    this.changed = changed;
    this.only = only;
    this.state = {
      m: params.get("m") || "", smooth: Number(params.get("smooth")) || 0, log: params.get("log") === "1",
      x: params.get("x") === "time" ? "time" : "step", from: number0(params.get("from")), to: number0(params.get("to")),
      part: params.get("part") || "",
    };
    this.metrics = [];
    this.drawnShare = 0; // how much was read when they were drawn last
    this.charts = new Map();
    this.visible = new Set();
    this.dirty = new Set();
    this.refresh = later(() => this.fetchVisible(), 300);
    this.build(host);
    this.seen = new IntersectionObserver((found) => {
      for (const one of found) {
        const chart = this.charts.get(one.target.dataset.metric);
        if (!chart) continue;
        if (one.isIntersecting) this.visible.add(chart); else this.visible.delete(chart);
      }
      this.fetchVisible();
    }, { rootMargin: "150px" });
    this.resized = new ResizeObserver(settled(() => { this.dirtyAll(); this.fetchVisible(); }, 150));
    this.resized.observe(this.grid);
    this.load();
  }

  close() {
    this.closed = true;
    clearTimeout(this.timer);
    this.seen.disconnect();
    this.resized.disconnect();
    this.bottom?.disconnect();
  }

  build(host) {
    const state = this.state;
    this.search = el("input", { type: "search", id: "search", autocomplete: "off", spellcheck: "false", placeholder: "loss  train/*",
      oninput: settled(() => { state.m = this.search.value; this.keep(); this.arrange(); }, 120) });
    this.search.value = state.m;
    const smooth = el("input", { type: "range", min: "0", max: "0.999", step: "0.001" });
    smooth.value = String(state.smooth);
    const shownSmooth = el("span", { class: "number" }, state.smooth.toFixed(2));
    smooth.addEventListener("input", () => put(shownSmooth, Number(smooth.value).toFixed(2)));
    smooth.addEventListener("input", settled(() => this.set({ smooth: Number(smooth.value) }), 100));
    const log = el("input", { type: "checkbox", onchange: () => this.set({ log: log.checked }) });
    log.checked = state.log;
    this.axis = el("select", { onchange: () => this.set({ x: this.axis.value, from: null, to: null }) },
      el("option", { value: "step" }, "step"), el("option", { value: "time" }, "time"));
    this.axis.value = state.x;
    this.reset = el("button", { type: "button", hidden: state.from === null, onclick: () => this.zoom(null, null) }, "Show all");
    this.count = el("p", { class: "summary", role: "status", "aria-live": "polite" });
    this.grid = el("div", { class: "grid" });
    this.more = el("button", { type: "button", hidden: true, onclick: () => { this.limit += PAGE; this.arrange(false); } });
    put(host,
      el("div", { class: "tools", role: "group", "aria-label": "How charts are drawn" },
        el("label", { class: "grow" }, el("span", {}, "Metrics"), this.search),
        el("label", { class: "smooth" }, el("span", {}, "Smoothing ", shownSmooth), smooth),
        el("label", {}, el("span", {}, "X axis"), this.axis),
        el("label", { class: "check" }, log, " log y"),
        this.reset),
      this.count, this.grid, el("p", {}, this.more));
    this.bottom = new IntersectionObserver((found) => {
      if (found.some((one) => one.isIntersecting) && !this.more.hidden) this.more.click();
    }, { rootMargin: "300px" });
    this.bottom.observe(this.more);
  }

  set(changes) {
    Object.assign(this.state, changes);
    this.reset.hidden = this.state.from === null;
    this.keep();
    this.dirtyAll();
    for (const chart of this.visible) chart.draw();
    this.fetchVisible();
  }

  zoom(from, to) { this.set({ from, to }); }

  keep() {
    const { m, smooth, log, x, from, to, part } = this.state;
    this.changed({ m, smooth: smooth || "", log: log ? "1" : "", x: x === "step" ? "" : x, from: from ?? "", to: to ?? "", part });
  }

  async load() {
    if (this.loading) { this.reload = true; return; }
    this.loading = true;
    try {
      const found = await get("/api/metrics", { run: this.runs, part: this.state.part });
      if (this.closed) return;
      if (!found.has_steps && found.share === 1 && this.state.x === "step" && found.rows.some((n) => n)) {
        this.axis.value = "time";
        this.set({ x: "time" });
      }
      this.share = found.share;
      const old = this.metrics;
      this.metrics = this.only ? found.metrics.filter(this.only) : found.metrics;
      if (this.metrics.length !== old.length || !this.limit) this.arrange(!this.limit);
      this.sayCount();
      const early = found.share < 1;
      if (!early || found.share > 3 * this.drawnShare) { // reading goes before drawing again
        this.drawnShare = early ? found.share : 0;
        this.dirtyAll();
      }
      clearTimeout(this.timer);
      if (early) this.timer = setTimeout(() => this.load(), 200);
      this.fetchVisible();
    } catch (error) {
      if (!this.closed) put(this.count, el("span", { class: "problem" }, error.message));
    } finally {
      this.loading = false;
      if (this.reload) { this.reload = false; this.load(); }
    }
  }

  matching() {
    const words = this.state.m.toLowerCase().split(/\s+/).filter(Boolean);
    const tests = words.map((word) => word.includes("*")
      ? new RegExp("^" + word.split("*").map((p) => p.replace(/[.+?^${}()|[\]\\]/g, "\\$&")).join(".*") + "$", "i") : word);
    const fit = this.metrics.filter((name) => {
      const lower = name.toLowerCase();
      return tests.every((test) => typeof test === "string" ? lower.includes(test) : test.test(name));
    });
    const groups = new Map();
    for (const name of fit) {
      const group = name.includes("/") ? name.slice(0, name.lastIndexOf("/")) : "";
      if (!groups.has(group)) groups.set(group, []);
      groups.get(group).push(name);
    }
    const order = [...groups.keys()].sort((a, b) => (a.startsWith("system") ? 1 : 0) - (b.startsWith("system") ? 1 : 0));
    return order.map((group) => [group, groups.get(group)]);
  }

  arrange(anew = true) {
    if (anew) this.limit = PAGE;
    const groups = this.matching(), children = [], there = new Set();
    const many = this.metrics.filter((name) => !name.startsWith("system/")).length > 12;
    let left = this.limit, total = 0;
    for (const [group, names] of groups) {
      total += names.length;
      if (left <= 0) continue;
      if (groups.length > 1 && (many || group.startsWith("system"))) children.push(el("h2", { class: "group" }, group || "metrics", el("span", { class: "dim" }, ` ${number(names.length)}`)));
      for (const name of names.slice(0, left)) { there.add(name); children.push(this.chart(name).element); }
      left -= names.length;
    }
    for (const [name, chart] of this.charts) {
      if (there.has(name)) continue;
      this.seen.unobserve(chart.element);
      this.visible.delete(chart);
      this.charts.delete(name);
    }
    const old = this.grid.children;
    if (old.length !== children.length || children.some((child, i) => child !== old[i])) {
      const kept = document.activeElement;
      put(this.grid, children);
      if (kept && kept !== document.activeElement && this.grid.contains(kept)) kept.focus();
    }
    this.total = total;
    this.more.hidden = total <= this.limit;
    put(this.more, `Show more: ${number(total - this.limit)} are left`);
    this.sayCount();
  }

  sayCount() {
    const all = this.metrics.length, share = this.share ?? 0;
    const parts = [this.total === all ? `${number(all)} metrics` : `${number(this.total ?? 0)} of ${number(all)} metrics`];
    if (share < 1) parts.push(`${Math.floor(share * 100)} % of the rows are read`);
    if (!all && share === 1) parts[0] = this.only ? "No samples of the machine are logged yet" : "No metrics are logged yet";
    const text = parts.join(", ");
    if (this.count.textContent !== text) put(this.count, text);
  }

  chart(name) {
    if (!this.charts.has(name)) {
      const chart = new Chart(name, {
        x: () => this.state.x, log: () => this.state.log,
        range: () => this.state.from === null ? null : [this.state.from, this.state.to],
        zoom: (from, to) => this.zoom(from, to),
        changed: () => { this.dirty.add(chart); setTimeout(() => this.fetchVisible(), 50); },
      });
      chart.element.dataset.metric = name;
      this.charts.set(name, chart);
      this.dirty.add(chart);
      this.seen.observe(chart.element);
    }
    return this.charts.get(name);
  }

  dirtyAll() { for (const chart of this.charts.values()) this.dirty.add(chart); }

  redraw() { for (const chart of this.charts.values()) chart.draw(); }

  async fetchVisible() {
    if (this.fetching) { this.again = true; return; }
    this.fetching = true;
    try {
      do {
        this.again = false;
        let wanted = [...this.visible];
        if (this.share < 1) wanted = wanted.slice(0, EARLY); // a few show how far it is: reading goes before
        wanted = wanted.filter((chart) => this.dirty.has(chart));
        const size = Math.max(1, Math.min(this.share < 1 ? 1 : TOGETHER, Math.floor(200 / this.runs.length)));
        for (let i = 0; i < wanted.length && !this.closed; i += size) await this.fetchSome(wanted.slice(i, i + size));
      } while (this.again && !this.closed);
    } catch (error) {
      if (!this.closed && !(error instanceof TypeError)) put(this.count, el("span", { class: "problem" }, error.message));
    } finally {
      this.fetching = false;
    }
  }

  async fetchSome(charts) {
    const { x, smooth, from, to, part } = this.state;
    for (const chart of charts) this.dirty.delete(chart);
    const early = this.share < 1;
    const width = Math.round(Math.max(...charts.map((chart) => chart.width)) / (early ? 2 : 1));
    const found = await series({ run: this.runs, metric: charts.map((chart) => chart.metric), x, smooth: early ? "" : smooth || "", from, to, width, part });
    if (this.closed) return;
    if (x !== this.state.x) { for (const chart of charts) this.dirty.add(chart); return; }
    const by = new Map(charts.map((chart) => [chart.metric, []]));
    for (const line of found.series) by.get(line.metric).push({ ...line, colour: this.runs.indexOf(line.run) });
    for (const chart of charts) chart.show(by.get(chart.metric));
  }

  grown() { this.dirtyAll(); this.refresh(); }

  key(event) {
    if (event.key === "/") { this.search.focus(); this.search.select(); return true; }
    if (event.key === "j" || event.key === "k") {
      const plots = [...this.grid.querySelectorAll(".plot")];
      const at = plots.indexOf(document.activeElement);
      const next = plots[at < 0 ? 0 : Math.min(Math.max(at + (event.key === "j" ? 1 : -1), 0), plots.length - 1)];
      next?.focus();
      next?.scrollIntoView({ block: "nearest" });
      return true;
    }
    return false;
  }
}

export function legend(runs) {
  return el("ul", { class: "legend", "aria-label": "Runs" }, runs.map((name, i) => {
    const dot = el("span", { class: "dot" });
    dot.style.background = colour(i);
    return el("li", {}, dot, el("a", { href: runAddress(name) }, name));
  }));
}

function number0(text) {
  const found = parseFloat(text);
  return Number.isFinite(found) ? found : null;
}
