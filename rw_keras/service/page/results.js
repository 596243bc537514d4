/**
 * The view of a search: asks for what the state has, and shows it.
 */

import { clear, showEmpty, showProblem, showWait } from "./messages.js";
import { AT_ONCE, Grid } from "./grid.js";
import { tellMeasure } from "./options.js";
import { Problem } from "./problems.js";
import { learnSizes, showQuery } from "./query.js";
import { fieldsOf, keyOf, Ranking } from "./searching.js";
import { asking, go, state } from "./state.js";
import { announce, button, byId, counted, secondsInWords } from "./ui.js";

/** Rankings that are kept, so that back shows one at once. */
const KEPT = 8;

const message = byId("search-problem");
const more = byId("more");
const grid = new Grid(byId("grid"), {
  open: name => go({ open: name }),
  from: name => go(asking({ name })),
});
/** @type {Map<string, Ranking>} */
const rankings = new Map();
/** @type {Ranking | null} */
let current = null;
let running = new AbortController();
let isRunning = false;
let about = null;
let hooks = null;

more.addEventListener("click", () => next());
const nearEnd = new IntersectionObserver(([entry]) => entry.isIntersecting && next(), { rootMargin: "800px" });
nearEnd.observe(more);

/**
 * @param {{onToken: () => void, onChange: () => void}} given is called when the service asks for a token, and when there are more
 * hits.
 */
export function connectResults(given) {
  hooks = given;
}

/** The ranking that is shown. */
export const ranking = () => current;

/** Shows, while the slider moves, what it will leave. @param {number | null} min */
export function slide(min) {
  grid.hideBelow(min);
}

/** Gives a hit the focus. @param {string} name */
export function focusHit(name) {
  if (!grid.focus(name)) byId("hits").focus();
}

/**
 * Shows the search of the state.
 * @param {import("./api.js").About} of the index.
 */
export async function showSearch(of) {
  about = of;
  const asked = state();
  const key = keyOf({ ...asked, index: about.name });
  const file = await showQuery(about);
  if (keyOf({ ...state(), index: about.name }) !== key) return;
  if (current?.key === key && (isRunning || current.isAsked)) return;
  running.abort();
  isRunning = false;
  clear(message);
  if (file === undefined) {
    current = null;
    grid.clear();
    byId("found").hidden = true;
    return;
  }
  byId("found").hidden = false;
  const kept = rankings.get(key);
  if (kept) {
    current = kept;
    drawAnew(kept.hits);
    hooks.onChange();
    return;
  }
  current = new Ranking(key, fieldsOf(asked, about), file);
  next();
}

/** Asks again what went wrong, or what a token was wanting for. */
export function again() {
  if (current === null || isRunning) return;
  if (current.isAsked && current.cursor !== null) next();
  else {
    current = new Ranking(current.key, current.fields, current.file);
    next();
  }
}

/** Asks for the next page, and draws it. */
export async function next() {
  if (current === null || isRunning || current.isWhole) return;
  const own = current;
  const isFirst = !own.isAsked;
  running.abort();
  running = new AbortController();
  isRunning = true;
  clear(message);
  tellBusy(isFirst);
  try {
    const hits = await own.next(running.signal, problem => {
      if (isFirst) grid.clear();
      showWait(message, problem);
    });
    if (own !== current) return;
    learnSizes(about, hits);
    clear(message);
    if (isFirst) {
      keep(own);
      drawAnew(hits.slice(0, AT_ONCE));
      await drawn(); // what can be seen comes first
      if (own !== current) return;
      grid.append(hits.slice(AT_ONCE), own.measure);
    } else {
      grid.page();
      grid.append(hits, own.measure);
      tell();
      announce(`${counted(hits.length, "more hit")}.`);
    }
  } catch (error) {
    if (error.name === "AbortError" || own !== current) return;
    if (!(error instanceof Problem)) throw error;
    fail(error, isFirst);
  } finally {
    if (own === current) {
      isRunning = false;
      byId("found").removeAttribute("aria-busy");
      byId("grid").classList.remove("busy");
      more.disabled = false;
      nearEnd.unobserve(more);
      nearEnd.observe(more); // it may be near the end still, or again
      hooks.onChange();
    }
  }
}

function keep(own) {
  rankings.set(own.key, own);
  if (rankings.size > KEPT) rankings.delete(rankings.keys().next().value);
}

/** Waits until the browser has drawn, and writes down how long after the answer that was. A page that is hidden is not drawn. */
async function drawn() {
  if (document.hidden) return;
  await new Promise(resolve => {
    requestAnimationFrame(() => setTimeout(resolve));
  });
  performance.measure("drawn", "answered");
}

function tellBusy(isFirst) {
  byId("found").setAttribute("aria-busy", "true");
  more.disabled = true;
  if (!isFirst) return;
  more.hidden = true;
  byId("end").textContent = "";
  byId("hits").textContent = "Searching …";
  byId("took").textContent = "";
  byId("grid").classList.add("busy");
  byId("keys").hidden = false; // it stands above the hits, and would push them down when they come
  if (byId("grid").children.length === 0) grid.placeholders();
  announce("Searching.");
}

function drawAnew(hits) {
  grid.clear();
  grid.hideBelow(state().min);
  grid.page();
  grid.append(hits, current.measure);
  byId("grid").classList.remove("busy");
  tell();
  byId("keys").hidden = hits.length === 0;
  announce(`${byId("hits").textContent}. ${byId("took").textContent}`);
}

function tell() {
  const { hits, total, seconds, isWhole, measure } = current;
  byId("hits").textContent = total === 0 ? "No hits" : counted(total, "hit");
  byId("took").textContent = `in ${secondsInWords(seconds)}`;
  tellMeasure(measure);
  more.hidden = isWhole;
  byId("end").textContent = isWhole && hits.length > 20 ? "That is all." : "";
  if (hits.length === 0) tellNone();
}

function tellNone() {
  const { min, within, where } = state();
  const isFiltered = min !== null || within !== "" || where.length > 0;
  const anew = button("close", "Without these limits", () => go({ min: null, within: "", where: [] }), "main");
  const words = isFiltered ? "No photo fits the limits in the options." : "This index has no photo that can be found.";
  showEmpty(message, "Nothing was found", words, ...(isFiltered ? [anew] : []));
}

function fail(problem, isFirst) {
  byId("hits").textContent = "Hits";
  byId("keys").hidden = isFirst;
  if (isFirst) grid.clear();
  if (!isFirst) byId("hits").textContent = counted(current.total, "hit");
  if (problem.status === 401) hooks.onToken();
  if (problem.status === 410) {
    rankings.delete(current.key);
    const { key, fields, file } = current;
    const anew = () => {
      current = new Ranking(key, fields, file);
      next();
    };
    showProblem(message, problem, anew);
  } else showProblem(message, problem, () => next());
  if (problem.status === 422 && state().box !== null) {
    message.append(button("close", "Search without the box", () => go({ box: null }), "main"));
  }
  more.hidden = true;
}
