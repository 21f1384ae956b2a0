// One run.

import { follow, get } from "./api.js";
import { Charts } from "./charts.js";
import { clock, duration, el, keepParams, moment, number, put, shown, status, value } from "./dom.js";
import { Labels } from "./labels.js";
import { facts, tree } from "./tables.js";

const MOST_LINES = 5000;

export class RunView {
  constructor(main, name, params) {
    this.name = name;
    this.params = params;
    this.tab = params.get("tab") || "charts";
    document.title = `${shown(name)} · keisei`;
    this.state = el("span");
    this.facts = el("dl", { class: "facts" });
    this.labels = new Labels(name, [], null);
    this.problem = el("p", { class: "problem", role: "alert" });
    this.tabs = el("div", { class: "tabs", role: "tablist", "aria-label": "Views of this run" },
      [["charts", "Charts"], ["log", "Log"], ["media", "Media"], ["usage", "Usage"], ["config", "Config"], ["events", "Events"], ["verdict", "Verdict"]]
        .map(([id, title]) => el("button", { type: "button", role: "tab", id: `tab-${id}`, "aria-controls": "panel",
          onclick: () => this.open(id), onkeydown: (event) => this.tabKey(event) }, title)));
    this.part = params.get("part") || "";
    this.partField = el("select", { onchange: () => this.choosePart(this.partField.value) });
    this.parts = el("label", { class: "parts", hidden: true }, el("span", {}, "Part"), this.partField);
    this.panel = el("div", { role: "tabpanel", id: "panel", tabIndex: -1 });
    put(main,
      el("section", { class: "head", "aria-label": "This run" },
        el("h1", {}, name, " ", this.state),
        el("div", { class: "labels" }, this.labels.tags, this.labels.note),
        this.facts, this.problem),
      el("div", { class: "tab-bar" }, this.tabs, this.parts), this.panel);
    this.open(this.tab, false);
    this.load();
    this.timer = setInterval(() => this.tick(), 1000);
  }

  close() {
    this.closed = true;
    this.end?.();
    this.charts?.close();
    clearInterval(this.timer);
  }

  tabKey(event) {
    if (event.key !== "ArrowRight" && event.key !== "ArrowLeft") return;
    const all = [...this.tabs.children], at = all.indexOf(event.currentTarget);
    const next = all[(at + (event.key === "ArrowRight" ? 1 : all.length - 1)) % all.length];
    next.click();
    next.focus();
    event.stopPropagation();
  }

  async load() {
    try {
      this.data = await get(`/api/run/${encodeURIComponent(this.name)}`);
      if (this.closed) return;
      put(this.problem);
      this.labels.update(this.data.tags, this.data.note);
      this.fill({ ...this.now, ...this.data }); // what is followed may have come first
      this.showParts(this.data.parts);
      if (this.tab === "config") this.open(this.tab, false);
    } catch (error) {
      put(this.problem, error.message);
    }
  }

  showParts(parts) {
    this.parts.hidden = !parts.length && !this.part;
    put(this.partField, el("option", { value: "" }, "the owner's own"), [...new Set([...parts, this.part].filter(Boolean))].map((part) => el("option", { value: part }, part)));
    this.partField.value = this.part;
  }

  choosePart(part) {
    this.part = part;
    keepParams({ part });
    this.before = null;
    this.end?.();
    this.end = null;
    this.open(this.tab, false);
  }

  fill(data) {
    this.now = data;
    put(this.state, status(data.status));
    const facts = [["attempt", data.attempt], ["started", moment(data.started)], ["duration", this.took()],
      ["step", data.step === null || data.step === undefined ? null : number(data.step, 15)],
      ["rows", data.rows === undefined ? null : number(data.rows)],
      ["owner", this.data?.owner], ["failure", data.failure], ["id", this.data?.id], ["directory", this.data?.directory],
      ["trackers", this.data && Object.entries(this.data.trackers).map(([k, v]) => `${k}: ${v}`).join(", ")],
      ["checkpoints", this.data?.checkpoints?.count ? `${this.data.checkpoints.count}, latest ${value(this.data.checkpoints.latest)}` : null],
      ["parts", this.data?.parts?.length ? `${this.data.parts.length}: ${this.data.parts.slice(0, 6).join(", ")}${this.data.parts.length > 6 ? "…" : ""}` : null]];
    const there = facts.filter(([, text]) => text !== null && text !== undefined && text !== "");
    const key = JSON.stringify(there.map(([name]) => name));
    if (key !== this.factKey) {
      this.factKey = key;
      put(this.facts, there.map(([name, text]) => el("div", { class: `fact fact-${name}` }, el("dt", {}, name), el("dd", {}, String(text)))));
    } else {
      there.forEach(([, text], i) => {
        const cell = this.facts.children[i].lastChild, now = shown(text);
        if (cell.textContent !== now) cell.textContent = now;
      });
    }
  }

