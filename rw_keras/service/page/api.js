/**
 * The service's API: one function a route. All throw a `Problem`, or an AbortError where the signal says so.
 */

import { encodeName } from "./names.js";
import { bytesInWords, Problem } from "./problems.js";

const TOKEN = "rw-keras-token";
let token = stored();
/** Bytes of the largest body that the service takes; null: it has not said. @type {number | null} */
let largest = null;

function stored() {
  try {
    return sessionStorage.getItem(TOKEN);
  } catch {
    return null; // a browser that keeps nothing
  }
}

/** Whether requests carry a token, so that photos have to be asked for by script. */
export const hasToken = () => token !== null;

/**
 * Takes a token for this tab's session.
 * @param {string} given
 */
export function useToken(given) {
  token = given;
  try {
    sessionStorage.setItem(TOKEN, given);
  } catch {
    // It lasts until the page is left.
  }
}

/**
 * @param {string} path
 * @param {RequestInit} [options]
 * @returns {Promise<Response>} one that is ok.
 */
export async function ask(path, options = {}) {
  const headers = new Headers(options.headers);
  if (token !== null) headers.set("Authorization", `Bearer ${token}`);
  let response;
  try {
    response = await fetch(path, { ...options, headers, credentials: "same-origin" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0);
  }
  if (response.ok) return response;
  const body = await response.json().catch(() => ({}));
  const wait = Number(response.headers.get("Retry-After"));
  throw new Problem(response.status, typeof body.detail === "string" ? body.detail : "", wait > 0 ? wait : null);
}

async function json(path, options) {
  const response = await ask(path, options);
  performance.mark("answered");
  try {
    return await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0); // cut off on the way
  }
}

/**
 * @typedef {object} About
 * @property {string} name
 * @property {number} photos
 * @property {number} dimensions
 * @property {Record<string, string>} metadata column -> kind.
 * @property {{count: number} | null} rerank
 * @property {boolean} has_regions
 * @property {boolean} has_photos
 * @property {number} max_k
 * @property {number | null} expand
 * @property {Record<string, unknown>} recipe
 */

/**
 * @param {AbortSignal} [signal]
 * @returns {Promise<About[]>}
 */
export async function indexes(signal) {
  const answer = await json("/v1/indexes", { signal });
  largest = answer.limits?.body_bytes ?? null;
  return answer.indexes;
}

/**
 * @typedef {object} Hit
 * @property {number} rank
 * @property {string} name
 * @property {number} cosine
 * @property {number | null} score
 * @property {[number, number] | null} size
 * @property {Record<string, unknown>} metadata
 * @property {string | null} photo
 * @property {string | null} thumbnail
 * @property {{query: number[], hit: number[], cosine: number}[]} [regions]
 */

/**
 * @param {Record<string, unknown>} fields of the request.
 * @param {Blob | null} file the photo that is searched with, where it is one of this device: its bytes go up as they are.
 * @param {AbortSignal} signal
 * @returns {Promise<{hits: Hit[], cursor: string | null, total: number, measure: string, took: Record<string, number>}>}
 */
export function search(fields, file, signal) {
  if (file === null) {
    const headers = { "Content-Type": "application/json" };
    return json("/v1/search", { method: "POST", headers, body: JSON.stringify(fields), signal });
  }
  checkSize(file);
  const form = new FormData();
  for (const [field, value] of Object.entries(fields)) {
    form.append(field, typeof value === "string" ? value : JSON.stringify(value));
  }
  form.append("file", file, "The photo"); // as the service's sentences call it: its name stays on this device
  return json("/v1/search", { method: "POST", body: form, signal });
}

/** Refuses a photo that the service would refuse, before it is sent. */
export function checkSize(file) {
  if (largest !== null && file.size > largest) {
    throw new Problem(
      413,
      `It has ${bytesInWords(file.size)}, and this service takes up to ${bytesInWords(largest)}. Choose a smaller one.`,
    );
  }
}

/**
 * @param {{index: string, threshold: number, cursor: string | null, k: number}} asked
 * @param {AbortSignal} signal
 */
export function duplicates({ index, threshold, cursor, k }, signal) {
  const query = new URLSearchParams({ index, threshold: String(threshold), k: String(k) });
  if (cursor !== null) query.set("cursor", cursor);
  return json(`/v1/duplicates?${query}`, { signal });
}

/**
 * The address of a photo of an index.
 * @param {string} index
 * @param {string} name
 */
export function photoUrl(index, name) {
  return `/v1/photos/${segments(name)}?index=${encodeURIComponent(index)}`;
}

/**
 * The address of a small JPEG of it, which every browser can show.
 * @param {string} index
 * @param {string} name
 * @param {number} side
 */
export function thumbnailUrl(index, name, side) {
  return `/v1/photos/${segments(name)}/thumbnail?index=${encodeURIComponent(index)}&side=${side}`;
}

// A browser takes "." and ".." out of a path, also percent-encoded: no name of an index has such a part.
const segments = name => encodeName(name);
