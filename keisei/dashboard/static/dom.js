// Elements and texts. Whatever comes from a run is put into the page as text, and never as markup.

const HIDDEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g;

// Shows what cannot be seen (terminal escapes, marks that turn the writing round, half a character) as its number.
export function shown(value) {
  return String(value).replace(HIDDEN, (c) =>
    "\\u" + c.charCodeAt(0).toString(16).padStart(4, "0"));
}

export function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "class") element.className = value;
    else if (name in element && typeof value !== "string") element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  put(element, ...children);
  return element;
}

export function put(element, ...children) {
  element.replaceChildren(...children.flat(9).filter((c) => c !== null && c !== undefined && c !== false)
    .map((c) => c instanceof Node ? c : shown(c)));
  return element;
}

export function number(value, digits = 5) {
  if (value === null || value === undefined) return "–";
  if (typeof value === "string") return value;
  if (Number.isInteger(value) && Math.abs(value) < 1e15) return value.toLocaleString("en");
  const size = Math.abs(value);
  if (size !== 0 && (size >= 1e7 || size < 1e-4)) return value.toExponential(3).replace(/\.?0+e/, "e");
  const rounded = Number(value.toPrecision(digits));
  return size < 1e4 ? String(rounded) : rounded.toLocaleString("en", { maximumFractionDigits: 9 });
}

export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds > 0 && seconds < 0.95) return `${seconds < 0.001 ? "<1" : Math.round(seconds * 1000)} ms`;
  if (seconds < 60) return `${seconds < 10 ? seconds.toFixed(1) : Math.floor(seconds)}s`;
  const total = Math.round(seconds);
  const parts = [[Math.floor(total / 86400), "d"], [Math.floor(total / 3600) % 24, "h"],
    [Math.floor(total / 60) % 60, "m"], [total % 60, "s"]];
  const first = parts.findIndex(([n]) => n);
  return parts.slice(first, first + 2).map(([n, unit]) => n + unit).join(" ");
}

const two = (n) => String(n).padStart(2, "0");

export function moment(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  const d = new Date(seconds * 1000);
  return `${d.getFullYear()}-${two(d.getMonth() + 1)}-${two(d.getDate())} ${two(d.getHours())}:${two(d.getMinutes())}`;
}

export function clock(seconds) {
  const d = new Date(seconds * 1000);
  return `${moment(seconds)}:${two(d.getSeconds())}`;
}

export function value(data) {
  if (data === null || data === undefined) return "–";
  return typeof data === "string" ? data : JSON.stringify(data);
}

export function status(state) {
  const kind = { running: "run", elsewhere: "else", completed: "ok", cancelled: "warn", preempted: "warn",
    failed: "bad", died: "bad", lost: "bad", corrupt: "bad", unreadable: "bad", gone: "bad" }[state] || "bad";
  return el("span", { class: `state state-${kind}` }, state);
}

export function runAddress(name) {
  try {
    return `/run/${encodeURIComponent(name)}`;
  } catch {
    return null; // half of a character: no address can hold it
  }
}

export function later(action, wait) { // at once where nothing is waiting, and then as often as that
  let timer = null, again = false;
  const run = () => {
    timer = setTimeout(() => { timer = null; if (again) { again = false; run(); } }, wait);
    action();
  };
  return () => { if (timer) again = true; else run(); };
}

export function settled(action, wait) { // once nothing has come for so long
  let timer = null;
  return (...args) => { clearTimeout(timer); timer = setTimeout(() => action(...args), wait); };
}

// Changes what the address says of the view.
export function keepParams(changes) {
  const url = new URL(location.href);
  for (const [name, one] of Object.entries(changes)) {
    if (one === "" || one === null || one === undefined) url.searchParams.delete(name); else url.searchParams.set(name, one);
  }
  history.replaceState(null, "", url);
}
