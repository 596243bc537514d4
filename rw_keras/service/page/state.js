/**
 * What the page shows, as its address has it, so that back, reload and links work.
 */

import { decodeName, encodeName } from "./names.js";

/**
 * @typedef {object} State
 * @property {"search" | "duplicates"} view
 * @property {string | null} index the index; null: the first.
 * @property {string | null} name a photo of the index that is searched with.
 * @property {string | null} upload a photo of this device that is searched with: its key in `uploads.js`.
 * @property {number[] | null} box x1, y1, x2, y2 in pixels of the upright photo.
 * @property {number | null} expand photos that the query is averaged with; null: as the index has it; 1: none.
 * @property {number | null} rerank photos that are put in the order of their regions; null: as the index has it; 0: none.
 * @property {boolean} turned whether photos that lie on their side are found, too.
 * @property {boolean} leave whether the photo itself is left out of its own hits.
 * @property {string} within what names begin with.
 * @property {string[]} where conditions on metadata.
 * @property {number | null} min the lowest cosine or score.
 * @property {number | null} threshold the lowest cosine of duplicates.
 * @property {string | null} open the photo in the large view.
 * @property {boolean} why whether the large view says why.
 */

/** @type {State} */
const NOTHING = {
  view: "search",
  index: null,
  name: null,
  upload: null,
  box: null,
  expand: null,
  rerank: null,
  turned: false,
  leave: false,
  within: "",
  where: [],
  min: null,
  threshold: null,
  open: null,
  why: false,
};

const number = text => (text !== "" && Number.isFinite(Number(text)) ? Number(text) : null);
const READERS = {
  view: text => (text === "duplicates" ? text : "search"),
  box: text => {
    const corners = text.split(",").map(number);
    return corners.length === 4 && corners.every(corner => corner !== null) ? corners : null;
  },
  expand: number,
  rerank: number,
  min: number,
  threshold: number,
  turned: text => text === "1",
  leave: text => text === "1",
  why: text => text === "1",
};

/** @type {Set<(state: State, before: State) => void>} */
const listeners = new Set();
let current = read(location.search);
/** Writes down, once scrolling rests, where the page stands. */
let resting = 0;

/**
 * The state of an address' query.
 * @param {string} search
 * @returns {State}
 */
export function read(search) {
  const state = { ...NOTHING, where: [] };
  for (const part of search.replace(/^\?/, "").split("&")) {
    const [key, ...texts] = part.split("=");
    const text = decodeName(texts.join("=").replaceAll("+", " "));
    if (key === "where") state.where.push(text);
    else if (key in NOTHING) state[key] = (READERS[key] ?? String)(text);
  }
  return state;
}

/**
 * The address' query of a state; what is as usual, or not given, is left out.
 * @param {Partial<State>} state
 * @returns {string}
 */
export function write(state) {
  const parts = [];
  for (const [key, usual] of Object.entries(NOTHING)) {
    const value = state[key] ?? usual;
    if (key === "where") parts.push(...value.map(text => `where=${encodeName(text)}`));
    else if (value !== usual) parts.push(`${key}=${written(value)}`);
  }
  return parts.length ? `?${parts.join("&")}` : location.pathname;
}

function written(value) {
  if (Array.isArray(value)) return value.join(",");
  return value === true ? "1" : encodeName(String(value));
}

/** @returns {State} */
export function state() {
  return current;
}

/**
 * Goes to another state.
 * @param {Partial<State>} changes
 * @param {{replace?: boolean}} [options] `replace`: back does not come to the present state again.
 */
export function go(changes, { replace = false } = {}) {
  const before = current;
  const next = { ...current, ...changes };
  if (write(next) === write(before)) return;
  current = next;
  clearTimeout(resting);
  const own = { opened: replace ? (history.state?.opened ?? false) : next.open !== null && before.open === null };
  if (!replace) history.replaceState({ ...history.state, scroll: scrollY }, "");
  history[replace ? "replaceState" : "pushState"](replace ? { ...history.state, ...own } : own, "", write(next));
  tell(before);
}

/** Closes the large view: by going back where it was opened from here, so that forward opens it again. */
export function close() {
  if (history.state?.opened) history.back();
  else go({ open: null, why: false }, { replace: true });
}

/**
 * The state with a new query: options that are of the index and not of the photo stay.
 * @param {Partial<State>} query
 * @returns {Partial<State>}
 */
export function asking(query) {
  return { view: "search", name: null, upload: null, box: null, leave: false, open: null, why: false, ...query };
}

/**
 * Calls a function with the new state and the one before, whenever it changes.
 * @param {(state: State, before: State) => void} listener
 */
export function onChange(listener) {
  listeners.add(listener);
}

function tell(before) {
  for (const listener of listeners) listener(current, before);
}

/** Where the page was scrolled to when this state was left. @returns {number | null} */
export function scrolled() {
  return history.state?.scroll ?? null;
}

history.scrollRestoration = "manual";
addEventListener("scroll", () => {
  clearTimeout(resting);
  resting = setTimeout(() => history.replaceState({ ...history.state, scroll: scrollY }, ""), 150);
}, { passive: true });
addEventListener("popstate", () => {
  clearTimeout(resting);
  const before = current;
  current = read(location.search);
  tell(before);
});
