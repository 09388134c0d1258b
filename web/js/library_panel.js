// The panel: a search box, filters, thumbnails page after page, and a concept in its place when one is chosen.

import { detailOf } from "./library_detail.js";
import { button, element, picture } from "./library_elements.js";
import { insert, makeDraggable } from "./library_graph.js";
import * as server from "./library_server.js";
import { text } from "./library_texts.js";

const PAGE = 60;
const PAUSE = 150;
const STYLE = new URL("../css/library.css", import.meta.url).href;

/** What was asked last, for the next time that the panel is opened. */
const asked = { words: "", base: "", axis: "", value: "", same: null };

export class Panel {
  constructor(container) {
    this.root = element("div", "ice-library");
    this.grid = element("div", "ice-library-grid", [], { role: "list" });
    this.status = element("p", "ice-library-status");
    this.end = element("div", "ice-library-end");
    this.place = element("div", "ice-library-place");
    this.list = element("div", "ice-library-list", [this.controls(), this.status, this.grid, this.end]);
    // The panel brings its look along: nothing is put into the page's own head.
    const look = element("link", "", [], { rel: "stylesheet", href: STYLE });
    const dressed = new Promise((done) => {
      for (const end of ["load", "error"]) look.addEventListener(end, done, { once: true });
    });
    this.root.hidden = true;
    this.root.append(look, this.list, this.place);
    // As high as the sidebar, so that the list scrolls in itself and its end is seen only there.
    container.style.height = "100%";
    container.append(this.root);
    const near = (seen) => seen.some((one) => one.isIntersecting) && this.more();
    this.watcher = new IntersectionObserver(near, { root: this.list, rootMargin: "400px" });
    this.forget = server.afterRuns(() => this.look());
    this.total = null;
    this.overview = null;
    // Without its look the list has no end to scroll to, and all pages would be asked for.
    dressed.then(() => {
      if (!this.root.isConnected) return;
      this.root.hidden = false;
      this.load();
      this.look();
    });
  }

  remove() {
    clearTimeout(this.waiting);
    this.request?.abort();
    this.watcher.disconnect();
    this.forget();
    this.root.remove();
  }

  controls() {
    this.search = element("input", "ice-library-search", [], {
      type: "search", placeholder: text("search"), value: asked.words, spellcheck: false,
    });
    this.search.setAttribute("aria-label", text("search"));
    this.search.addEventListener("input", () => this.ask({ words: this.search.value }, PAUSE));
    // The page has shortcuts of single letters.
    for (const kind of ["keydown", "keyup"]) this.search.addEventListener(kind, (event) => event.stopPropagation());
    this.base = this.chooser("base", () => this.ask({ base: this.base.value }));
    this.axis = this.chooser("axis", () => this.ask({ axis: this.axis.value, value: "" }));
    this.value = this.chooser("value", () => this.ask({ value: this.value.value }));
    this.chip = element("div", "ice-library-chip");
    const filters = element("div", "ice-library-filters", [this.base, this.axis, this.value]);
    return element("div", "ice-library-controls", [this.search, filters, this.chip]);
  }

  chooser(name, act) {
    const made = element("select", `ice-library-${name}`);
    made.setAttribute("aria-label", text(`${name}Label`));
    made.addEventListener("change", act);
    return made;
  }

  /** Asks anew with changes to the question, after a pause while one types. */
  ask(changes, pause = 0) {
    Object.assign(asked, changes);
    this.showFilters();
    clearTimeout(this.waiting);
    if (pause) this.waiting = setTimeout(() => this.load(), pause);
    else this.load();
  }

  query() {
    const query = { limit: PAGE };
    if (asked.words.trim()) query.words = asked.words.trim();
    if (asked.base) query.base = asked.base;
    if (asked.axis && asked.value) query.has = `${asked.axis}=${asked.value}`;
    if (asked.same) Object.assign(query, { same: asked.same.axis, like: asked.same.id });
    return query;
  }

  /** What there is to choose from, and whether there is something new. */
  async look() {
    try {
      const before = this.overview;
      this.overview = await server.overview();
      this.showFilters();
      if (before && before.concepts !== this.overview.concepts) this.load();
      else if (this.total === 0) this.say();
    } catch (error) {
      this.failed(error);
    }
  }

