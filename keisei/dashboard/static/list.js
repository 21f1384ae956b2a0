// The list of runs.

import { follow, get } from "./api.js";
import { duration, el, moment, number, put, runAddress, settled, shown, status, value } from "./dom.js";
import { Labels } from "./labels.js";

const PAGE = 200;
const COLUMNS = [["name", "Run"], ["status", "Status"], ["attempt", "Attempt"], ["started", "Started"],
  ["duration", "Duration"], ["tags", "Tags"], ["note", "Note"]];

export class ListView {
  constructor(main, params, go) {
    this.main = main;
    this.go = go;
    this.query = params.get("q") || "";
    this.sort = params.get("sort") || "-started";
    this.columns = params.get("columns") || "";
    this.limit = Number(params.get("limit")) || PAGE;
    this.chosen = new Set();
    this.rows = new Map();
    this.order = [];
    this.build();
    this.load();
    this.clock = setInterval(() => this.tick(), 1000);
  }

  close() {
    this.end?.();
    clearInterval(this.clock);
    this.closed = true;
  }

  build() {
    document.title = "Runs · keisei";
    this.search = el("input", { type: "search", id: "search", value: this.query, spellcheck: "false",
      autocomplete: "off", placeholder: "status:running  tag:ppo  env.seed>=3  loss.last<0.2  since:7d",
      "aria-describedby": "problem", oninput: settled(() => this.change({ query: this.search.value }), 200) });
    this.search.value = this.query;
    this.extra = el("input", { id: "columns", size: 18, spellcheck: "false", autocomplete: "off",
      placeholder: "loss.last, env.seed",
      onchange: () => this.change({ columns: this.extra.value.trim() }) });
    this.extra.value = this.columns;
    this.compare = el("button", { type: "button", class: "primary", disabled: true, onclick: () => this.openChosen() }, "Compare");
    this.problem = el("p", { id: "problem", class: "problem", role: "alert" });
    this.summary = el("p", { class: "summary", role: "status", "aria-live": "polite" });
    this.head = el("tr", { role: "row" });
    this.body = el("tbody", { role: "rowgroup" });
    this.table = el("table", { class: "runs", role: "table", "aria-label": "Runs" },
      el("thead", { role: "rowgroup" }, this.head), this.body);
    this.more = el("button", { type: "button", hidden: true, onclick: () => this.change({ limit: this.limit + PAGE }) });
    put(this.main,
      el("h1", { class: "hidden" }, "Runs"),
      el("section", { class: "tools", role: "search", "aria-label": "Filter" },
        el("label", { class: "grow" }, el("span", {}, "Filter"), this.search),
        el("label", {}, el("span", {}, "More columns"), this.extra),
        this.compare),
      this.problem, this.summary,
      el("div", { class: "scroll" }, this.table), el("p", {}, this.more));
    this.buildHead();
    if ("IntersectionObserver" in window) {
      new IntersectionObserver((found) => {
        if (found.some((one) => one.isIntersecting) && !this.more.hidden && !this.closed) this.more.click();
      }, { rootMargin: "400px" }).observe(this.more);
    }
  }

  get names() { return this.columns.split(",").map((n) => n.trim()).filter(Boolean); }

  buildHead() {
    const sorted = this.sort.replace(/^-/, ""), down = this.sort.startsWith("-");
    const all = [...COLUMNS, ...this.names.map((name) => [name, name])];
    put(this.head, el("th", { role: "columnheader", class: "c-pick" }, el("span", { class: "hidden" }, "Choose")),
      all.map(([name, title]) => el("th", { role: "columnheader", class: `c-${COLUMNS.some(([n]) => n === name) ? name : "extra"}`,
        "aria-sort": name === sorted ? (down ? "descending" : "ascending") : "none" },
      el("button", { type: "button", onclick: () => this.sortBy(name) }, title,
        el("span", { class: "arrow", "aria-hidden": "true" }, name === sorted ? (down ? "↓" : "↑") : "")))));
  }

  sortBy(name) {
    const first = ["name", "status", "tags", "note"].includes(name) ? name : `-${name}`;
    const other = first.startsWith("-") ? name : `-${name}`;
    this.change({ sort: this.sort === first ? other : first });
  }

  change(changes) {
    Object.assign(this, changes);
    if (!("limit" in changes)) this.limit = PAGE;
    const params = {};
    if (this.query) params.q = this.query;
    if (this.sort !== "-started") params.sort = this.sort;
    if (this.columns) params.columns = this.columns;
    history.replaceState(null, "", "/" + (Object.keys(params).length ? `?${new URLSearchParams(params)}` : ""));
    this.buildHead();
    this.load();
  }

  asked() {
    return { q: this.query, sort: this.sort, limit: this.limit, columns: this.columns };
  }

  async load() {
    this.abort?.abort();
    const abort = this.abort = new AbortController();
    this.end?.();
    try {
      const found = await get("/api/runs", this.asked(), abort.signal);
      if (this.closed) return;
      this.where = found.where;
      put(this.problem);
      this.search.removeAttribute("aria-invalid");
      this.show(found.rows.map((row) => row.name), found.rows, found.counts, found.total);
      this.end = follow(this.asked(), (news) => this.told(news), () => {});
    } catch (error) {
      if (abort.signal.aborted || this.closed) return;
      put(this.problem, error.message);
      this.search.setAttribute("aria-invalid", "true");
      if (!(error.name === "Refused") && error instanceof TypeError) this.end = follow(this.asked(), (news) => this.told(news), () => {});
    }
  }

