/**
 * Requests that the service asks to make again later.
 */

import { Problem } from "./problems.js";

/** How often a request is made again by itself. */
const PATIENCE = 3;

/**
 * Makes a request, and makes it again when the service says that it may be later.
 * @template Answer
 * @param {() => Promise<Answer>} run makes it.
 * @param {AbortSignal} signal ends a wait.
 * @param {(problem: Problem) => void} onWait is called before a wait.
 * @param {number} most how often it is made again.
 * @returns {Promise<Answer>}
 */
export async function patiently(run, signal, onWait, most = PATIENCE) {
  for (let tries = 0; ; tries += 1) {
    try {
      return await run();
    } catch (problem) {
      if (!(problem instanceof Problem) || problem.wait === null || tries === most) throw problem;
      onWait(problem);
      await pause(problem.wait, signal);
    }
  }
}

function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, seconds * 1000);
    const end = () => {
      clearTimeout(timer);
      reject(new DOMException("", "AbortError"));
    };
    signal.addEventListener("abort", end, { once: true });
  });
}
