/**
 * Where a view says that something went wrong, or is waited for.
 */

import { inWords } from "./problems.js";
import { announce, button, icon, make } from "./ui.js";

let counting = 0;

/**
 * Shows a problem in an element of the class `problem`.
 * @param {HTMLElement} element
 * @param {import("./problems.js").Problem} problem
 * @param {() => void} again tries again.
 */
export function showProblem(element, problem, again) {
  const words = inWords(problem);
  const isOffline = problem.status === 0;
  fill(element, isOffline ? "offline" : "alert", words.title, words.text);
  if (words.again) element.append(button("right", words.again, again, "main"));
  announce(`${words.title}. ${words.text}`);
}

/**
 * Says that a request is made again in some seconds, and counts them.
 * @param {HTMLElement} element
 * @param {import("./problems.js").Problem} problem whose `wait` is known.
 */
export function showWait(element, problem) {
  const words = inWords(problem);
  let left = Math.ceil(problem.wait);
  fill(element, "alert", words.title, words.text);
  const countdown = make("p", { class: "facts" });
  const count = () => {
    countdown.textContent = left > 0 ? `Trying again in ${left} s` : "Trying again …";
    left -= 1;
    if (left < 0) clearInterval(counting);
  };
  element.append(countdown);
  announce(`${words.title}. Trying again in ${left} seconds.`);
  clearInterval(counting);
  counting = setInterval(count, 1000);
  count();
}

/**
 * Says that nothing was found.
 * @param {HTMLElement} element
 * @param {string} title
 * @param {string} text
 * @param {...HTMLElement} buttons
 */
export function showEmpty(element, title, text, ...buttons) {
  fill(element, "empty", title, text);
  element.append(...buttons);
}

/** @param {HTMLElement} element */
export function clear(element) {
  clearInterval(counting);
  element.hidden = true;
  element.replaceChildren();
}

function fill(element, name, title, text) {
  clear(element);
  element.append(icon(name), make("p", {}, make("strong", {}, title)));
  if (text) element.append(make("p", {}, text));
  element.hidden = false;
}
