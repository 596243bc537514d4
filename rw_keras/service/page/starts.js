/**
 * Photos of an index to start from, for whoever has no photo at hand: those that are nearest to a vector of chance.
 */

import { search } from "./api.js";
import { showThumbnail } from "./grid.js";
import { printable } from "./names.js";
import { Problem } from "./problems.js";
import { asking, go, state, write } from "./state.js";
import { byId, counted, make } from "./ui.js";

const COUNT = 12;
let shown = null;

/**
 * Shows some photos of an index.
 * @param {import("./api.js").About} about
 */
export async function showStarts(about) {
  byId("starts-facts").textContent = `${counted(about.photos, "photo")} in ${printable(about.name)}`;
  if (shown === about.name) return;
  shown = about.name;
  byId("starts").hidden = true;
  if (!about.has_photos || about.photos === 0) return;
  const vector = Array.from({ length: about.dimensions }, () => Math.random() - 0.5);
  const fields = { index: about.name, vector, k: Math.min(COUNT, about.max_k), expand: 1, rerank: 0 };
  try {
    const answer = await search(fields, null, new AbortController().signal);
    if (shown !== about.name) return;
    byId("starts-list").replaceChildren(...answer.hits.filter(hit => hit.thumbnail !== null).map(start));
    byId("starts").hidden = byId("starts-list").children.length === 0;
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    shown = null; // what is wrong is told by the search that a person asks for
  }
}

function start(hit) {
  const well = make("span", { class: "well" }, make("img", { alt: printable(hit.name) }));
  const link = make("a", { class: "hit", href: write({ ...asking({ name: hit.name }), index: state().index }) }, well);
  showThumbnail(well, hit, false);
  link.addEventListener("click", event => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    go(asking({ name: hit.name }));
  });
  return make("li", {}, link);
}
