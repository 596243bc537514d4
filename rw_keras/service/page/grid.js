/**
 * Hits as tiles, drawn from the template that `search --html` draws its own from.
 */

import { printable, writeName } from "./names.js";
import { release, show } from "./photos.js";
import { measured } from "./searching.js";
import { state, write } from "./state.js";
import { byId, make } from "./ui.js";

/** Longer sides that thumbnails are asked for at, for screens of plain and of fine pixels. */
const SIDE = devicePixelRatio > 1.25 ? 640 : 320;
/** The first tiles, which can be seen at once; the pictures of the others wait until they come near. */
export const AT_ONCE = 12;

/**
 * The address of a thumbnail at the size that a tile shows.
 * @param {string} url as the service gives it.
 */
export function atTileSize(url) {
  return `${url}${url.includes("?") ? "&" : "?"}side=${SIDE}`;
}

/**
 * Shows a photo in a well: its thumbnail, or a sentence where there is none.
 * @param {HTMLElement} well holds an image.
 * @param {{thumbnail: string | null, size: number[] | null}} photo
 * @param {boolean} lazy
 */
export function showThumbnail(well, { thumbnail, size }, lazy) {
  const image = well.querySelector("img");
  const fail = words => {
    release(image);
    image.replaceWith(make("span", { class: "gone" }, words));
  };
  if (thumbnail === null) {
    fail("The service does not hold this photo’s file.");
    return;
  }
  if (size !== null) [image.width, image.height] = size;
  image.addEventListener("error", () => fail("This photo was moved or removed after it was indexed."));
  show(image, atTileSize(thumbnail), { lazy });
}

/** A grid of hits: a list a page, so that a browser passes over those that are far away as a whole. */
export class Grid {
  /**
   * @param {HTMLElement} place
   * @param {{open: (name: string) => void, from: (name: string) => void}} actions
   */
  constructor(place, actions) {
    this.place = place;
    this.actions = actions;
    this.min = null;
    /** @type {{tile: HTMLElement, value: number, name: string}[]} */
    this.tiles = [];
    place.addEventListener("click", event => this.click(event));
  }

  clear() {
    for (const image of this.place.querySelectorAll("img")) release(image);
    this.place.replaceChildren();
    this.tiles = [];
  }

  /** Shows where hits will be, while none are known. */
  placeholders() {
    this.page().append(...Array.from({ length: AT_ONCE }, () => make("li", { class: "placeholder", "aria-hidden": "true" })));
  }

  /** Begins a page. */
  page() {
    const list = make("ol", { class: "hits", start: this.tiles.length + 1 });
    this.place.append(list);
    return list;
  }

  /**
   * Adds hits to the page that was begun last.
   * @param {import("./api.js").Hit[]} hits
   * @param {string} measure of the ranking.
   */
  append(hits, measure) {
    const added = document.createDocumentFragment();
    for (const hit of hits) added.append(this.tile(hit, measure));
    this.place.lastElementChild.append(added);
  }

  tile(hit, measure) {
    const tile = byId("hit").content.firstElementChild.cloneNode(true);
    const [called, value] = measured(hit, measure);
    const find = name => tile.querySelector(name);
    find(".hit").href = write({ ...state(), open: hit.name });
    find("img").alt = `Photo at rank ${hit.rank}`;
    find(".rank").textContent = hit.rank;
    writeName(find(".name"), hit.name);
    find(".cosine span").textContent = called;
    find(".cosine b").textContent = value.toFixed(3);
    find(".bar").setAttribute("width", (100 * Math.min(Math.max(value, 0), 1)).toFixed(1));
    find(".facts").remove(); // the large view has the size
    find(".from").setAttribute("aria-label", `Search from this: ${printable(hit.name)}`);
    showThumbnail(find(".well"), hit, this.tiles.length >= AT_ONCE);
    tile.hidden = this.min !== null && value < this.min;
    this.tiles.push({ tile, value, name: hit.name });
    return tile;
  }

  click(event) {
    const tile = event.target.closest("li");
    const name = this.tiles.find(one => one.tile === tile)?.name;
    if (name === undefined) return;
    if (event.target.closest(".from")) this.actions.from(name);
    else if (event.target.closest(".hit") && !(event.ctrlKey || event.metaKey || event.shiftKey)) {
      event.preventDefault();
      this.actions.open(name);
    }
  }

  /**
   * Hides tiles at once, while the service has yet to answer.
   * @param {number | null} min
   * @returns {number} how many can be seen.
   */
  hideBelow(min) {
    this.min = min;
    let seen = 0;
    for (const { tile, value } of this.tiles) {
      tile.hidden = min !== null && value < min;
      seen += !tile.hidden;
    }
    return seen;
  }

  /**
   * Gives a hit the focus.
   * @param {string} name
   * @returns {boolean} whether it is there.
   */
  focus(name) {
    const found = this.tiles.find(one => one.name === name && !one.tile.hidden);
    found?.tile.querySelector(".hit").focus();
    return found !== undefined;
  }
}
