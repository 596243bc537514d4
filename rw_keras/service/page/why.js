/**
 * Why a photo was found: the query and the photo side by side, with the regions that agree drawn on both.
 */

import { thumbnailUrl } from "./api.js";
import { clear, showEmpty, showProblem } from "./messages.js";
import { release, show } from "./photos.js";
import { Problem } from "./problems.js";
import { boxInShares } from "./query.js";
import { explained } from "./searching.js";
import { state } from "./state.js";
import { announce, byId, draw, make } from "./ui.js";

/** Pairs that are drawn: more cannot be told apart. */
const PAIRS = 5;
const SIDE = 1024;
/** How much a small photo is enlarged at most. */
const ENLARGED = 1.75;
/** The side of a number, as a share of the photo's. */
const NUMBER = 0.08;

const place = byId("why");
let running = new AbortController();
let shown = null;

/**
 * Shows why a hit was found.
 * @param {import("./viewer.js").Shelf} shelf
 * @param {string} name of the hit.
 */
export async function showWhy(shelf, name) {
  place.hidden = false;
  const key = `${shelf.ranking.key} ${name}`;
  if (key === shown) return;
  hideWhy();
  place.hidden = false;
  shown = key;
  running = new AbortController();
  const { signal } = running;
  const message = make("div", { class: "problem", hidden: true });
  const waiting = make("p", { class: "facts waiting" }, "Comparing the regions …");
  place.replaceChildren(waiting, message);
  announce("Comparing the regions.");
  try {
    const hit = await explained(shelf.ranking, name, signal);
    waiting.remove();
    const pairs = [...(hit.regions ?? [])].sort((one, other) => other.cosine - one.cosine).slice(0, PAIRS);
    if (pairs.length === 0) {
      showEmpty(message, "Nothing to compare", "The service has no regions of this photo, or none of them agree.");
      return;
    }
    const both = make(
      "div",
      { class: "both" },
      figure("Query", pairs.map(({ query }) => query), boxInShares(), image => showQueryPhoto(image, shelf)),
      figure("Hit", pairs.map(({ hit: own }) => own), [0, 0, 1, 1], image => show(image, thumbnailUrl(shelf.about.name, name, SIDE))),
    );
    place.replaceChildren(both, list(pairs));
    announce(`${pairs.length} pairs of regions that agree most.`);
  } catch (error) {
    if (error.name === "AbortError") return;
    if (!(error instanceof Problem)) throw error;
    waiting.remove();
    showProblem(message, error, () => {
      shown = null;
      showWhy(shelf, name);
    });
  }
}

/** Takes it away. */
export function hideWhy() {
  running.abort();
  shown = null;
  for (const image of place.querySelectorAll("img")) release(image);
  place.hidden = true;
  place.replaceChildren();
}

/** The query as it stands in the page: a photo of this device, or one of the index. */
function showQueryPhoto(image, shelf) {
  const { name } = state();
  show(image, name === null ? byId("query-photo").src : thumbnailUrl(shelf.about.name, name, SIDE));
}

/**
 * A photo with regions.
 * @param {string} title
 * @param {number[][]} regions as shares of the sides of what was compared.
 * @param {number[]} box what of the photo was compared, as shares of its sides.
 * @param {(image: HTMLImageElement) => void} load shows the photo.
 */
function figure(title, regions, [x1, y1, x2, y2], load) {
  const image = make("img", { alt: `${title}, with ${regions.length} regions drawn on it` });
  const boxed = make("div", { class: "boxed" }, image);
  image.addEventListener("load", () => {
    boxed.style.setProperty("--ratio", String(image.naturalWidth / image.naturalHeight));
    boxed.style.setProperty("--own", `${ENLARGED * image.naturalWidth}px`);
  });
  const within = ([left, top, right, bottom]) => [
    x1 + left * (x2 - x1), y1 + top * (y2 - y1), x1 + right * (x2 - x1), y1 + bottom * (y2 - y1),
  ];
  const places = regions.map(within);
  const svg = draw("svg", { viewBox: "0 0 1 1", preserveAspectRatio: "none", "aria-hidden": "true" });
  const outside = `M0 0H1V1H0ZM${x1} ${y1}H${x2}V${y2}H${x1}Z`;
  svg.append(draw("path", { class: "shade", "fill-rule": "evenodd", d: outside }), ...places.map(mark).reverse());
  load(image);
  const taken = [];
  const numbers = places.map((place, number) => label(place, number, taken));
  boxed.append(svg, ...numbers);
  return make("figure", {}, make("figcaption", {}, title), boxed);
}

function mark([x1, y1, x2, y2], number) {
  const frame = { x: x1, y: y1, width: x2 - x1, height: y2 - y1 };
  const parts = [draw("rect", { class: "halo", ...frame }), draw("rect", { class: "pair", ...frame })];
  return draw("g", { class: `pair-${number}`, "data-pair": number }, ...parts);
}

/** The number of a region, at its upper edge, where no other number stands yet. */
function label([x1, y1, x2, y2], number, taken) {
  const made = make("span", { class: `number pair-${number}`, "aria-hidden": "true", "data-pair": number }, String(number + 1));
  const [width, height] = [Math.max(x2 - x1 - NUMBER, 0), Math.max(y2 - y1 - NUMBER, 0)];
  const steps = [0, 0.25, 0.5, 0.75, 1];
  const places = steps.flatMap(down => steps.map(across => [x1 + across * width, y1 + down * height]));
  const isFree = ([x, y]) => taken.every(other => Math.hypot(other[0] - x, other[1] - y) > NUMBER);
  const [across, down] = places.find(isFree) ?? places[0];
  taken.push([across, down]);
  made.style.left = `${100 * across}%`;
  made.style.top = `${100 * down}%`;
  return made;
}

/** The pairs with their cosines; the one that is pointed at, or has the focus, stands out in both photos. */
function list(pairs) {
  const items = pairs.map(({ cosine }, number) => {
    const chip = make("button", { type: "button", class: "pair-chip", "aria-pressed": "false", "data-pair": number });
    chip.append(make("b", { class: `number pair-${number}` }, String(number + 1)), ` cosine ${cosine.toFixed(3)}`);
    chip.addEventListener("click", () => {
      const pressed = chip.getAttribute("aria-pressed") !== "true";
      for (const other of place.querySelectorAll(".pair-chip")) other.setAttribute("aria-pressed", "false");
      chip.setAttribute("aria-pressed", String(pressed));
      emphasise(pressed ? number : null);
    });
    chip.addEventListener("pointerenter", () => emphasise(number));
    chip.addEventListener("pointerleave", () => emphasise(chosen()));
    return make("li", {}, chip);
  });
  return make("div", {}, make("p", { class: "facts" }, "The regions that agree most; choose one to see it alone."), make("ol", { class: "pairs" }, ...items));
}

function chosen() {
  const chip = place.querySelector('.pair-chip[aria-pressed="true"]');
  return chip === null ? null : Number(chip.dataset.pair);
}

function emphasise(number) {
  for (const one of place.querySelectorAll(".both [data-pair]")) {
    one.classList.toggle("faint", number !== null && Number(one.dataset.pair) !== number);
  }
}
