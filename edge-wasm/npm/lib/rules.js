//! The rules of the server's operators: fetched at the start and whenever another revision is announced, and kept for the
//! next visit.
//!
//! Not here: whether they are believed and what they do to a list (the engine), and the rules of the page (`ranking.js`).

import { Backoff } from './backoff.js';

/** Codes of what did not come at all. */
const FETCH_FAILURES = new Set(['unreachable', 'server_error']);
/** They are signed by a key that the engine has not met yet; having said so, it asks for the keys. */
const KEYS_ARE_OLD = new Set(['unknown_key', 'stale_key_set', 'no_key']);
/** Times that keys are waited for. */
const KEY_TRIES_MAX = 5;

export class Rules {
  #parts;
  #backoff = new Backoff();
  /** As they came, signed. @type {Uint8Array | undefined} */
  #note;
  #revision = -1;
  #isFetching = false;
  /** Newest revision that was asked for and is not under way. */
  #wanted = -1;

  /**
   * @param {object} parts
   * @param {AbortSignal} parts.signal of the host's end
   * @param {import('./downloads.js').Downloads} parts.downloads
   * @param {import('./cache.js').VersionCache} parts.cache
   * @param {<T>(body: (engine: any) => T | Promise<T>) => Promise<T>} parts.withEngine
   * @param {() => Promise<void>} parts.pump fetches what the engine asks for
   * @param {() => void} parts.onChanged lists may be others now
   * @param {(error: unknown) => void} parts.warn
   */
  constructor(parts) {
    this.#parts = parts;
  }

  /** What an earlier page left. */
  async find() {
    this.#note = await this.#parts.cache.findRules();
  }

  /** Gives them to an engine that has none yet. Answers whether it has what is at hand. */
  giveTo(engine) {
    try {
      if (this.#note) engine.moderate(this.#note);
      return true;
    } catch {
      return false; // by keys that it does not know: they are fetched again
    }
  }

  /** Another server has others. */
  forget() {
    this.#note = undefined;
    this.#revision = -1;
  }

  /** Fetches them, unless they are those at hand. @param {number} [revision] that was announced */
  async fetch(revision = Infinity) {
    this.#wanted = Math.max(this.#wanted, revision);
    if (this.#isFetching) return;
    this.#isFetching = true;
    while (this.#wanted > this.#revision && !this.#parts.signal.aborted) {
      this.#wanted = -1;
      await this.#fetchOnce();
    }
    this.#isFetching = false;
  }

  /** Whether there are any, if only none that does something. */
  get isKnown() {
    return this.#revision >= 0;
  }

  /** Tries at once what waits. */
  wake() {
    this.#backoff.wake();
  }

  /** Tries until they come, or are refused. Never throws. */
  async #fetchOnce() {
    const { signal, downloads, pump, warn } = this.#parts;
    for (let numKeyTries = 0; !signal.aborted; ) {
      try {
        await this.#take(await downloads.rules());
        this.#backoff.reset();
        return;
      } catch (error) {
        if (error?.code === 'no_model') return; // a server of before there were any
        if (KEYS_ARE_OLD.has(error?.code) && numKeyTries < KEY_TRIES_MAX) {
          numKeyTries += 1;
          await pump();
        } else if (!FETCH_FAILURES.has(error?.code)) {
          warn(error);
          return;
        }
        await this.#backoff.wait(signal, error.retryAfterMillis ?? 0);
      }
    }
  }

  async #take(note) {
    const { cache, withEngine, onChanged } = this.#parts;
    const [isChanged, revision] = await withEngine((engine) => {
      const isChanged = engine.moderate(note);
      return [isChanged, JSON.parse(engine.status()).moderation_revision];
    });
    this.#note = note;
    this.#revision = revision;
    void cache.keepRules(note);
    if (isChanged) onChanged();
  }
}
