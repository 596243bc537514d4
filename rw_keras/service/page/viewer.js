/**
 * The large view of one photo: a dialog, with the next and the previous one, what is known of it, and why it was found.
 */

import { ask, hasToken, photoUrl, thumbnailUrl } from "./api.js";
import { printable, writeName } from "./names.js";
import { release, show } from "./photos.js";
import { inWords, Problem } from "./problems.js";
import { asking, close, go, state } from "./state.js";
import { announce, byId, copy, make, note } from "./ui.js";
import { hideWhy, showWhy } from "./why.js";

const SIDE = 1024;
/** How much a small photo is enlarged at most. */
const ENLARGED = 1.75;
/** Hits that are looked through for a photo that a link opens. */
const FAR = 500;

const dialog = byId("viewer");
const image = byId("viewer-photo");

/**
 * What is turned over in the large view.
 * @typedef {object} Shelf
 * @property {import("./api.js").About} about
 * @property {() => import("./api.js").Hit[]} hits
 * @property {() => boolean} isWhole
 * @property {() => Promise<void>} more loads more hits.
 * @property {import("./searching.js").Ranking | null} ranking whose hits they are; null: nothing was searched for.
 * @property {(name: string) => void} focus gives a hit in the page the focus.
 */

/** @type {Shelf | null} */
let shelf = null;
let shown = null;
let isSeeking = false;

byId("viewer-close").addEventListener("click", close);
byId("viewer-copy").addEventListener("click", () => copy(shown, "The name"));
byId("viewer-previous").addEventListener("click", () => turn(-1));
byId("viewer-next").addEventListener("click", () => turn(1));
byId("viewer-why").addEventListener("click", () => go({ why: !state().why }, { replace: true }));
byId("viewer-from").addEventListener("click", () => go(asking({ name: shown })));
byId("viewer-original").addEventListener("click", openWithToken);
dialog.addEventListener("cancel", event => {
  event.preventDefault();
  close();
});
dialog.addEventListener("click", event => {
  if (event.target === dialog) close();
});
dialog.addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.shiftKey) return;
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (step) {
    event.preventDefault();
    turn(step);
  }
});
image.addEventListener("error", () => tellGone(true));
image.addEventListener("load", () => tellGone(false));

function tellGone(isGone) {
  image.hidden = isGone;
  byId("viewer-gone").hidden = !isGone;
}

/**
 * Shows, or closes, the large view as the state has it.
 * @param {Shelf | null} of
 */
export function showViewer(of) {
  shelf = of;
  const { open, why } = state();
  if (open === null || shelf === null) {
    if (!dialog.open) return;
    dialog.close();
    release(image);
    hideWhy();
    if (shelf !== null && shown !== null) shelf.focus(shown);
    shown = null;
    return;
  }
  const hit = find(open);
  if (hit === undefined && !shelf.isWhole() && shelf.hits().length < FAR) seek();
  if (!dialog.open) dialog.showModal();
  if (open !== shown) showPhoto(open);
  tell(open, hit);
  const canExplain = shelf.ranking !== null;
  byId("viewer-why").hidden = !canExplain;
  byId("viewer-why").setAttribute("aria-pressed", String(why && canExplain));
  byId("viewer-stage").hidden = why && canExplain;
  dialog.classList.toggle("explains", why && canExplain);
  if (why && canExplain) showWhy(shelf, open);
  else hideWhy();
}

const find = name => shelf.hits().find(hit => hit.name === name);

async function seek() {
  if (isSeeking) return;
  isSeeking = true;
  try {
    await shelf.more();
  } finally {
    isSeeking = false;
  }
}

function showPhoto(name) {
  shown = name;
  writeName(byId("viewer-name"), name);
  image.alt = printable(name);
  tellGone(false);
  [image.style.maxWidth, image.style.maxHeight] = ["", ""];
  show(image, thumbnailUrl(shelf.about.name, name, SIDE));
  byId("viewer-original").href = photoUrl(shelf.about.name, name);
}

/** What is known of a photo, and where it stands. */
function tell(name, hit) {
  const hits = shelf.hits();
  const place = hits.indexOf(hit);
  byId("viewer-previous").disabled = place <= 0;
  byId("viewer-next").disabled = place < 0 || (place === hits.length - 1 && shelf.isWhole());
  const facts = [];
  if (hit?.size) {
    [image.width, image.height] = hit.size;
    [image.style.maxWidth, image.style.maxHeight] = hit.size.map(side => `min(100%, ${ENLARGED * side}px)`);
    facts.push(["size", `${hit.size[0]} × ${hit.size[1]} px`]);
  }
  if (hit?.rank) facts.unshift(["rank", `${hit.rank} of ${shelf.ranking.total.toLocaleString("en")}`]);
  if (hit && hit.score !== null && hit.score !== undefined) facts.push(["score of its regions", hit.score.toFixed(3)]);
  if (hit?.cosine !== undefined) facts.push(["cosine", hit.cosine.toFixed(3)]);
  for (const [column, value] of Object.entries(hit?.metadata ?? {})) if (value !== null) facts.push([column, String(value)]);
  const rows = facts.map(([title, value]) => make("div", {}, make("dt", {}, printable(title)), make("dd", {}, printable(value))));
  byId("viewer-facts").replaceChildren(...rows);
}

async function turn(step) {
  const hits = shelf.hits();
  const place = hits.findIndex(hit => hit.name === state().open);
  if (place < 0) return;
  if (place + step >= hits.length && !shelf.isWhole()) await seek();
  const next = shelf?.hits()[place + step];
  if (next === undefined) return;
  go({ open: next.name }, { replace: true });
  announce(`${next.rank ? `Rank ${next.rank}: ` : ""}${printable(next.name)}`);
}

/** A new tab cannot bring a token, so the photo is asked for here. */
async function openWithToken(event) {
  if (!hasToken()) return;
  event.preventDefault();
  const tab = window.open("", "_blank");
  try {
    const response = await ask(photoUrl(shelf.about.name, shown));
    const address = URL.createObjectURL(await response.blob());
    if (tab) tab.location = address;
    setTimeout(() => URL.revokeObjectURL(address), 60000);
  } catch (error) {
    tab?.close();
    if (!(error instanceof Problem)) throw error;
    note(inWords(error).title);
  }
}
