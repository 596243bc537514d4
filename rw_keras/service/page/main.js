/**
 * The page: shows what the state has, and tells the parts of one another.
 */

import { checkSize, indexes } from "./api.js";
import { connectChoosing } from "./choosing.js";
import { focusGroups, forget, photosOfGroups, showDuplicates } from "./duplicates.js";
import { clear, showProblem } from "./messages.js";
import { printable } from "./names.js";
import { connectOptions, showOptions } from "./options.js";
import { Problem } from "./problems.js";
import { again, connectResults, focusHit, next, ranking, showSearch, slide } from "./results.js";
import { showStarts } from "./starts.js";
import { asking, go, onChange, scrolled, state, write } from "./state.js";
import { askForToken } from "./token.js";
import { byId, copy, make, note } from "./ui.js";
import { keep } from "./uploads.js";
import { showViewer } from "./viewer.js";

/** @type {import("./api.js").About[]} */
let all = [];

const isHome = ({ view, name, upload }) => view === "search" && name === null && upload === null;
const about = () => all.find(({ name }) => name === state().index) ?? all[0];

/** What the large view turns over. */
function shelf() {
  const asked = state();
  if (all.length === 0) return null;
  const isOfGroups = asked.view === "duplicates";
  return {
    about: about(),
    hits: isOfGroups ? photosOfGroups : () => ranking()?.hits ?? [],
    isWhole: () => isOfGroups || !ranking() || !ranking().isAsked || ranking().isWhole,
    more: next,
    ranking: isOfGroups ? null : ranking(),
    focus: isOfGroups ? focusGroups : focusHit,
  };
}

async function show(now, before) {
  const home = isHome(now);
  byId("home").hidden = !home;
  byId("search").hidden = home || now.view !== "search";
  byId("duplicates").hidden = now.view !== "duplicates";
  tellViews(now);
  if (all.length === 0) return;
  const of = about();
  byId("index").value = of.name;
  if (now.view === "duplicates") showDuplicates(of, wantToken);
  else if (home) showStarts(of);
  else {
    showOptions(of);
    await showSearch(of);
  }
  if (state() !== now) return;
  showViewer(shelf());
  tellTitle(now);
  if (before) move(now, before);
}

/** Where the page is scrolled to, and what has the focus, once it shows something else. */
function move(now, before) {
  const isElsewhere = now.view !== before.view || now.name !== before.name || now.upload !== before.upload;
  if (!isElsewhere) return;
  scrollTo({ top: scrolled() ?? 0, behavior: "instant" });
  const title = isHome(now) ? "home-title" : now.view === "duplicates" ? "duplicates-title" : "search-title";
  byId(title).focus({ preventScroll: true });
}

function tellViews(now) {
  for (const [id, view] of [["to-search", "search"], ["to-duplicates", "duplicates"]]) {
    const link = byId(id);
    link.href = write({ view, index: now.index });
    if (now.view === view) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.querySelector(".brand").href = byId("to-search").href;
}

function tellTitle(now) {
  const words = isHome(now) ? "Find a photo" : now.view === "duplicates" ? "Duplicates" : byId("search-title").textContent;
  document.title = `${now.open === null ? words : printable(now.open)} · rw_keras`;
}

async function take(file) {
  try {
    checkSize(file);
  } catch (problem) {
    if (isHome(state())) showProblem(byId("home-problem"), problem, () => {});
    else note(`${file.name}: ${problem.detail}`);
    return;
  }
  clear(byId("home-problem"));
  const isMissing = !byId("missing").hidden && !byId("search").hidden;
  const upload = await keep(file);
  go(isMissing ? { upload } : asking({ upload }));
}

function wantToken() {
  askForToken(async () => {
    if (all.length === 0) await start();
    else if (state().view === "duplicates") {
      forget();
      show(state());
    } else again();
  });
}

function share() {
  const isOfDevice = state().upload !== null;
  const words = "The link has your box and options, and not your photo, which stays on this device. The link";
  copy(location.href, isOfDevice ? words : "The link");
}

/** Tells whether there is a network, and goes on once it is back. */
function tellOnline() {
  byId("offline").hidden = navigator.onLine;
  if (!navigator.onLine) return;
  if (all.length === 0) start();
  else if (!byId("search-problem").hidden) again();
}

function fillIndexes() {
  byId("index").replaceChildren(...all.map(({ name }) => make("option", { value: name }, printable(name))));
  byId("index-choice").hidden = all.length < 2;
}

function chooseIndex(name) {
  const index = name === all[0].name ? null : name;
  const own = { index, open: null, why: false, expand: null, rerank: null, within: "", where: [] };
  go(state().name === null ? own : { ...own, name: null, box: null });
}

async function start() {
  const problem = byId("home-problem");
  clear(problem);
  try {
    all = await indexes();
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    byId("home").hidden = false;
    byId("search").hidden = byId("duplicates").hidden = true;
    if (error.status === 401) wantToken();
    showProblem(problem, error, () => (error.status === 401 ? wantToken() : start()));
    return;
  }
  fillIndexes();
  show(state());
}

/** After a reload, the first hits that are drawn stand where they stood. */
let toScroll = scrolled();
function drawn() {
  showViewer(shelf());
  if (toScroll && ranking()?.isAsked) scrollTo({ top: toScroll, behavior: "instant" });
  if (ranking()?.isAsked) toScroll = null;
}

connectChoosing(take);
connectOptions(slide);
connectResults({ onToken: wantToken, onChange: drawn });
byId("share").addEventListener("click", share);
byId("index").addEventListener("change", event => chooseIndex(event.target.value));
for (const id of ["to-search", "to-duplicates"]) {
  byId(id).addEventListener("click", event => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    go({ ...asking({}), view: id === "to-search" ? "search" : "duplicates" });
  });
}
document.querySelector(".brand").addEventListener("click", event => {
  event.preventDefault();
  go(asking({}));
});
addEventListener("online", tellOnline);
addEventListener("offline", tellOnline);
onChange(show);
byId("offline").hidden = navigator.onLine;
start();
