// The page: which view the address names, the keys, the theme, and whether the server is there.

import { onStatus, takeToken } from "./api.js";
import { el, put } from "./dom.js";
import { ListView } from "./list.js";
import { CompareView } from "./compare.js";
import { RunView } from "./run.js";

const main = document.getElementById("main"), crumbs = document.getElementById("crumbs");
const status = document.getElementById("status"), keys = document.getElementById("keys");
const theme = document.getElementById("theme");
let view = null;

function show() {
  view?.close();
  const url = new URL(location.href), run = /^\/run\/([^/]+)$/.exec(url.pathname);
  window.scrollTo(0, 0);
  if (run) {
    const name = decodeURIComponent(run[1]);
    put(crumbs, " / ", el("span", { "aria-current": "page" }, name));
    view = new RunView(main, name, url.searchParams);
  } else if (url.pathname === "/compare") {
    put(crumbs, " / ", el("span", { "aria-current": "page" }, "compare"));
    view = new CompareView(main, url.searchParams);
  } else {
    put(crumbs);
    view = new ListView(main, url.searchParams, go);
  }
}

function go(address) {
  history.pushState(null, "", address);
  show();
  main.focus({ preventScroll: true });
}

document.addEventListener("click", (event) => {
  const link = event.target.closest?.("a[href^='/']");
  if (!link || event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
  event.preventDefault();
  go(link.getAttribute("href"));
});
window.addEventListener("popstate", show);

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const field = event.target.closest?.("input:not([type=checkbox]):not([type=range]), textarea, select");
  if (event.key === "Escape") {
    if (keys.open) return; // it closes by itself
    if (field) field.blur();
    else if (location.pathname !== "/") { if (history.length > 1 && arrived) history.back(); else go("/"); }
    return;
  }
  if (field || keys.open) return;
  if (event.key === "?") keys.showModal();
  else if (!view?.key(event)) return;
  event.preventDefault();
});
let arrived = false; // whether the list was there before
window.addEventListener("popstate", () => { arrived = false; });
const push = history.pushState.bind(history);
history.pushState = (...all) => { arrived = true; push(...all); };

document.getElementById("help").addEventListener("click", () => keys.showModal());

const THEMES = ["auto", "light", "dark"];
function setTheme(name) {
  if (name === "auto") delete document.documentElement.dataset.theme; else document.documentElement.dataset.theme = name;
  localStorage.setItem("keisei-theme", name);
  put(theme, { auto: "Auto", light: "Light", dark: "Dark" }[name]);
  theme.setAttribute("aria-label", `Theme: ${name}`);
  theme.dataset.name = name;
  view?.redraw?.();
}
theme.addEventListener("click", () => setTheme(THEMES[(THEMES.indexOf(theme.dataset.name) + 1) % 3]));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => view?.redraw?.());

onStatus((kind, text) => { status.className = `status status-${kind}`; put(status, text); });
takeToken();
const saved = localStorage.getItem("keisei-theme");
setTheme(THEMES.includes(saved) ? saved : "auto");
show();
