// The media of a run: by name, one step at a time, the last one first.

import { content, get } from "./api.js";
import { el, number, put, value } from "./dom.js";

export async function showMedia(panel, run, part, wanted) {
  const address = `/api/run/${encodeURIComponent(run)}/media`;
  const { media } = await get(address, { part });
  if (!wanted()) return;
  const names = new Map();
  for (const one of media) {
    if (!names.has(one.name)) names.set(one.name, []);
    names.get(one.name).push(one);
  }
  if (!names.size) { put(panel, el("p", { class: "empty" }, "No media are logged.")); return; }
  const kept = new Map([...panel.querySelectorAll(".medium")].map((each) => [each.dataset.name, each]));
  const all = [...names].map(([name, things]) => {
    const old = kept.get(name);
    if (old && old.things.length === things.length) return old;
    return medium(address, name, things, old);
  });
  put(panel, el("div", { class: "grid" }, all));
}

function medium(address, name, things, old) {
  const host = el("div", { class: "medium-body" });
  const slider = el("input", { type: "range", min: "0", max: String(things.length - 1), "aria-label": `Which of ${name}`, hidden: things.length < 2 });
  const followed = !old || old.at === old.things.length - 1;
  const label = el("span", { class: "latest" }), caption = el("p", { class: "caption dim" });
  const figure = el("figure", { class: "chart medium", "data-name": name },
    el("figcaption", {}, el("span", { class: "metric", title: name }, name), label), host, caption, slider);
  let asked = 0;
  const show = async () => {
    const one = things[figure.at = Number(slider.value)], mine = ++asked;
    put(label, one.step === null || one.step === undefined ? "" : `step ${number(one.step, 12)}`);
    put(caption, one.caption || "");
    caption.hidden = !one.caption;
    slider.setAttribute("aria-valuetext", label.textContent);
    let drawn;
    try { drawn = await body(one, `${address}/${one.file}`); } catch (error) { drawn = el("p", { class: "problem" }, error.message); }
    if (mine === asked) put(host, drawn);
  };
  figure.things = things;
  slider.value = String(followed ? things.length - 1 : Math.min(old.at, things.length - 1));
  slider.addEventListener("input", show);
  new IntersectionObserver((found, self) => { if (found.some((f) => f.isIntersecting)) { self.disconnect(); show(); } }).observe(figure);
  return figure;
}

async function body(one, address) {
  if (!one.file) return el("p", { class: "dim" }, value(one.problem || one.reason || "It was not kept."));
  const kind = one.kind;
  if (["image", "figure", "video", "audio"].includes(kind) && !/\.(json|html)$/.test(one.file)) {
    const source = URL.createObjectURL(await content(address));
    if (kind === "video" && !/\.(gif|png)$/.test(one.file)) return el("video", { src: source, controls: true, muted: true, loop: true });
    if (kind === "audio") return el("audio", { src: source, controls: true });
    return el("img", { src: source, alt: `${one.name}, ${one.caption || kind}` });
  }
  if (kind === "text") return el("pre", { class: "wrap" }, (await (await content(address)).text()).slice(0, 100000));
  if (/\.json$/.test(one.file)) {
    const data = JSON.parse(await (await content(address)).text());
    if (kind === "table") return table(data, address.slice(0, -one.file.length));
    if (kind === "histogram") return histogram(data);
  }
  const link = el("button", { type: "button", onclick: async () => {
    const anchor = el("a", { href: URL.createObjectURL(await content(address)), download: one.file.split("/").pop() });
    anchor.click();
  } }, `Save (${number(one.size)} bytes)`);
  return el("p", {}, value(one.path || one.kind), " ", link);
}

function table(data, folder) {
  return el("div", { class: "table-host" }, el("table", { class: "plain" },
    el("thead", {}, el("tr", {}, (data.columns || []).map((c) => el("th", { scope: "col" }, String(c.name ?? c))))),
    el("tbody", {}, (data.rows || []).slice(0, 500).map((row) => el("tr", {}, row.map((cell) => el("td", {}, typeof cell === "number" ? number(cell, 8) : cell?.kind === "image" && cell.file ? picture(folder + cell.file) : value(cell))))))));
}

function picture(address) {
  const host = el("span", {}, "…");
  content(address).then((blob) => put(host, el("img", { src: URL.createObjectURL(blob), alt: "picture" })),
    (error) => put(host, el("span", { class: "problem" }, error.message)));
  return host;
}

function histogram(data) {
  const counts = data.counts || [], edges = data.edges || [], most = Math.max(1, ...counts);
  const bars = counts.map((count, i) => {
    const bar = el("span", { class: "histogram-bar", title: `${number(edges[i])} to ${number(edges[i + 1])}: ${number(count)}` });
    bar.style.height = `${100 * count / most}%`;
    return bar;
  });
  return el("div", { role: "img", "aria-label": `Histogram from ${number(edges[0])} to ${number(edges[edges.length - 1])}, greatest count ${number(most)}` },
    el("div", { class: "histogram" }, bars),
    el("div", { class: "histogram-ends dim" }, el("span", {}, number(edges[0])), el("span", {}, number(edges[edges.length - 1]))));
}
