// All that is known of one concept: its pictures, what was read of it, prompts to copy.

import { button, copy, element, picture } from "./library_elements.js";
import { insert, makeDraggable } from "./library_graph.js";
import * as server from "./library_server.js";
import { text } from "./library_texts.js";

const percent = (weight) => `${Math.round(100 * weight)} %`;

/** host: back() to the list, same(axis, concept) for a search, removed(concept) when it is gone. */
export function detailOf(concept, host) {
  const head = element("div", "ice-library-head", [
    button("ice-library-back", "←", host.back, { title: text("back") }),
    element("h3", "", concept.name),
  ]);
  const image = element("div", "ice-library-picture", picture(concept, server.thumbnailOf(concept)));
  makeDraggable(image, concept);
  const parts = [head, image, actions(concept, host)];
  if (concept.problem) parts.push(element("p", "ice-library-problem", concept.problem));
  parts.push(readings(concept, host), prompts(concept), facts(concept));
  if (concept.sheet) parts.push(sheet(concept));
  return element("div", "ice-library-detail", parts);
}

function actions(concept, host) {
  const row = element("div", "ice-library-actions");
  const put = button("ice-library-insert", text("insert"), () => insert(concept), { title: text("insertTip") });
  const asked = () => {
    const gone = button("ice-library-really", text("reallyRemove"), async () => {
      gone.disabled = true;
      await server.remove(concept.id).then(() => host.removed(concept), host.failed);
    });
    row.replaceChildren(gone, button("ice-library-keep", text("keep"), () => row.replaceChildren(put, remove)));
  };
  const remove = button("ice-library-remove", text("remove"), asked);
  row.append(put, remove);
  return row;
}

function readings(concept, host) {
  const table = element("table", "ice-library-readings");
  for (const [axis, reading] of Object.entries(concept.readings)) {
    const words = reading.candidates.map((one) => `${one.value} ${percent(one.weight)}`).join(", ");
    const cell = element("td", "", reading.fits ? words : text("nothingFits", { words }));
    const more = element("td");
    if (concept.properties[axis]) {
      const tip = text("sameTip", { axis, value: concept.properties[axis] });
      more.append(button("ice-library-same", text("same"), () => host.same(axis, concept), { title: tip }));
    }
    table.append(element("tr", "", [element("th", "", axis), cell, more]));
  }
  return table;
}

function prompts(concept) {
  const rows = concept.prompts.map((prompt) => {
    const put = button("ice-library-copy", text("copy"), async () => {
      await copy(prompt, put);
      put.textContent = text("copied");
      setTimeout(() => (put.textContent = text("copy")), 1500);
    });
    return element("li", "", [element("code", "", prompt), put]);
  });
  return element("ul", "ice-library-prompts", rows);
}

function facts(concept) {
  const known = {
    tags: concept.tags.join(", "),
    picture: concept.title,
    origin: concept.origin,
    base: `${concept.base_name} (${concept.family})`,
    learned: concept.date.slice(0, 10),
    added: concept.added.slice(0, 10),
  };
  const list = element("dl", "ice-library-facts");
  for (const [name, value] of Object.entries(known)) {
    if (value) list.append(element("dt", "", text(name)), element("dd", "", value));
  }
  return list;
}

function sheet(concept) {
  const image = element("img", "", [], { alt: text("sheet"), src: server.sheetOf(concept) });
  return element("a", "ice-library-sheet", image, { href: image.src, target: "_blank", title: text("sheet") });
}
