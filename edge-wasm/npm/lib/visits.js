//! Asks the server for visit tokens, while there is feedback to send and never for longer than a moment.
//!
//! Feedback does without one that cannot be had, and asking again waits longer each time.

import { retryAfterMillis } from './backoff.js';
import { isToken } from './visit-tokens.js';

/** Longest that feedback waits for the first token of a visitor; nobody waits for the next, which is asked for in time. */
const WAIT_MILLIS_MAX = 1000;
/** A request without an answer after so long has failed. */
const ASK_MILLIS_MAX = 10_000;
/** Users that are asked for at a time. */
const USERS_MAX = 8;
/** Part of its time after which another token is asked for. */
const RENEW_SHARE = 0.75;
/** Pause after a failure, doubled with each. */
const PAUSE_MILLIS_FIRST = 5000;
const PAUSE_MILLIS_MAX = 600_000;

export class Visits {
  #url;
  #tokens;
  /** By user id. @type {Map<string, Promise<void>>} */
  #asked = new Map();
  #numFailures = 0;
  /** Whether nothing answered the last time: then feedback does not arrive either, and its next attempt asks again. */
  #isUnreachable = false;
  #pausedUntil = 0;

  /**
   * @param {object} options
   * @param {string} options.url that gives tokens, with the server's key if it has one
   * @param {import('./visit-tokens.js').VisitTokens} options.tokens
   */
  constructor({ url, tokens }) {
    this.#url = url;
    this.#tokens = tokens;
  }

  /** Those that are held. */
  get tokens() {
    return this.#tokens;
  }

  /**
   * Asks for what these users lack.
   * @param {string[]} userIds
   * @param {AbortSignal} signal consent is withdrawn, or the page goes
   * @returns {Promise<void>} settles once nobody needs to wait any longer; never rejects
   */
  async prepare(userIds, signal) {
    const due = [...new Set(userIds)].filter((userId) => this.#tokens.isDue(userId)).slice(0, USERS_MAX);
    const asks = due.map((userId) => this.#ask(userId, signal));
    const isMissing = (_ask, idx) => this.#tokens.of(due[idx]) === undefined;
    const missing = asks.filter(isMissing);
    if (missing.length === 0 || isHidden()) return;
    let timer;
    const late = new Promise((resolve) => (timer = setTimeout(resolve, WAIT_MILLIS_MAX)));
    await Promise.race([Promise.all(missing), late]);
    clearTimeout(timer);
  }

  /**
   * What the server said of the tokens beside a batch that it has taken.
   * @param {string[]} userIds of its events
   * @param {number} numInvalid how many it did not take
   */
  heard(userIds, numInvalid) {
    if (this.#isUnreachable) this.#failed(0); // for tokens alone
    const users = [...new Set(userIds)].filter((userId) => this.#tokens.of(userId) !== undefined);
    if (users.length === 0) return;
    if (!(numInvalid > 0)) {
      this.#numFailures = 0;
      return;
    }
    for (const userId of users) this.#tokens.drop(userId);
    this.#failed(0);
  }

  /** One request for a user at a time, and none while a failure is recent. */
  async #ask(userId, signal) {
    if (!this.#asked.has(userId)) {
      if (Date.now() < this.#pausedUntil) return;
      this.#asked.set(userId, this.#fetch(userId, signal).finally(() => this.#asked.delete(userId)));
    }
    await this.#asked.get(userId);
  }

  async #fetch(userId, signal) {
    const request = new AbortController();
    const end = () => request.abort();
    const timer = setTimeout(end, ASK_MILLIS_MAX);
    signal.addEventListener('abort', end);
    this.#isUnreachable = false;
    try {
      // `text/plain` needs no preflight from another origin.
      const headers = { 'content-type': 'text/plain;charset=UTF-8' };
      const options = { method: 'POST', headers, body: JSON.stringify({ user_id: userId }), signal: request.signal };
      const response = await fetch(this.#url, options);
      const answer = response.ok ? await response.json() : undefined;
      if (signal.aborted) return;
      if (!isToken(answer?.token)) this.#failed(retryAfterMillis(response.headers, Date.now()));
      else this.#tokens.keep({ userId, token: answer.token, ...lifeOf(answer, response.headers) });
    } catch {
      if (signal.aborted) return;
      if (request.signal.aborted) this.#failed(0); // it took too long
      else this.#isUnreachable = true; // or no answer of ours
    } finally {
      clearTimeout(timer);
      signal.removeEventListener('abort', end);
    }
  }

  #failed(atLeastMillis) {
    this.#isUnreachable = false;
    const pause = Math.min(PAUSE_MILLIS_MAX, PAUSE_MILLIS_FIRST * 2 ** this.#numFailures);
    this.#numFailures = Math.min(this.#numFailures + 1, 16);
    this.#pausedUntil = Date.now() + Math.max(atLeastMillis, pause * (0.5 + 0.5 * Math.random()));
  }
}

/** When a token ends by the clock of this device, which may be off; the answer says what time it is at the server. */
function lifeOf({ expires_at: expiresAt }, headers) {
  const now = Date.now();
  const serverNow = Date.parse(headers.get('date') ?? '');
  const lifeMillis = Math.max(0, (Number(expiresAt) || 0) - (Number.isFinite(serverNow) ? serverNow : now));
  return { renewAt: now + RENEW_SHARE * lifeMillis, endsAt: now + lifeMillis };
}

/** Timers of a hidden tab run late, so that one does not wait. */
const isHidden = () => globalThis.document?.visibilityState === 'hidden';
