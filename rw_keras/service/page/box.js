/**
 * The box over a photo: drawn, moved and resized with a mouse, a finger or the keyboard.
 */

import { byId, draw, make, settled } from "./ui.js";

const HANDLES = ["nw", "n", "ne", "e", "se", "s", "sw", "w"];
/** The fewest pixels that a photo or box may have once the photo is reduced, as `rw_keras.photos.reading` has it. */
const LEAST = 16;
/** How far a finger may slip in a tap, in pixels of the screen. */
const SLIP = 5;
const COARSE = 0.02;

/**
 * A path that shades all but a box, and the box itself, over a photo.
 * @param {SVGElement} svg
 * @param {[number, number]} size of the photo; the SVG is drawn in its pixels.
 * @param {number[] | null} box
 */
export function outline(svg, [width, height], box) {
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  if (box === null) {
    svg.replaceChildren();
    return;
  }
  const [x1, y1, x2, y2] = box;
  const frame = name => draw("rect", { class: name, x: x1, y: y1, width: x2 - x1, height: y2 - y1 });
  const shade = `M0 0H${width}V${height}H0ZM${x1} ${y1}H${x2}V${y2}H${x1}Z`;
  svg.replaceChildren(draw("path", { class: "shade", "fill-rule": "evenodd", d: shade }), frame("halo"), frame("box"));
}

/** An editor of a box, within an element that holds an image and an SVG over it. */
export class BoxEditor {
  /**
   * @param {HTMLElement} stage has the focus and the keys.
   * @param {SVGElement} svg
   * @param {(box: number[] | null) => void} commit is called with a box that is ready: whole pixels.
   */
  constructor(stage, svg, commit) {
    this.stage = stage;
    this.svg = svg;
    this.commit = commit;
    /** @type {number[] | null} */
    this.box = null;
    /** @type {[number, number] | null} */
    this.size = null;
    this.least = LEAST;
    this.handles = HANDLES.map(side => make("span", { class: `handle ${side}`, "data-side": side, hidden: true }));
    stage.append(...this.handles);
    this.typed = settled(() => this.finish(), 500);
    this.say = settled(() => (byId("box-status").textContent = this.words()), 250);
    stage.addEventListener("pointerdown", event => this.grab(event));
    stage.addEventListener("keydown", event => this.key(event));
    stage.addEventListener("dragstart", event => event.preventDefault());
  }

  /**
   * Shows another photo, or another box.
   * @param {[number, number] | null} size of the upright photo in pixels; null: not known, and nothing can be drawn.
   * @param {number[] | null} box
   * @param {number} maxSide what the longer side is reduced to before the network.
   */
  show(size, box, maxSide) {
    this.size = size;
    this.least = size === null ? LEAST : Math.ceil(LEAST * Math.max(1, Math.max(...size) / maxSide));
    this.place(size === null ? null : box);
    this.stage.classList.toggle("drawable", this.canDraw);
    this.stage.tabIndex = this.canDraw ? 0 : -1;
  }

  get canDraw() {
    return this.size !== null && Math.min(...this.size) >= this.least;
  }

  /** What there is of the box, in words. */
  words() {
    if (this.box === null) return "No box: all of the photo is searched with.";
    const [width, height] = this.size;
    const share = (value, side) => Math.round((100 * value) / side);
    const [x1, y1, x2, y2] = this.box;
    return (
      `Box ${share(x2 - x1, width)} by ${share(y2 - y1, height)} percent of the photo, ` +
      `${share(x1, width)} percent from the left, ${share(y1, height)} from the top.`
    );
  }

  place(box) {
    this.box = box;
    outline(this.svg, this.size ?? [1, 1], box);
    const [width, height] = this.size ?? [1, 1];
    const [x1, y1, x2, y2] = box ?? [0, 0, 0, 0];
    for (const handle of this.handles) {
      const { side } = handle.dataset;
      handle.hidden = box === null;
      const x = side.includes("w") ? x1 : side.includes("e") ? x2 : (x1 + x2) / 2;
      const y = side.includes("n") ? y1 : side.includes("s") ? y2 : (y1 + y2) / 2;
      handle.style.left = `${(100 * x) / width}%`;
      handle.style.top = `${(100 * y) / height}%`;
    }
  }

