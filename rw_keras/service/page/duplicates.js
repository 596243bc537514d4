/**
 * The second view: photos that are almost the same, in groups.
 */

import { duplicates } from "./api.js";
import { showThumbnail } from "./grid.js";
import { clear, showEmpty, showProblem, showWait } from "./messages.js";
import { printable, writeName } from "./names.js";
import { patiently } from "./patience.js";
import { release } from "./photos.js";
import { Problem } from "./problems.js";
import { asking, go, state, write } from "./state.js";
import { announce, byId, copy, counted, icon, make } from "./ui.js";

/** Groups of a page. */
const PAGE = 24;
/** Seconds after which the service is asked again while it compares; other waits are longer. */
const COMPARING = 10;
/** As `rw-keras duplicates` has it. */
const USUAL_THRESHOLD = 0.95;

const message = byId("duplicates-problem");
const list = byId("groups");
/** What is shown: of which index, at which threshold, which groups, and where they go on. */
let shown = { key: null, groups: [], cursor: null, total: 0 };
let running = new AbortController();
/** @type {import("./api.js").About | null} */
let about = null;

const threshold = byId("threshold");
threshold.addEventListener("input", tellThreshold);
threshold.addEventListener("change", () => go({ threshold: Number(threshold.value) }, { replace: true }));
byId("duplicates-form").addEventListener("submit", event => event.preventDefault());
byId("more-groups").addEventListener("click", () => next());
byId("copy-groups").addEventListener("click", () => copy(asText(), "The list"));
const nearEnd = new IntersectionObserver(
  ([entry]) => entry.isIntersecting && !entry.target.disabled && shown.cursor !== null && next(),
  { rootMargin: "600px" },
);
nearEnd.observe(byId("more-groups"));

function tellThreshold() {
  byId("threshold-value").textContent = Number(threshold.value).toFixed(3).replace(/0$/, "");
}

/**
 * Shows the groups of the state.
 * @param {import("./api.js").About} of the index.
 * @param {() => void} onToken is called when the service asks for a token.
 */
export async function showDuplicates(of, onToken) {
  about = of;
  const lowest = state().threshold ?? USUAL_THRESHOLD;
  threshold.value = String(lowest);
  tellThreshold();
  const key = `${lowest} ${about.name}`;
  if (key === shown.key) return;
  forget();
  shown = { key, groups: [], cursor: null, total: 0, lowest, onToken };
  await next();
}

/** Lets go of what is shown, so that it is asked for again. */
export function forget() {
  running.abort();
  for (const image of list.querySelectorAll("img")) release(image);
  list.replaceChildren();
  shown = { key: null, groups: [], cursor: null, total: 0 };
}

/** The photos of all groups, for the large view. */
export const photosOfGroups = () => shown.groups.flat();

/** Gives a photo the focus. */
export function focusGroups(name) {
  [...list.querySelectorAll(".hit")].find(link => link.dataset.name === name)?.focus();
}

async function next() {
  running.abort();
  running = new AbortController();
  const { signal } = running;
  const own = shown;
  clear(message);
  const more = byId("more-groups");
  more.disabled = true;
  byId("groups-facts").textContent = own.groups.length ? byId("groups-facts").textContent : "Comparing all photos …";
  list.classList.toggle("busy", own.groups.length === 0);
  try {
    const asked = { index: about.name, threshold: own.lowest, cursor: own.cursor, k: PAGE };
    // The groups of a large index take minutes, and until they are found the service says when to ask again.
    const answer = await patiently(() => duplicates(asked, signal), signal, tellWait, Infinity);
    if (own !== shown) return;
    clear(message);
    list.append(...answer.groups.map((group, place) => groupOf(group, own.groups.length + place)));
    own.groups.push(...answer.groups);
    own.cursor = answer.cursor;
    own.total = answer.total;
    tell();
  } catch (error) {
    if (error.name === "AbortError" || own !== shown) return;
    if (!(error instanceof Problem)) throw error;
    if (error.status === 401) shown.onToken();
    byId("groups-facts").textContent = "";
    const anew = error.status === 410;
    showProblem(message, error, () => {
      const { onToken } = shown;
      if (anew) forget();
      if (anew) showDuplicates(about, onToken);
      else next();
    });
  } finally {
    if (own === shown) {
      list.classList.remove("busy");
      more.disabled = false;
      more.hidden = own.cursor === null;
      nearEnd.unobserve(more);
      nearEnd.observe(more); // it may be near the end still
    }
  }
}

/** Says that the service has to be waited for, where it is not the comparing alone, of which the page tells already. */
function tellWait(problem) {
  if (problem.wait > COMPARING) showWait(message, problem);
}

function tell() {
  const isNone = shown.total === 0;
  const words = isNone ? "" : `${counted(shown.total, "group")}, the largest first`;
  byId("groups-facts").textContent = words;
  byId("groups-list").hidden = byId("copy-groups").hidden = isNone;
  byId("groups-text").value = asText();
  announce(words || "No two photos are so much alike.");
  if (isNone) {
    const lowest = threshold.value;
    showEmpty(message, "No two photos are so much alike", `None have a cosine of ${lowest} or more. Lower it to see more.`);
  }
}

const asText = () => shown.groups.map(group => group.map(({ name }) => printable(name)).join("\n")).join("\n\n");

function groupOf(group, place) {
  const title = make("h2", {}, `Group ${place + 1}`, make("span", { class: "facts" }, ` · ${counted(group.length, "photo")}`));
  const copying = make("button", { type: "button", class: "plain", "aria-label": `Copy the names of group ${place + 1}`, title: "Copy the names" });
  copying.append(icon("copy"));
  copying.addEventListener("click", () => copy(group.map(({ name }) => printable(name)).join("\n"), "The names"));
  const photos = make("ul", { class: "strip" }, ...group.map((photo, number) => photoOf(photo, place < 4 && number < 6)));
  return make("li", { class: group.length > 3 ? "group large" : "group" }, make("div", { class: "line" }, title, copying), photos);
}

function photoOf(photo, isFirst) {
  const well = make("span", { class: "well" }, make("img", { alt: "" }));
  const name = make("span", { class: "name" });
  writeName(name, photo.name);
  const link = make("a", { class: "hit", href: write({ ...state(), open: photo.name }), "data-name": photo.name }, well, name);
  showThumbnail(well, photo, !isFirst);
  link.addEventListener("click", event => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    go({ open: photo.name });
  });
  const facts = make("p", { class: "facts" }, photo.size ? `${photo.size[0]} × ${photo.size[1]} px` : "");
  const from = make("button", { type: "button", class: "from", "aria-label": `Search from this: ${printable(photo.name)}` });
  from.append(icon("search"), make("span", {}, "Search from this"));
  from.addEventListener("click", () => go(asking({ name: photo.name })));
  return make("li", {}, link, facts, from);
}
