/**
 * What went wrong, in plain words.
 */

/** An answer that is no success, or none at all (status 0). */
export class Problem extends Error {
  /**
   * @param {number} status the HTTP status; 0: the service could not be reached.
   * @param {string} detail the service's own sentence.
   * @param {number | null} wait seconds after which it may be asked again.
   */
  constructor(status, detail = "", wait = null) {
    super(detail || `status ${status}`);
    this.status = status;
    this.detail = detail;
    this.wait = wait;
  }
}

/**
 * @typedef {object} Words
 * @property {string} title
 * @property {string} text
 * @property {string} again the label of the button that tries again; empty where that does not help.
 */

const RETRY = "Try again";
const WORDS = {
  0: ["The service cannot be reached", "It may have been stopped, or the network between you and it is down.", RETRY],
  400: ["The service did not understand this", "", RETRY],
  401: ["This service asks for a token", "Enter the token that you were given.", "Enter the token"],
  403: ["This token may not do that", "", ""],
  404: ["It is not there", "", ""],
  408: ["The photo arrived too slowly", "The connection may be weak.", RETRY],
  410: ["These results are no longer kept", "The service keeps a list of results for some minutes.", "Search again"],
  413: ["The photo is too large", "", ""],
  415: ["This is not a photo that the service reads", "JPEG, PNG, WebP, GIF, BMP and TIFF are read everywhere.", ""],
  422: ["The service cannot search with this", "", ""],
  429: ["Many people are searching", "Your search has to wait for a moment.", RETRY],
  503: ["The service is busy", "It is starting, stopping, or being changed.", RETRY],
  504: ["This took too long", "The service gave up. A smaller photo, or a quieter moment, may help.", RETRY],
};

/**
 * A problem as a person is told it.
 * @param {Problem} problem
 * @returns {Words}
 */
export function inWords(problem) {
  if (problem.status === 0 && !navigator.onLine) {
    return { title: "You are offline", text: "The search goes on when the connection is back.", again: RETRY };
  }
  const unknown = ["Something went wrong in the service", `It answered with the status ${problem.status}.`, RETRY];
  const [title, text, again] = WORDS[problem.status] ?? unknown;
  const isPassing = [0, 401, 429].includes(problem.status);
  return { title, text: isPassing ? text : [problem.detail, problem.detail ? "" : text].filter(Boolean).join(" "), again };
}

/**
 * A size in words, as `search --html` writes it.
 * @param {number} bytes
 * @returns {string}
 */
export function bytesInWords(bytes) {
  const units = ["B", "kB", "MB", "GB"];
  let place = 0;
  for (; bytes >= 999.5 && place < units.length - 1; place += 1) bytes /= 1000;
  return `${place === 0 || bytes >= 9.95 ? bytes.toFixed(0) : bytes.toFixed(1)} ${units[place]}`;
}
