// The media of a run.

import { el, put } from "./dom.js";

export function showMedia(panel) {
  put(panel, el("p", { class: "empty" }, "No media are logged."));
}