  took() {
    const data = this.now || {};
    if (data.status === "running" && data.started) return duration(Math.max(0, Date.now() / 1000 - data.started));
    return data.duration === null || data.duration === undefined ? null : duration(data.duration);
  }

  tick() {
    if (this.now?.status === "running" && !document.hidden) this.fill(this.now);
  }

  listen() {
    this.end?.();
    const query = { run: [this.name], log: this.tab === "log" ? "1" : "", part: this.part };
    this.freshLog = true;
    this.end = follow(query, (news) => this.told(news), () => { this.freshLog = true; this.load(); this.charts?.load(); });
  }

  told(news) {
    if (news.problem) { put(this.problem, news.problem); return; }
    const [run] = news.runs;
    if (run.status === "gone") {
      put(this.state, status("gone"));
      put(this.problem, "The run has just been removed: what is shown is what it was.");
      return;
    }
    put(this.problem, run.problem || "");
    const before = this.before || {};
    this.before = run;
    this.labels.update(run.tags, run.note);
    this.fill({ ...this.now, ...run });
    if (this.charts && (run.rows !== before.rows || run.share !== before.share)) {
      if (run.metrics !== before.metrics || (run.share < 1) !== (before.share < 1)) this.charts.load();
      else if (run.share === 1) this.charts.grown();
    }
    if (run.attempt !== before.attempt && before.attempt !== undefined) this.load();
    if (this.tab === "media" && run.media !== before.media) this.open_media();
    if (this.tab === "events" && run.events !== before.events) this.showEvents();
    if (this.tab === "log" && this.lines) this.addLines(news.lines, this.freshLog);
    if (this.tab === "log") this.freshLog = false;
  }

  open(tab, chosen = true) {
    if (![...this.tabs.children].some((one) => one.id === `tab-${tab}`)) tab = "charts";
    this.tab = tab;
    if (chosen) keepParams({ tab: tab === "charts" ? "" : tab });
    for (const one of this.tabs.children) {
      const is = one.id === `tab-${tab}`;
      one.setAttribute("aria-selected", String(is));
      one.tabIndex = is ? 0 : -1;
      if (is) this.tabs.scrollLeft = one.offsetLeft - this.tabs.offsetLeft - 40; // all of it, on a narrow screen
    }
    this.panel.setAttribute("aria-labelledby", `tab-${tab}`);
    this.charts?.close();
    this.charts = this.lines = null;
    put(this.panel);
    const wantedLog = this.listensToLog;
    this.listensToLog = tab === "log";
    this[`open_${tab}`]();
    if (!this.end || wantedLog !== this.listensToLog) this.listen();
  }

  open_charts() { this.charts = new Charts(this.panel, [this.name], new URL(location.href).searchParams, keepParams); }

  open_log() {
    this.filter = el("input", { type: "search", id: "search", placeholder: "text in a line", autocomplete: "off",
      oninput: () => { for (const line of this.lines.children) line.hidden = !this.fits(line); } });
    this.stick = el("input", { type: "checkbox" });
    this.stick.checked = true;
    this.lines = el("div", { class: "log", role: "log", tabIndex: 0, "aria-label": "Training log", "aria-live": "off",
      onscroll: () => { this.stick.checked = this.lines.scrollTop + this.lines.clientHeight > this.lines.scrollHeight - 40; } });
    put(this.panel, el("div", { class: "tools" }, el("label", { class: "grow" }, el("span", {}, "Filter"), this.filter),
      el("label", { class: "check" }, this.stick, " follow")), this.lines);
  }

