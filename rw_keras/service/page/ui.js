/**
 * Small things that all of the page uses.
 */

/**
 * The element of an id.
 * @param {string} id
 * @returns {HTMLElement}
 */
export const byId = id => document.getElementById(id);

/**
 * A new element.
 * @param {string} tag
 * @param {Record<string, unknown>} [properties] of the element; `class` and names with "-" are attributes.
 * @param {...(Node | string)} children
 * @returns {HTMLElement}
 */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "class" || name.includes("-")) element.setAttribute(name, String(value));
    else element[name] = value;
  }
  element.append(...children);
  return element;
}

const SVG = "http://www.w3.org/2000/svg";

/**
 * A new SVG element.
 * @param {string} tag
 * @param {Record<string, string | number>} [attributes]
 * @param {...Node} children
 * @returns {SVGElement}
 */
export function draw(tag, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value));
  element.append(...children);
  return element;
}

/**
 * One of the page's icons; it is not read aloud.
 * @param {string} name
 */
export function icon(name) {
  return draw("svg", { class: "icon", "aria-hidden": "true" }, draw("use", { href: `#icon-${name}` }));
}

/**
 * A button with an icon.
 * @param {string} name of the icon.
 * @param {string} words
 * @param {() => void} click
 * @param {string} [kind] its class.
 */
export function button(name, words, click, kind = "") {
  const made = make("button", { type: "button", class: `button ${kind}`.trim() }, icon(name), make("span", {}, words));
  made.addEventListener("click", click);
  return made;
}

/**
 * Says something to who hears the page.
 * @param {string} words
 */
export function announce(words) {
  // While a dialog is open, what is outside it is not read.
  (document.querySelector("dialog[open] [role=status]") ?? byId("status")).textContent = words;
}

let fading = 0;

/**
 * Shows a sentence for a while, and says it.
 * @param {string} words
 */
export function note(words) {
  const box = byId("note");
  box.textContent = words;
  box.hidePopover();
  box.showPopover(); // above a dialog that is open
  announce(words);
  clearTimeout(fading);
  fading = setTimeout(() => box.hidePopover(), Math.max(4000, 70 * words.length));
}

/**
 * Copies a text, and says so.
 * @param {string} text
 * @param {string} what it is, in words.
 */
export async function copy(text, what) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Without https a page has no clipboard but this one.
    const field = make("textarea", { class: "unseen", value: text, readOnly: true, "aria-label": what });
    const before = document.activeElement;
    (before?.closest("dialog") ?? document.body).append(field);
    field.select();
    const copied = document.execCommand("copy");
    field.remove();
    before?.focus();
    if (!copied) {
      note(`This browser does not let the page copy. ${what} can be selected and copied by hand.`);
      return;
    }
  }
  note(`${what} copied.`);
}

/**
 * A function that calls another one once it has not been called for so many milliseconds.
 * @template {unknown[]} Given
 * @param {(...given: Given) => void} call
 * @param {number} wait
 */
export function settled(call, wait) {
  let timer = 0;
  return (...given) => {
    clearTimeout(timer);
    timer = setTimeout(call, wait, ...given);
  };
}

/**
 * A number of things, in words.
 * @param {number} count
 * @param {string} one what one is called; several have an "s".
 */
export function counted(count, one) {
  return `${count.toLocaleString("en")} ${one}${count === 1 ? "" : "s"}`;
}

/**
 * Seconds, to two digits that matter.
 * @param {number} seconds
 */
export function secondsInWords(seconds) {
  return seconds < 0.0995 ? `${Math.max(1, Math.round(seconds * 1000))} ms` : `${seconds.toFixed(seconds < 9.95 ? 1 : 0)} s`;
}
