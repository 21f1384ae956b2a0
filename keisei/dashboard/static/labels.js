// A run's tags and note, changed where they stand.

import { post } from "./api.js";
import { el, put } from "./dom.js";

export class Labels {
  constructor(name, tags, note, { onTag = null } = {}) {
    this.name = name;
    this.onTag = onTag;
    this.tags = el("span", { class: "tags" });
    this.note = el("span", { class: "note" });
    this.update(tags, note);
  }

  get editing() {
    return Boolean(this.tags.querySelector("input") || this.note.querySelector("textarea"));
  }

  update(tags, note) {
    if (this.editing) return;
    const key = JSON.stringify([tags, note]);
    if (key === this.key) return;
    this.key = key;
    this.now = { tags, note };
    put(this.tags, tags.map((tag) => this.chip(tag)),
      el("button", { class: "add", type: "button", "aria-label": `Add a tag to ${this.name}`,
        onclick: () => this.askTag() }, "+ tag"));
    put(this.note, el("button", { class: note ? "note-text" : "add", type: "button",
      "aria-label": note ? `Change the note of ${this.name}: ${note}` : `Write a note for ${this.name}`,
      onclick: () => this.askNote() }, note || "+ note"));
  }

  chip(tag) {
    const text = this.onTag
      ? el("button", { class: "chip-text", type: "button", title: `Only runs with the tag ${tag}`,
        onclick: () => this.onTag(tag) }, tag)
      : el("span", { class: "chip-text" }, tag);
    return el("span", { class: "chip" }, text,
      el("button", { class: "chip-x", type: "button", "aria-label": `Remove the tag ${tag} from ${this.name}`,
        onclick: () => this.send({ remove: [tag] }) }, "×"));
  }

  askTag() {
    const input = el("input", { class: "inline", size: 12, maxLength: 64, "aria-label": `New tag for ${this.name}` });
    this.field(this.tags.lastChild, input, () => {
      const tags = input.value.split(",").map((t) => t.trim()).filter(Boolean);
      return tags.length ? { add: tags } : null;
    });
  }

  askNote() {
    const input = el("textarea", { class: "inline", rows: 2, maxLength: 10000, "aria-label": `Note for ${this.name}; Enter saves, Shift and Enter begin a new line` });
    input.value = this.now.note || "";
    this.field(this.note.firstChild, input, () =>
      input.value.trim() === (this.now.note || "") ? null : { note: input.value });
  }

  field(old, input, asked) {
    let done = false;
    const finish = (save) => {
      if (done) return;
      done = true;
      const change = save ? asked() : null;
      input.replaceWith(old);
      old.focus();
      if (change) this.send(change);
    };
    input.addEventListener("keydown", (event) => {
      event.stopPropagation();
      if (event.key === "Escape") finish(false);
      else if (event.key === "Enter" && !event.shiftKey) { event.preventDefault(); finish(true); }
    });
    input.addEventListener("blur", () => finish(true));
    old.replaceWith(input);
    input.focus();
  }

  async send(change) {
    try {
      const now = await post(`/api/run/${encodeURIComponent(this.name)}/labels`, change);
      this.update(now.tags, now.note);
    } catch (error) {
      const message = el("span", { class: "problem", role: "alert" }, error.message);
      this.note.append(message);
      setTimeout(() => message.remove(), 8000);
    }
  }
}
