// What the panel says, in the language of the page; English where there is no other.

const LANGUAGES = ["en", "zh", "zh-TW", "ja", "ko", "fr", "de", "ru", "es"];

let texts = {};

async function read(language) {
  const answer = await fetch(new URL(`../texts/${language}.json`, import.meta.url));
  return answer.ok ? answer.json() : {};
}

export async function loadTexts(language) {
  const wanted = LANGUAGES.includes(language) ? language : "en";
  const [english, own] = await Promise.all([read("en"), wanted === "en" ? {} : read(wanted)]);
  texts = { ...english, ...own };
}

/** A text by its name, with {these} filled in. */
export function text(name, values = {}) {
  return (texts[name] ?? name).replace(/\{(\w+)\}/g, (whole, key) => values[key] ?? whole);
}
