// Completes {placeholders} in the composer's prompt while typing, and marks at once those that nothing has.
// The names come from the server, which traces the graph as it does before a run; without it nothing is marked.
// What lies on the server's disk is shown with its thumbnail.

import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";

const COMPOSER = "ICEConceptComposer";
const PAUSE = 300;
const NOTHING = { names: [], problem: null, thumbnails: {} };

/** What stands behind an open brace at the end of a text; null where none is open. */
export function begun(text) {
  const match = /\{([^{}]*)$/.exec(text);
  return match ? match[1].trim() : null;
}

/** Names that begin with, or hold, what was typed; at most eight. */
export function offers(names, typed) {
  const wanted = typed.toLowerCase();
  const first = names.filter((name) => name.toLowerCase().startsWith(wanted));
  const inside = names.filter((name) => !first.includes(name) && name.toLowerCase().includes(wanted));
  return [...first, ...inside].slice(0, 8);
}

async function known(node, prompt) {
  const { output } = await app.graphToPrompt();
  const answer = await api.fetchApi("/ice/placeholders", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ graph: output, node: String(node.id), prompt }),
  });
  return answer.ok ? answer.json() : NOTHING;
}

/** A name with its picture, where there is one that can be shown. */
function row(name, address) {
  const made = document.createElement("div");
  made.textContent = name;
  if (!address) return made;
  const picture = document.createElement("img");
  picture.src = api.apiURL(address);
  picture.addEventListener("error", () => picture.remove());
  Object.assign(picture.style, { width: "32px", height: "32px", objectFit: "cover", marginRight: "8px" });
  Object.assign(made.style, { display: "flex", alignItems: "center" });
  made.prepend(picture);
  return made;
}

class Completion {
  constructor(node, area) {
    Object.assign(this, { node, area, chosen: 0, shown: [], pictures: {} });
    this.list = document.createElement("div");
    this.list.className = "ice-completion";
    Object.assign(this.list.style, {
      position: "fixed", inset: "auto", margin: 0, padding: 0, color: "var(--input-text, #ddd)",
      background: "var(--comfy-menu-bg, #222)", border: "1px solid var(--border-color, #555)",
      font: "12px sans-serif", minWidth: "140px",
    });
    // Shown above all else, wherever it stands in the page.
    this.list.popover = "manual";
    area.addEventListener("input", () => this.later());
    area.addEventListener("keydown", (event) => this.press(event));
    area.addEventListener("blur", () => setTimeout(() => this.offer([]), 200));
  }

  later() {
    clearTimeout(this.waiting);
    this.waiting = setTimeout(() => this.ask(), PAUSE);
  }

  async ask() {
    const { names, problem, thumbnails } = await known(this.node, this.area.value).catch(() => NOTHING);
    this.pictures = thumbnails ?? {};
    const typed = begun(this.area.value.slice(0, this.area.selectionStart));
    this.mark(typed === null ? problem : null);
    this.offer(typed === null ? [] : offers(names, typed));
  }

  mark(problem) {
    this.area.style.outline = problem ? "2px solid #d33" : "";
    this.area.title = problem ?? "";
  }

  offer(names) {
    Object.assign(this, { shown: names, chosen: 0 });
    this.draw();
  }

  draw() {
    const place = this.area.getBoundingClientRect();
    Object.assign(this.list.style, { left: `${place.left}px`, top: `${place.bottom}px` });
    if (!this.area.isConnected) return;
    if (this.list.previousSibling !== this.area) this.area.after(this.list);
    this.list.togglePopover(this.shown.length > 0);
    const rows = this.shown.map((name, n) => {
      const made = row(name, this.pictures[name]);
      Object.assign(made.style, { padding: "3px 8px", background: n === this.chosen ? "#446" : "" });
      made.addEventListener("mousedown", () => this.take(name));
      return made;
    });
    this.list.replaceChildren(...rows);
  }

  press(event) {
    if (!this.shown.length) return;
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) this.chosen = (this.chosen + step + this.shown.length) % this.shown.length;
    else if (event.key === "Enter" || event.key === "Tab") this.take(this.shown[this.chosen]);
    else if (event.key === "Escape") this.offer([]);
    else return;
    event.preventDefault();
    event.stopPropagation();
    this.draw();
  }

  take(name) {
    const at = this.area.selectionStart;
    const before = this.area.value.slice(0, at).replace(/\{[^{}]*$/, `{${name}}`);
    this.area.value = before + this.area.value.slice(at).replace(/^[^{}]*\}/, "");
    this.area.setSelectionRange(before.length, before.length);
    this.area.dispatchEvent(new Event("input", { bubbles: true }));
    this.offer([]);
  }

  remove() {
    clearTimeout(this.waiting);
    this.list.remove();
  }
}

app.registerExtension({
  name: "ICE.Placeholders",
  nodeCreated(node) {
    if (node.comfyClass !== COMPOSER) return;
    const area = node.widgets?.find((widget) => widget.name === "prompt")?.inputEl;
    if (!area) return;
    const completion = new Completion(node, area);
    const before = node.onRemoved;
    node.onRemoved = function (...given) {
      completion.remove();
      return before?.apply(this, given);
    };
  },
});
