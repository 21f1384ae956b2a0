// Tables of plain data.

import { el, number, value } from "./dom.js";

// heads: texts; rows: lists of texts or elements, the first of each its name; right: columns of numbers;
// kind: `stack` where a row is a paragraph on a narrow screen.
export function table(caption, heads, rows, right = [], kind = "") {
  const side = (i) => right.includes(i) ? "right" : null;
  return el("div", { class: "scroll", tabIndex: 0, role: "region", "aria-label": caption }, el("table", { class: `plain ${kind}` },
    el("caption", { class: "hidden" }, caption),
    el("thead", {}, el("tr", {}, heads.map((head, i) => el("th", { scope: "col", class: side(i) }, head)))),
    el("tbody", {}, rows.map((row) => el("tr", {}, row.map((cell, i) =>
      el(i ? "td" : "th", { scope: i ? null : "row", class: side(i), "data-head": kind ? heads[i] : null }, cell)))))));
}

// What is logged of an event, as nested lists.
export function tree(data, depth = 0) {
  if (data === null || typeof data !== "object") return el("span", {}, typeof data === "number" ? number(data) : value(data));
  const entries = Array.isArray(data) ? data.map((one, i) => [i, one]) : Object.entries(data);
  if (depth > 3 || entries.length > 200) return el("code", { class: "wrap" }, JSON.stringify(data).slice(0, 5000));
  if (!entries.length) return el("span", { class: "dim" }, "–");
  return el("dl", { class: "tree" }, entries.map(([name, one]) => el("div", {}, el("dt", {}, String(name)), el("dd", {}, tree(one, depth + 1)))));
}

// The values of a config, with where they came from where that is known.
export function facts(caption, rows) {
  const known = rows.some((one) => one.from);
  return table(caption, known ? ["Key", "Value", "From", "Before"] : ["Key", "Value"], rows.map((one) => [one.key, value(one.value),
    ...known ? [el("span", { class: "dim" }, one.from || ""),
      el("span", { class: "dim" }, (one.before || []).map((b) => `${value(b.value)} (${b.from})`).join(", "))] : []]), [], "stack");
}
