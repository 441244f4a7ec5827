//! Visit tokens that this browser holds: the server's word that it handed out a user id, for the events of that user.
//!
//! The last one is kept in local storage, so that other tabs and the next page have it. Asking for one is `visits.js`.

import { readLocal, writeLocal } from './consent.js';

/** In characters; the tokens of today have 54. */
export const TOKEN_LEN_MAX = 128;
/** What a token adds to an event in JSON, at most. */
export const TOKEN_BYTES_MAX = TOKEN_LEN_MAX + ',"token":""'.length;
/** Users whose tokens are remembered: a browser has one, and those of earlier pages whose feedback still waits. */
const USERS_MAX = 16;

/**
 * @typedef {object} HeldToken
 * @property {string} userId
 * @property {string} token
 * @property {number} renewAt by the clock of this device, milliseconds since 1970
 * @property {number} endsAt likewise
 */

export class VisitTokens {
  #key;
  /** By user id. @type {Map<string, HeldToken>} */
  #held = new Map();

  /** @param {string} url of the server */
  constructor(url) {
    this.#key = keyOf(url);
  }

  /** A token that is good for the events of this user now. @param {string} userId @returns {string | undefined} */
  of(userId) {
    const held = this.#find(userId);
    return held && held.endsAt > Date.now() ? held.token : undefined;
  }

  /** Whether there is none for this user, or one that ends soon. @param {string} userId */
  isDue(userId) {
    const held = this.#find(userId);
    return !held || held.renewAt <= Date.now();
  }

  /** @param {HeldToken} held */
  keep(held) {
    this.#remember(held);
    writeLocal(this.#key, JSON.stringify(held));
  }

  /** One that the server does not take. @param {string} userId */
  drop(userId) {
    this.#held.delete(userId);
    if (parse(readLocal(this.#key))?.userId === userId) writeLocal(this.#key, null);
  }

  /** All that is held. */
  forget() {
    this.#held.clear();
    writeLocal(this.#key, null);
  }

  /** @param {string} userId @returns {HeldToken | undefined} */
  #find(userId) {
    const held = this.#held.get(userId);
    if (held && held.renewAt > Date.now()) return held;
    const stored = parse(readLocal(this.#key)); // another tab may have asked
    if (stored?.userId !== userId || stored.endsAt <= (held?.endsAt ?? 0)) return held;
    this.#remember(stored);
    return stored;
  }

  #remember(held) {
    this.#held.delete(held.userId);
    this.#held.set(held.userId, held);
    const [oldest] = this.#held.keys();
    if (this.#held.size > USERS_MAX) this.#held.delete(oldest);
  }
}

/** @param {unknown} token */
export const isToken = (token) => typeof token === 'string' && /^[\w.~-]+$/.test(token) && token.length <= TOKEN_LEN_MAX;

const keyOf = (url) => `freshet:visit ${url}`;

/** What is stored may have been written by anything. @returns {HeldToken | undefined} */
function parse(text) {
  try {
    const { userId, token, renewAt, endsAt } = JSON.parse(text ?? '{}');
    const isSound = typeof userId === 'string' && isToken(token) && Number.isFinite(renewAt) && Number.isFinite(endsAt);
    return isSound ? { userId, token, renewAt, endsAt } : undefined;
  } catch {
    return undefined; // damaged: another is asked for
  }
}