  fits(line) { return line.textContent.toLowerCase().includes(this.filter.value.toLowerCase()); }

  addLines(lines, anew) {
    if (anew) put(this.lines);
    if (!lines.length && !this.lines.children.length) { put(this.lines, el("div", { class: "dim" }, "The log is empty.")); return; }
    if (anew === false && lines.length && this.lines.children.length === 1 && this.lines.firstChild.className === "dim") put(this.lines);
    const stick = this.stick.checked;
    for (const text of lines) {
      const line = this.line(text);
      line.hidden = !this.fits(line);
      this.lines.append(line);
    }
    while (this.lines.children.length > MOST_LINES) this.lines.firstChild.remove();
    if (stick) this.lines.scrollTop = this.lines.scrollHeight;
  }

  line(text) {
    const level = /\b(ERROR|CRITICAL|WARNING)\b/.exec(text.slice(0, 120))?.[1];
    const kind = level ? ` line-${level === "WARNING" ? "warn" : "bad"}` : "";
    if (text.length <= 2000) return el("div", { class: `line${kind}` }, text || " ");
    const rest = el("button", { type: "button", class: "quiet", onclick: () => rest.replaceWith(shown(text.slice(2000))) },
      `… ${number(text.length - 2000)} characters more`);
    return el("div", { class: `line${kind}` }, text.slice(0, 2000), rest);
  }

  open_config() {
    if (!this.data) { put(this.panel, el("p", { class: "dim" }, "…")); return; }
    const filter = el("input", { type: "search", id: "search", placeholder: "key or value", autocomplete: "off", oninput: () => {
      for (const row of this.panel.querySelectorAll("tbody tr")) row.hidden = !row.textContent.toLowerCase().includes(filter.value.toLowerCase());
    } });
    put(this.panel, el("div", { class: "tools" }, el("label", { class: "grow" }, el("span", {}, "Filter"), filter)),
      el("h2", {}, "Config"), facts("Config", this.data.config),
      this.data.started_from.length ? [el("h2", {}, "Started from"), facts("Started from", this.data.started_from)] : null);
  }

  open_events() { this.showEvents(); }

  async showEvents() {
    try {
      const { events } = await get(`/api/run/${encodeURIComponent(this.name)}/events`, { part: this.part });
      if (this.closed || this.tab !== "events") return;
      put(this.panel, events.length ? el("div", { class: "scroll" }, el("table", { class: "plain stack events" },
        el("thead", {}, el("tr", {}, ["Time", "Attempt", "Event", "What"].map((t) => el("th", { scope: "col" }, t)))),
        el("tbody", {}, events.reverse().map((event) => el("tr", {}, el("td", { class: "nowrap" }, clock(event.time)), el("td", { "data-head": "Attempt" }, number(event.attempt)),
          el("td", {}, event.name), el("td", {}, tree(event.data))))))) : el("p", { class: "empty" }, "No events are logged yet."));
    } catch (error) {
      put(this.panel, el("p", { class: "problem" }, error.message));
    }
  }

  async open_usage() {
    const tables = el("div"), charts = el("div");
    put(this.panel, tables, charts);
    this.charts = new Charts(charts, [this.name], new URL(location.href).searchParams, keepParams, (name) => name.startsWith("system/"));
    await this.shown("usage", tables, async () => (await import("./usage.js")).showUsage(tables, this.name, () => this.isOpen("usage")));
  }

  async open_verdict() {
    await this.shown("verdict", this.panel, async () => (await import("./usage.js")).showVerdict(this.panel, this.name, () => this.isOpen("verdict")));
  }

  async open_media() {
    await this.shown("media", this.panel, async () => (await import("./media.js")).showMedia(this.panel, this.name, this.part, () => this.isOpen("media")));
  }

  isOpen(tab) { return !this.closed && this.tab === tab; }

  async shown(tab, host, show) {
    try { await show(); } catch (error) { if (this.isOpen(tab)) put(host, el("p", { class: "problem" }, error.message)); }
  }

  key(event) {
    if (this.charts?.key(event)) return true;
    if (event.key === "/") { const field = this.panel.querySelector("input[type=search]"); field?.focus(); return Boolean(field); }
    return false;
  }

  redraw() { this.charts?.redraw(); }
}