  showFilters() {
    const { families = {}, values = {} } = this.overview ?? {};
    const of = asked.axis ? (values[asked.axis] ?? {}) : {};
    this.offer(this.base, families, asked.base, text("anyBase"));
    const axes = Object.fromEntries(Object.keys(values).map((axis) => [axis, null]));
    this.offer(this.axis, axes, asked.axis, text("anyAxis"));
    this.offer(this.value, of, asked.value, text("anyValue"));
    this.value.disabled = !asked.axis;
    this.chip.replaceChildren(
      ...(asked.same ? [
        element("span", "", text("sameAs", { axis: asked.same.axis, name: asked.same.name })),
        button("ice-library-clear", "×", () => this.ask({ same: null }), { title: text("clear") }),
      ] : []),
    );
  }

  /** Options of a chooser with their numbers; one that is chosen stays, also where nothing has it any more. */
  offer(chooser, choices, chosen, any) {
    const options = Object.entries(choices).map(([value, number]) =>
      element("option", "", number === null ? value : `${value} (${number})`, { value }));
    if (chosen && !(chosen in choices)) options.push(element("option", "", chosen, { value: chosen }));
    chooser.replaceChildren(element("option", "", any, { value: "" }), ...options);
    chooser.value = chosen;
  }

  /** The first page; what is asked later goes before what is asked earlier. */
  async load() {
    this.request?.abort();
    const request = (this.request = new AbortController());
    this.watcher.disconnect();
    try {
      const first = await server.page(this.query(), request.signal);
      if (request.signal.aborted) return;
      this.total = first.total;
      this.grid.replaceChildren(...first.concepts.map((one) => this.cell(one)));
      this.say();
      this.watchEnd();
    } catch (error) {
      if (!request.signal.aborted) this.failed(error);
    }
  }

  /** The next page. */
  async more() {
    const request = this.request;
    const offset = this.grid.childElementCount;
    this.watcher.disconnect();
    try {
      const next = await server.page({ ...this.query(), offset }, request.signal);
      if (request.signal.aborted || !next.concepts.length) return;
      this.grid.append(...next.concepts.map((one) => this.cell(one)));
      this.watchEnd();
    } catch (error) {
      if (!request.signal.aborted) this.failed(error);
    }
  }

  watchEnd() {
    if (this.grid.childElementCount < this.total) this.watcher.observe(this.end);
  }

  cell(concept) {
    const read = Object.values(concept.properties).join(", ");
    const put = button("ice-library-add", "+", () => insert(concept), { title: text("insertTip") });
    const caption = element("span", "ice-library-caption", concept.key);
    const image = picture(concept, server.thumbnailOf(concept));
    const made = element("div", "ice-library-cell", [image, caption, put], {
      title: [concept.name, read].filter(Boolean).join("\n"), tabIndex: 0,
    });
    made.setAttribute("role", "listitem");
    made.dataset.concept = concept.id;
    makeDraggable(made, concept);
    made.addEventListener("click", () => this.open(concept));
    made.addEventListener("keydown", (event) => event.target === made && event.key === "Enter" && this.open(concept));
    return made;
  }

  async open(concept) {
    try {
      const known = await server.detail(concept.id);
      this.place.replaceChildren(detailOf(known, this));
      this.scrolled = this.list.scrollTop;
      this.root.classList.add("ice-library-chosen");
    } catch (error) {
      this.failed(error);
    }
  }

  back = () => {
    this.root.classList.remove("ice-library-chosen");
    this.place.replaceChildren();
    this.list.scrollTop = this.scrolled;
  };

  /** Those of which the same was read on an axis. */
  same(axis, concept) {
    this.back();
    this.ask({ same: { axis, id: concept.id, name: concept.name } });
  }

  removed(concept) {
    this.back();
    this.grid.querySelector(`[data-concept="${concept.id}"]`)?.remove();
    this.total -= 1;
    if (this.overview) this.overview.concepts -= 1;
    if (asked.same?.id === concept.id) this.ask({ same: null });
    this.say();
    this.look();
  }

  failed = (error) => {
    this.status.classList.add("ice-library-problem");
    this.status.textContent = error.message;
    if (this.root.classList.contains("ice-library-chosen")) this.back();
  };

  /** How many there are, or how to get some. */
  say() {
    this.status.classList.remove("ice-library-problem");
    const none = this.overview && this.overview.concepts === 0;
    if (none) this.status.textContent = text("empty", { folder: this.overview.folder });
    else this.status.textContent = this.total ? text("found", { number: this.total }) : text("nothing");
  }
}
