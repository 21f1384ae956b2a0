// Several runs over each other, and in what they differ.

import { follow, get } from "./api.js";
import { Charts, legend } from "./charts.js";
import { duration, el, keepParams, number, put, status, value } from "./dom.js";
import { table } from "./tables.js";

const TITLES = { run: "How they went", config: "Config", code: "Code", packages: "Packages", machine: "Machine", metrics: "Last values" };

export class CompareView {
  constructor(main, params) {
    this.runs = [...new Set(params.getAll("run"))];
    document.title = `${this.runs.length} runs · keisei`;
    this.problem = el("p", { class: "problem", role: "alert" });
    this.title = el("summary", {}, "In what they differ");
    this.found = el("div", {});
    this.differences = el("details", { class: "differences", ontoggle: () => keepParams({ differ: this.differences.open ? "1" : "" }) }, this.title, this.found);
    this.differences.open = params.get("differ") === "1";
    this.host = el("div");
    put(main, el("section", { class: "head" }, el("h1", {}, `${this.runs.length} runs compared`), this.problem));
    if (!this.runs.length) { put(this.problem, "No runs are named: choose some in the list."); return; }
    main.append(legend(this.runs), this.differences, this.host);
    this.charts = new Charts(this.host, this.runs, params, keepParams);
    this.end = follow({ run: this.runs }, (news) => this.told(news), () => this.charts.load());
    this.compare();
  }

  close() { this.closed = true; this.end?.(); this.charts?.close(); }

  told(news) {
    if (news.problem) { put(this.problem, news.problem); return; }
    const gone = news.runs.filter((run) => run.status === "gone").map((run) => run.name);
    put(this.problem, gone.length ? `Removed: ${gone.join(", ")}` : "");
    const key = (of) => JSON.stringify(news.runs.map(of));
    const shape = key((run) => [run.metrics, run.share < 1]), rows = key((run) => run.rows);
    if (shape !== this.shape) this.charts.load(); else if (rows !== this.rowsSeen) this.charts.grown();
    this.shape = shape;
    this.rowsSeen = rows;
  }

  async compare() {
    try {
      const found = await get("/api/compare", { run: this.runs });
      if (this.closed) return;
      const words = ["config", "code", "packages", "machine"].map((part) =>
        `${part} ${number(Object.keys(found.parts[part] || {}).length + (found.left_out[part] || 0))}`);
      put(this.title, `In what they differ: ${words.join(", ")}`);
      const same = Object.keys(found.parts).filter((part) => !Object.keys(found.parts[part]).length && !found.not_recorded[part]);
      put(this.found, Object.entries(found.parts).filter(([part]) => !same.includes(part)).map(([part, values]) => this.part(part, values, found)),
        same.length ? el("p", { class: "dim" }, `No difference: ${same.join(", ")}.`) : null);
    } catch (error) {
      if (!this.closed) put(this.problem, error.message);
    }
  }

  part(part, values, found) {
    const missing = found.not_recorded[part] || [], rows = Object.entries(values);
    const text = missing.length ? `Not recorded of ${missing.join(", ")}.` : "";
    const cell = (key, one) => key === "status" ? status(one) : key === "cost" && one ? costs(one) : typeof one === "number" ? (key === "duration" ? duration(one) : number(one)) : value(one);
    const right = part === "metrics" ? this.runs.map((_, i) => i + 1) : [];
    return [el("h2", {}, TITLES[part] || part), text ? el("p", { class: "dim" }, text) : null,
      rows.length ? table(TITLES[part] || part, [part === "metrics" ? "Metric" : "Key", ...this.runs], rows.map(([key, each]) => [key, ...each.map((one) => cell(key, one))]), right) : null,
      found.left_out[part] ? el("p", { class: "dim" }, `and ${number(found.left_out[part])} more`) : null];
  }

  key(event) { return this.charts?.key(event); }

  redraw() { this.charts?.redraw(); }
}

// As the commands say it: `1.44 USD, 3 unpriced`.
const money = (amount) => amount < 0.01 ? number(amount, 2) : amount.toLocaleString("en", { minimumFractionDigits: 2, maximumFractionDigits: 2 });
const costs = ({ unpriced, ...totals }) => [...Object.entries(totals).map(([currency, amount]) => `${money(Number(amount))} ${currency}`),
  ...unpriced ? [`${number(unpriced)} unpriced`] : []].join(", ");