  finish() {
    if (this.box !== null) this.place(this.box.map(Math.round));
    this.say();
    this.commit(this.box);
  }

  /** The place of a pointer in pixels of the photo, within it. */
  at(event) {
    const frame = this.svg.getBoundingClientRect();
    return [
      Math.min(Math.max((event.clientX - frame.left) / frame.width, 0), 1) * this.size[0],
      Math.min(Math.max((event.clientY - frame.top) / frame.height, 0), 1) * this.size[1],
    ];
  }

  grab(event) {
    if (!this.canDraw || event.button !== 0 || !event.isPrimary) return;
    const start = this.at(event);
    const before = this.box;
    const side = event.target.dataset?.side;
    const [x1, y1, x2, y2] = before ?? [0, 0, 0, 0];
    const isWithin = before !== null && start[0] > x1 && start[0] < x2 && start[1] > y1 && start[1] < y2;
    const change = side ? this.resized(before, side) : isWithin ? this.moved(before, start) : this.drawn(start);
    let slipped = false;
    this.stage.setPointerCapture(event.pointerId);
    const move = moved => {
      slipped ||= Math.hypot(moved.clientX - event.clientX, moved.clientY - event.clientY) > SLIP;
      if (slipped) this.place(change(this.at(moved)));
    };
    const end = ended => {
      for (const [name, listener] of Object.entries(listeners)) this.stage.removeEventListener(name, listener);
      if (ended.type === "pointercancel") this.place(before);
      else if (slipped) this.finish();
    };
    const listeners = { pointermove: move, pointerup: end, pointercancel: end };
    for (const [name, listener] of Object.entries(listeners)) this.stage.addEventListener(name, listener);
    this.stage.focus({ preventScroll: true, focusVisible: false });
    event.preventDefault();
  }

  drawn([x, y]) {
    return at => {
      const side = place => {
        const [low, high] = [Math.min([x, y][place], at[place]), Math.max([x, y][place], at[place])];
        const first = Math.min(low, this.size[place] - this.least);
        return [first, Math.max(high, first + this.least)];
      };
      const [[x1, x2], [y1, y2]] = [side(0), side(1)];
      return [x1, y1, x2, y2];
    };
  }

  moved(box, start) {
    return at => this.shifted(box, at[0] - start[0], at[1] - start[1]);
  }

  shifted([x1, y1, x2, y2], right, down) {
    const dx = Math.min(Math.max(right, -x1), this.size[0] - x2);
    const dy = Math.min(Math.max(down, -y1), this.size[1] - y2);
    return [x1 + dx, y1 + dy, x2 + dx, y2 + dy];
  }

  resized(box, side) {
    return ([x, y]) => {
      const [x1, y1, x2, y2] = box;
      return [
        side.includes("w") ? Math.min(x, x2 - this.least) : x1,
        side.includes("n") ? Math.min(y, y2 - this.least) : y1,
        side.includes("e") ? Math.max(x, x1 + this.least) : x2,
        side.includes("s") ? Math.max(y, y1 + this.least) : y2,
      ];
    };
  }

  key(event) {
    if (!this.canDraw || event.metaKey || event.altKey || event.target !== this.stage) return;
    const [width, height] = this.size;
    const arrow = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (event.key === "Escape" && this.box !== null) {
      this.place(null);
      this.finish();
    } else if ((event.key === "Enter" || event.key === " ") && this.box === null) {
      this.middle();
    } else if (arrow) {
      if (this.box === null) this.middle();
      else {
        const step = event.ctrlKey ? [1, 1] : [width * COARSE, height * COARSE];
        const [dx, dy] = [arrow[0] * step[0], arrow[1] * step[1]];
        if (event.shiftKey) {
          const corner = [Math.min(this.box[2] + dx, width), Math.min(this.box[3] + dy, height)];
          this.place(this.resized(this.box, "se")(corner));
        } else this.place(this.shifted(this.box, dx, dy));
        this.say();
        this.typed();
      }
    } else return;
    event.preventDefault();
  }

  /** A box in the middle, half as wide and high as the photo. */
  middle() {
    const [width, height] = this.size;
    const [across, down] = [width, height].map(side => Math.max(side / 2, this.least));
    this.place([(width - across) / 2, (height - down) / 2, (width + across) / 2, (height + down) / 2]);
    this.say();
    this.typed();
  }
}
