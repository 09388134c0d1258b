// Small pieces of the page. Text of others is only ever text.

/** An element with a class, its content (text or elements) and what else it is given. */
export function element(tag, name, content = [], given = {}) {
  const made = Object.assign(document.createElement(tag), given);
  if (name) made.className = name;
  made.append(...[content].flat());
  return made;
}

export function button(name, label, act, given = {}) {
  const made = element("button", name, label, { type: "button", ...given });
  made.addEventListener("click", (event) => {
    event.stopPropagation();
    act(event);
  });
  return made;
}

/** A picture that cannot be dragged by itself, or the letter that a concept begins with. */
export function picture(concept, address) {
  const letter = () => element("span", "ice-library-letter", [...concept.label][0] ?? "?");
  if (!concept.thumbnail) return letter();
  const made = element("img", "", [], { alt: concept.label, draggable: false, loading: "lazy" });
  made.addEventListener("error", () => made.replaceWith(letter()), { once: true });
  made.src = address;
  return made;
}

/** Puts a text into the clipboard; pages that are not served over HTTPS have to select it for that, in a field
 * that stands beside an element for a moment. */
export async function copy(value, beside) {
  const copied = await navigator.clipboard?.writeText(value).then(() => true, () => false);
  if (copied) return;
  const area = element("textarea", "", [], { value });
  beside.after(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}
