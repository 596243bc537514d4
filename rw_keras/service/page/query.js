/**
 * The photo that is searched with, and its box.
 */

import { thumbnailUrl } from "./api.js";
import { BoxEditor } from "./box.js";
import { printable } from "./names.js";
import { release, show } from "./photos.js";
import { bytesInWords } from "./problems.js";
import { go, state } from "./state.js";
import { byId } from "./ui.js";
import { find } from "./uploads.js";

const SIDE = 1024;
/** What photos are reduced to where the recipe does not say, as in `rw_keras.describe`. */
const USUAL_MAX_SIDE = 1024;

const image = byId("query-photo");
const stage = byId("stage");
const editor = new BoxEditor(stage, byId("query-box"), box => go({ box }));
byId("clear-box").addEventListener("click", () => {
  go({ box: null });
  stage.focus({ preventScroll: true });
});

/** Index and name -> width and height of photos of which an answer told. @type {Map<string, [number, number]>} */
const sizes = new Map();
let shown = "";
let address = null;
/** @type {File | null} */
let file = null;

const identity = (about, { name, upload }) => JSON.stringify([upload ?? about.name, name]);

/** A box over the query as shares of its photo's sides; all of it where there is none. */
export function boxInShares() {
  const { box, size } = editor;
  return box === null ? [0, 0, 1, 1] : box.map((corner, place) => corner / size[place % 2]);
}

/**
 * Remembers how large photos are.
 * @param {import("./api.js").About} about
 * @param {import("./api.js").Hit[]} hits
 */
export function learnSizes(about, hits) {
  for (const { name, size } of hits) if (size !== null) sizes.set(JSON.stringify([about.name, name]), size);
  const own = sizes.get(shown);
  if (own && editor.size === null && !stage.hidden) setSize(own, about);
}

/**
 * Shows the photo of a state.
 * @param {import("./api.js").About} about
 * @returns {Promise<File | null | undefined>} the photo of this device; null: one of the index; undefined: one that is not here.
 */
export async function showQuery(about) {
  const asked = state();
  const key = identity(about, asked);
  if (key !== shown) {
    shown = key;
    file = asked.upload === null ? null : ((await find(asked.upload)) ?? undefined);
    if (shown !== key) return null; // another one was chosen meanwhile
    const sized = showPhoto(about, asked);
    if (file && asked.box !== null) await sized; // a box of another photo may not fit
  } else if (editor.size !== null) {
    editor.show(editor.size, state().box, maxSide(about));
  }
  tellBox();
  return file;
}

/** Shows another photo; the promise is kept once its size is known, or that it cannot be shown. */
function showPhoto(about, asked) {
  release(image);
  if (address !== null) URL.revokeObjectURL(address);
  address = null;
  const isMissing = file === undefined;
  byId("missing").hidden = !isMissing;
  byId("unseen-photo").hidden = true;
  byId("box-help").hidden = isMissing;
  stage.hidden = isMissing;
  byId("query-buttons").hidden = isMissing;
  editor.show(null, null, USUAL_MAX_SIDE);
  const name = isMissing ? "" : (asked.name ?? file.name);
  byId("query-facts").textContent = file ? bytesInWords(file.size) : "";
  byId("search-title").textContent = isMissing ? "A search with a photo" : `Photos like ${printable(name)}`;
  if (isMissing) return Promise.resolve();
  const known = sizes.get(shown);
  image.removeAttribute("width");
  image.removeAttribute("height");
  if (known) [image.width, image.height] = known;
  if (file) address = URL.createObjectURL(file);
  const seen = new Promise(resolve => {
    image.onload = () => resolve(true);
    image.onerror = () => resolve(false);
  });
  show(image, address ?? thumbnailUrl(about.name, asked.name, SIDE));
  return seen.then(isSeen => {
    if (shown !== identity(about, asked)) return;
    if (!isSeen) {
      tellUnseen();
      return;
    }
    const size = file ? [image.naturalWidth, image.naturalHeight] : sizes.get(shown);
    if (size) setSize(size, about);
  });
}

function tellUnseen() {
  stage.hidden = true;
  byId("box-help").hidden = true;
  byId("unseen-photo").hidden = false;
  byId("unseen-photo").textContent = file
    ? "This browser cannot show this photo. If the service can read it, all of it is searched with."
    : navigator.onLine
      ? "The service has no file of this photo to show."
      : "This photo cannot be loaded while you are offline.";
}

const maxSide = about => Number(about.recipe.max_side) || USUAL_MAX_SIDE;

function setSize(size, about) {
  const { box } = state();
  const fits = box === null || (box[0] >= 0 && box[1] >= 0 && box[2] <= size[0] && box[3] <= size[1]);
  editor.show(size, fits ? box : null, maxSide(about));
  const facts = [`${size[0]} × ${size[1]} px`];
  if (file) facts.push(bytesInWords(file.size));
  byId("query-facts").textContent = facts.join(" · ");
  byId("box-help").hidden = !editor.canDraw;
  if (!fits) go({ box: null }, { replace: true });
}

function tellBox() {
  byId("clear-box").hidden = state().box === null || file === undefined;
}
