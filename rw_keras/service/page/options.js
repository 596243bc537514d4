/**
 * How is searched: the form of options, and the state.
 */

import { folderOf } from "./names.js";
import { USUAL_EXPANSION, USUAL_RERANKING } from "./searching.js";
import { go, state } from "./state.js";
import { byId, make, settled } from "./ui.js";

const OPERATOR = /^(!=|<=|>=|=|<|>)/;
const COLUMNS = 12;
/** Which index the fields of conditions are of. */
let shown = null;
let about = null;

/**
 * Connects the form with the state.
 * @param {(min: number | null) => void} onSlide is called while the slider moves.
 */
export function connectOptions(onSlide) {
  const min = byId("min");
  const chosen = () => (Number(min.value) === 0 ? null : Number(min.value));
  min.addEventListener("input", () => {
    tellMin(chosen());
    onSlide(chosen());
  });
  min.addEventListener("change", () => go({ min: chosen() }, { replace: true }));
  byId("expand").addEventListener("change", event => {
    const usual = about.expand ?? 1;
    const wanted = event.target.checked ? Math.max(usual, usual > 1 ? 0 : USUAL_EXPANSION) : 1;
    go({ expand: wanted === usual ? null : wanted });
  });
  byId("rerank").addEventListener("change", event => {
    const wanted = event.target.checked ? (about.rerank?.count ?? USUAL_RERANKING) : 0;
    go({ rerank: wanted === (about.rerank?.count ?? 0) ? null : wanted });
  });
  byId("turned").addEventListener("change", event => go({ turned: event.target.checked }));
  byId("leave").addEventListener("change", event => go({ leave: event.target.checked }));
  const within = byId("within");
  within.addEventListener("input", settled(() => go({ within: within.value }, { replace: true }), 500));
  within.addEventListener("change", () => go({ within: within.value }, { replace: true }));
  byId("conditions").addEventListener("change", () => go({ where: conditions() }));
  byId("options-form").addEventListener("submit", event => event.preventDefault());
  const wide = matchMedia("(min-width: 60rem)");
  const fold = () => (byId("options").open = wide.matches);
  wide.addEventListener("change", fold);
  fold();
}

/**
 * Shows the options of the state.
 * @param {import("./api.js").About} of the index.
 */
export function showOptions(of) {
  about = of;
  const asked = state();
  byId("min").value = String(asked.min ?? 0);
  tellMin(asked.min);
  byId("expand").checked = (asked.expand ?? about.expand ?? 1) > 1;
  byId("rerank-choice").hidden = !about.has_regions;
  byId("rerank").checked = about.has_regions && (asked.rerank ?? about.rerank?.count ?? 0) > 0;
  byId("turned").checked = asked.turned;
  byId("leave").checked = asked.leave;
  const within = byId("within");
  if (document.activeElement !== within) within.value = asked.within;
  within.disabled = asked.where.length > 0;
  within.placeholder = asked.where.length > 0 ? "not with conditions below" : asked.name === null ? "folder/" : folderOf(asked.name) || "folder/";
  showConditions(asked.where);
  const { min, expand, rerank, turned, leave, where } = asked;
  const set = [min !== null, expand !== null, rerank !== null, turned, leave, asked.within, where.length].filter(Boolean).length;
  byId("options-set").textContent = set ? ` · ${set} set` : "";
}

function tellMin(min) {
  byId("min-value").textContent = min === null ? "any" : min.toFixed(2);
}

/**
 * Says what the slider is about.
 * @param {string} measure "cosine" or "score".
 */
export function tellMeasure(measure) {
  byId("min-measure").textContent = measure;
}

function showConditions(where) {
  const place = byId("conditions");
  const columns = Object.keys(about.metadata ?? {}).slice(0, COLUMNS);
  place.hidden = columns.length === 0;
  if (shown !== about.name) {
    shown = about.name;
    place.querySelectorAll("label").forEach(label => label.remove());
    for (const column of columns) {
      const field = make("input", { type: "text", autocomplete: "off", spellcheck: false, "data-column": column });
      place.append(make("label", { class: "row" }, make("span", {}, column), field));
    }
  }
  for (const field of place.querySelectorAll("input")) {
    if (field === document.activeElement) continue;
    const own = where.find(text => text.startsWith(field.dataset.column) && OPERATOR.test(text.slice(field.dataset.column.length)));
    field.value = own?.slice(field.dataset.column.length).replace(/^=/, "") ?? "";
  }
}

function conditions() {
  return [...byId("conditions").querySelectorAll("input")]
    .filter(field => field.value.trim() !== "")
    .map(({ dataset, value }) => `${dataset.column}${OPERATOR.test(value.trim()) ? "" : "="}${value.trim()}`);
}