  told(news) {
    if (news.problem) { put(this.problem, news.problem); return; }
    put(this.problem);
    this.show(news.order, news.rows, news.counts, news.total);
  }

  show(order, rows, counts, total) {
    for (const data of rows) {
      const row = this.rows.get(data.name);
      if (row) this.fill(row, data); else this.rows.set(data.name, this.row(data));
    }
    const same = order.length === this.order.length && order.every((name, i) => name === this.order[i]);
    if (!same || this.body.children.length !== order.length) {
      const kept = document.activeElement;
      put(this.body, order.map((name) => this.rows.get(name)?.element));
      if (kept && this.body.contains(kept)) kept.focus();
      const there = new Set(order);
      for (const name of this.rows.keys()) if (!there.has(name)) { this.rows.delete(name); this.chosen.delete(name); }
    }
    this.order = order;
    const states = Object.entries(counts).map(([state, n]) => `${number(n)} ${state}`).join(", ");
    const text = total
      ? `${number(total)} ${total === 1 ? "run" : "runs"} in ${shown(this.where)}: ${states}`
      : this.query ? `No run in ${shown(this.where)} fits this filter.` : `There are no runs in ${shown(this.where)} yet: they appear here as they start.`;
    if (this.summary.textContent !== text) put(this.summary, text);
    this.more.hidden = total <= order.length;
    put(this.more, `Show more: ${number(total - order.length)} are left`);
    this.countChosen();
  }

  row(data) {
    const address = runAddress(data.name);
    const pick = el("input", { type: "checkbox", "aria-label": `Choose ${data.name}`, onchange: () => {
      if (pick.checked) this.chosen.add(data.name); else this.chosen.delete(data.name);
      this.countChosen();
    } });
    pick.checked = this.chosen.has(data.name);
    const labels = new Labels(data.name, data.tags, data.note, { onTag: (tag) => {
      this.search.value = this.query ? `${this.query} tag:"${tag}"` : `tag:"${tag}"`;
      this.change({ query: this.search.value });
    } });
    const cell = (name, ...children) => el("td", { role: "cell", class: `c-${name}` }, ...children);
    const link = address ? el("a", { href: address, class: "run-name" }, data.name) : el("span", {}, data.name);
    const row = { pick, labels, link, cells: {} };
    row.cells.status = cell("status");
    row.cells.attempt = cell("attempt");
    row.cells.started = cell("started");
    row.cells.duration = cell("duration");
    row.extra = this.names.map((name) => el("td", { role: "cell", class: "c-extra", "data-name": name }));
    row.element = el("tr", { role: "row" }, cell("pick", pick),
      el("th", { role: "rowheader", scope: "row", class: "c-name" }, link), row.cells.status, row.cells.attempt,
      row.cells.started, row.cells.duration, cell("tags", labels.tags), cell("note", labels.note), row.extra);
    this.fill(row, data);
    return row;
  }

  fill(row, data) {
    if (row.extra.length !== this.names.length || row.extra.some((c, i) => c.dataset.name !== this.names[i])) {
      row.extra.forEach((c) => c.remove());
      row.extra = this.names.map((name) => el("td", { role: "cell", class: "c-extra", "data-name": name }));
      row.element.append(...row.extra);
    }
    row.data = data;
    put(row.cells.status, status(data.status));
    row.cells.status.title = data.failure ? shown(data.failure) : "";
    put(row.cells.attempt, number(data.attempt));
    put(row.cells.started, moment(data.started));
    this.age(row);
    row.labels.update(data.tags, data.note);
    (data.extra || []).forEach((one, i) => put(row.extra[i], typeof one === "number" ? number(one) : value(one)));
  }

  age(row) {
    const { duration: took, started, status: state } = row.data;
    const now = state === "running" && started ? Math.max(0, Date.now() / 1000 - started) : took;
    const text = duration(now);
    if (row.cells.duration.textContent !== text) put(row.cells.duration, text);
  }

  tick() {
    if (document.hidden) return;
    for (const row of this.rows.values()) if (row.data.status === "running") this.age(row);
  }

  countChosen() {
    this.compare.disabled = this.chosen.size < 2;
    put(this.compare, this.chosen.size ? `Compare ${this.chosen.size}` : "Compare");
  }

  openChosen() {
    if (this.chosen.size < 2) return;
    const params = new URLSearchParams();
    for (const name of this.order) if (this.chosen.has(name)) params.append("run", name);
    this.go(`/compare?${params}`);
  }

  key(event) {
    if (event.key === "/") { this.search.focus(); this.search.select(); return true; }
    const links = [...this.body.querySelectorAll("a.run-name")];
    const at = links.findIndex((link) => link.closest("tr").contains(document.activeElement));
    if (event.key === "j" || event.key === "k") {
      const next = at < 0 ? 0 : Math.min(Math.max(at + (event.key === "j" ? 1 : -1), 0), links.length - 1);
      links[next]?.focus();
      links[next]?.scrollIntoView({ block: "nearest" });
      return true;
    }
    if (event.key === "x" && at >= 0) { links[at].closest("tr").querySelector("input[type=checkbox]").click(); return true; }
    if (event.key === "c") { this.openChosen(); return true; }
    return false;
  }
}
