// Questions to the server about the library. What it refuses becomes an Error with its reason.

import { api } from "../../../scripts/api.js";

const PREFIX = "/ice/library";

async function ask(path, options = {}) {
  const answer = await api.fetchApi(`${PREFIX}${path}`, options);
  const told = await answer.json().catch(() => ({ error: `${answer.status} ${answer.statusText}` }));
  if (!answer.ok) throw new Error(told.error ?? String(answer.status));
  return told;
}

export const overview = () => ask("");

export const page = (query, signal) => ask(`/concepts?${new URLSearchParams(query)}`, { signal });

export const detail = (id) => ask(`/concepts/${id}`);

export const remove = (id) => ask(`/concepts/${id}`, { method: "DELETE" });

/** The address names the picture, so that the browser need not ask for it twice. */
export const thumbnailOf = (concept) =>
  api.apiURL(`${PREFIX}/concepts/${concept.id}/thumbnail?v=${concept.thumbnail}`);

export const sheetOf = (concept) => api.apiURL(`${PREFIX}/concepts/${concept.id}/sheet`);

/** Calls back whenever a run of the graph has ended, which may have kept concepts; gives what stops that. */
export function afterRuns(callback) {
  api.addEventListener("execution_success", callback);
  return () => api.removeEventListener("execution_success", callback);
}
