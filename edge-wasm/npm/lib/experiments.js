//! Which arm this visitor has where an experiment runs: found here, by the hash that the server uses, so that ranking
//! still asks nobody. `trainer-server/src/experiment/assign.rs` has the formula.
//!
//! Loaded when a ranking first names a place. A page takes part where it can do what every arm says: the model, and
//! places drawn by chance. Where the list cannot be had there is no experiment, for any arm alike.

/** As long as the server lets the list be kept. */
const KEPT_MILLIS = 60_000;
/** Longest that a ranking waits for it. */
const WAIT_MILLIS = 2000;

/**
 * @typedef {object} Experiment as in the API
 * @property {string} name
 * @property {string} place
 * @property {string} salt
 * @property {{name: string, share: number, strategy: any}[]} arms
 */

export class Experiments {
  #url;
  #experiments;
  #askedAt = -Infinity;

  /** @param {string} url of the server @param {string} model */
  constructor(url, model) {
    this.#url = `${url}/v1/models/${encodeURIComponent(model)}/experiments`;
  }

  /**
   * @param {string} place
   * @param {string} unit the visitor
   * @returns {Promise<{arm: string, exploration?: object} | undefined>} nothing where the visitor is in no arm
   */
  async armAt(place, unit) {
    if (Date.now() - this.#askedAt > KEPT_MILLIS) {
      this.#askedAt = Date.now();
      this.#experiments = this.#fetch();
    }
    const experiments = await this.#experiments;
    const experiment = experiments.find((one) => one.place === place && one.arms.every(canDo));
    const arm = experiment && armOf(experiment, unit);
    return arm && { arm: `${experiment.name}/${arm.name}`, exploration: arm.strategy.exploration };
  }

  /** @returns {Promise<Experiment[]>} */
  async #fetch() {
    try {
      const answer = await fetch(this.#url, { signal: AbortSignal.timeout(WAIT_MILLIS) });
      return answer.ok ? (await answer.json()).experiments : [];
    } catch {
      return [];
    }
  }
}

const canDo = ({ strategy }) => strategy === 'model' || strategy.exploration !== undefined;

/** @param {Pick<Experiment, 'salt' | 'arms'>} experiment @param {string} unit */
export function armOf({ salt, arms }, unit) {
  const distance = ({ name, share }) => -Math.log((murmur3(`${salt}/${name}/${unit}`) + 0.5) / 2 ** 32) / share;
  const rest = { name: '', share: arms.reduce((left, { share }) => left - share, 100) };
  const nearest = [...arms, rest].reduce((best, arm) => (distance(arm) < distance(best) ? arm : best));
  return nearest === rest || nearest.share === 0 ? undefined : nearest;
}

/** MurmurHash3_x86_32 of the text in UTF-8, with seed 0. */
function murmur3(text) {
  const bytes = new TextEncoder().encode(text);
  const padded = new Uint8Array((bytes.length + 4) & ~3); // a word of zeros changes nothing
  padded.set(bytes);
  const words = new DataView(padded.buffer);
  let hash = 0;
  for (let at = 0; at < padded.length; at += 4) {
    hash ^= Math.imul(rotated(Math.imul(words.getUint32(at, true), 0xcc9e2d51), 15), 0x1b873593);
    if (at + 4 <= bytes.length) hash = (Math.imul(rotated(hash, 13), 5) + 0xe6546b64) | 0;
  }
  hash ^= bytes.length;
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}

const rotated = (word, by) => (word << by) | (word >>> (32 - by));
