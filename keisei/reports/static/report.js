// The charts of a report: those of the page, drawn from what the file holds.

const held = JSON.parse(document.getElementById("data").textContent);

// Answers what the page's charts ask a server for.
async function get(path, query) {
  if (path === "/api/metrics") {
    return { metrics: held.metrics, rows: held.rows, has_steps: held.lines.some((line) => "step" in line), share: 1 };
  }
  const wanted = new Set(query.metric), weight = Number(query.smooth) || 0;
  const found = held.lines.filter((line) => wanted.has(line.metric) && query.x in line);
  return { share: 1, series: found.map((line) => drawn(line, query.x, weight)) };
}

async function series(query) { return get("/api/series", query); }

function drawn(line, x, weight) {
  const xs = held.xs[line[x]], ys = x === "time" && line.time_ys ? line.time_ys : line.ys;
  return { ...line, xs, ys, smooth: weight ? { xs, ys: smoothed(ys, weight) } : null };
}

// The mean of all so far, each earlier one weighing less by the same factor.
function smoothed(ys, weight) {
  let mean = 0, share = 0;
  return ys.map((y) => {
    if (y === null) return null;
    share = weight * share + 1 - weight;
    mean += (1 - weight) / share * (y - mean);
    return mean;
  });
}

class ReportCharts extends Charts {
  paint() { for (const chart of this.charts.values()) chart.paint(); }

  // All charts are drawn, and not only those that can be seen: they may be printed.
  async load() {
    await super.load();
    this.limit = Infinity;
    this.arrange(false);
    await this.fetchSome([...this.charts.values()]);
    this.paint();
  }
}

function runsLegend(runs) {
  return el("ul", { class: "legend", "aria-label": "Runs" }, runs.map((name, i) => {
    const dot = el("span", { class: "dot" });
    dot.style.background = colour(i);
    return el("li", {}, dot, el("bdi", {}, name));
  }));
}

const host = document.getElementById("drawn");
if (host) {
  const noisy = held.runs.length > 1 && held.lines.some((line) => line.count > 300); // they would hide each other
  if (held.runs.length > 1) host.before(runsLegend(held.runs));
  const charts = new ReportCharts(host, held.runs, new URLSearchParams(noisy ? { smooth: "0.9" } : {}), () => {});
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    charts.redraw();
    document.querySelectorAll(".legend .dot").forEach((dot, i) => { dot.style.background = colour(i); });
  });
  addEventListener("keydown", (event) => {
    const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName);
    if (!typing && !event.ctrlKey && !event.metaKey && !event.altKey && charts.key(event)) event.preventDefault();
  });
  addEventListener("beforeprint", () => { document.documentElement.dataset.theme = "light"; charts.paint(); });
  addEventListener("afterprint", () => { delete document.documentElement.dataset.theme; charts.redraw(); });
}
