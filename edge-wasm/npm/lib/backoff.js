//! Waiting between attempts: doubling, with jitter, cut short by `wake` or an abort, never shorter than a server asked for.

const FIRST_MILLIS = 250;
const LONGEST_MILLIS = 15_000;

export class Backoff {
  #attempts = 0;
  #wake = () => {};
  #random;

  /** @param {() => number} [random] in [0, 1) */
  constructor(random = Math.random) {
    this.#random = random;
  }

  /** After a success: the next wait is short again. */
  reset() {
    this.#attempts = 0;
  }

  /** Length of the next wait; between half and all of the doubled step. */
  nextMillis() {
    const step = Math.min(LONGEST_MILLIS, FIRST_MILLIS * 2 ** this.#attempts);
    this.#attempts = Math.min(this.#attempts + 1, 16);
    return step * (0.5 + 0.5 * this.#random());
  }

  /** Ends a wait that is going on, for example because the browser is online again; not before a Retry-After is over. */
  wake() {
    this.#wake();
  }

  /**
   * @param {AbortSignal} [signal] ends the wait
   * @param {number} [atLeastMillis] from a Retry-After header
   * @returns {Promise<void>}
   */
  wait(signal, atLeastMillis = 0) {
    const millis = Math.max(this.nextMillis(), atLeastMillis);
    return new Promise((resolve) => {
      const done = () => {
        clearTimeout(timer);
        signal?.removeEventListener('abort', done);
        this.#wake = () => {};
        resolve();
      };
      const startedAt = performance.now();
      let timer = setTimeout(done, millis);
      this.#wake = () => {
        clearTimeout(timer);
        timer = setTimeout(done, Math.max(0, startedAt + atLeastMillis - performance.now()));
      };
      if (signal?.aborted) done();
      else signal?.addEventListener('abort', done);
    });
  }
}

const RETRY_AFTER_MILLIS_MAX = 120_000;

/**
 * Milliseconds asked for by a `Retry-After` header in seconds or as a date; 0 where there is none.
 * @param {Headers} headers
 * @param {number} nowMillis
 */
export function retryAfterMillis(headers, nowMillis) {
  const text = headers.get('retry-after');
  if (text === null) return 0;
  const secs = Number(text);
  const millis = Number.isFinite(secs) ? secs * 1000 : Date.parse(text) - nowMillis;
  return Number.isFinite(millis) ? Math.min(Math.max(millis, 0), RETRY_AFTER_MILLIS_MAX) : 0;
}
