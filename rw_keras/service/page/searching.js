/**
 * A search, and the pages of its ranking.
 */

import { search } from "./api.js";
import { patiently } from "./patience.js";
import { Problem } from "./problems.js";

/** Hits of a page: some lines of a wide screen, and whole ones for two to six tiles in a line. */
const PAGE = 60;
/** Vectors that a query is averaged with, where the index does not say: what the README expands by. */
export const USUAL_EXPANSION = 5;
/** Photos that are re-ranked where the index does not say, as docs/collections.md has it. */
export const USUAL_RERANKING = 400;

/** A prefix as a field: a form takes no byte that is not UTF-8 and reads "[" as JSON, so such a one goes as a list. */
const prefix = text => (text.startsWith("[") || !text.isWellFormed() ? [text] : text);

/**
 * What of a state decides which photos are found.
 * @param {import("./state.js").State} state
 */
export function keyOf({ index, name, upload, box, expand, rerank, leave, within, where, min }) {
  return JSON.stringify([index, name, upload, box, expand, rerank, leave, within, where, min]);
}

/**
 * The fields of a request.
 * @param {import("./state.js").State} state
 * @param {import("./api.js").About} about the index.
 */
export function fieldsOf(state, about) {
  const fields = { index: about.name, k: Math.min(PAGE, about.max_k ?? PAGE) };
  if (state.name !== null) fields.name = state.name;
  if (state.box !== null) fields.box = state.box;
  if (state.expand !== null) fields.expand = state.expand;
  if (state.rerank !== null) fields.rerank = state.rerank;
  if (state.leave) fields.leave_out_query = true;
  if (state.where.length) fields.within = state.where;
  else if (state.within) fields.within = prefix(state.within);
  if (state.min !== null) fields.min_score = state.min;
  return fields;
}

/** The ranking of a search, as far as it has been asked for. */
export class Ranking {
  /**
   * @param {string} key see `keyOf`.
   * @param {Record<string, unknown>} fields of the request.
   * @param {Blob | null} file
   */
  constructor(key, fields, file) {
    Object.assign(this, { key, fields, file });
    /** @type {import("./api.js").Hit[]} */
    this.hits = [];
    this.cursor = null;
    this.total = 0;
    this.measure = "cosine";
    this.seconds = 0;
    this.isAsked = false;
  }

  get isWhole() {
    return this.isAsked && this.cursor === null;
  }

  /**
   * Asks for the next page.
   * @param {AbortSignal} signal
   * @param {(problem: Problem) => void} onWait is called before a wait, with what has to be waited for.
   * @returns {Promise<import("./api.js").Hit[]>} its hits.
   */
  async next(signal, onWait) {
    const { index, k } = this.fields;
    const answer = await patiently(
      () => (this.isAsked ? search({ index, k, cursor: this.cursor }, null, signal) : search(this.fields, this.file, signal)),
      signal,
      onWait,
    );
    if (!this.isAsked) this.seconds = answer.took.whole;
    this.isAsked = true;
    this.hits.push(...answer.hits);
    this.cursor = answer.cursor;
    this.total = answer.total;
    this.measure = answer.measure;
    return answer.hits;
  }
}

/**
 * What a hit is ranked by, and what that is called.
 * @param {import("./api.js").Hit} hit
 * @param {string} measure of the ranking.
 * @returns {["cosine" | "score", number]}
 */
export function measured(hit, measure) {
  return measure === "score" && hit.score !== null ? ["score", hit.score] : ["cosine", hit.cosine];
}

/**
 * A hit of a ranking with the regions that agree with the query's.
 * @param {Ranking} ranking
 * @param {string} name of the hit.
 * @param {AbortSignal} signal
 */
export async function explained(ranking, name, signal) {
  const fields = { ...ranking.fields, within: prefix(name), explain: true, expand: 1, k: 10 };
  delete fields.min_score;
  delete fields.leave_out_query;
  const answer = await search(fields, ranking.file, signal);
  const hit = answer.hits.find(one => one.name === name);
  if (!hit) throw new Problem(404, "This photo is not in the index any more.");
  return hit;
}
