//! Sends the events of an outbox in batches until the server has answered for each; runs in the tab that sends for all.
//!
//! Idempotent by `event_id`, so sending again is always safe. An event that the server never takes is given up, so that it
//! keeps no other from arriving.

import { Backoff, retryAfterMillis } from './backoff.js';
import { BATCH_EVENTS_MAX, batchLength, bodyOf } from './batches.js';

/** A request without an answer after so long is sent again. */
const SEND_MILLIS_MAX = 30_000;
/** Answers that condemn the events; all others may be the network's or an operator's fault and pass. */
const CONDEMNING = [400, 413, 422];
/** How often the server may fail at an event while it takes others. */
const FAILURES_MAX = 5;

/** @typedef {{entry: import('./batches.js').Entry, receipt: import('../index.d.ts').Delivery}} Result */

export class Delivery {
  #url;
  #outbox;
  #visits;
  #onResults;
  #backoff = new Backoff();
  #abort = new AbortController();
  #batchEventsMax = BATCH_EVENTS_MAX;
  #numAcknowledged = 0;
  /** How often the server failed at an entry alone, and after which acknowledged batch it last did. */
  #failures = new WeakMap();
  #timer;
  #dueAt = Number.POSITIVE_INFINITY;
  #isRunning = false;
  #isPaused = false;
  #isToldToWait = false;

  /**
   * @param {object} options
   * @param {string} options.url that takes events
   * @param {import('./outbox.js').Outbox} options.outbox
   * @param {import('./visits.js').Visits} [options.visits] where events go with visit tokens
   * @param {(results: Result[]) => void} options.onResults for entries that have left the outbox
   */
  constructor({ url, outbox, visits, onResults }) {
    this.#url = url;
    this.#outbox = outbox;
    this.#visits = visits;
    this.#onResults = onResults;
  }

  /** Whether the server said when to come back, and that is not over. */
  get isToldToWait() {
    return this.#isToldToWait;
  }

  /** Sends within so many milliseconds what is in the outbox then. */
  sendWithin(millis) {
    this.#isPaused = false;
    const dueAt = performance.now() + millis;
    if (this.#isRunning || this.#dueAt <= dueAt) return; // goes with the next batch
    clearTimeout(this.#timer);
    this.#dueAt = dueAt;
    if (millis === 0) void this.#sendAll();
    else this.#timer = setTimeout(() => void this.#sendAll(), millis);
  }

  /** Sends now, also where it waits after a failure; not before the time that the server asked for. */
  wake() {
    this.#backoff.wake();
    this.sendWithin(0);
  }

  /** Sends no further batch until it is asked to. A request under way goes on. */
  pause() {
    clearTimeout(this.#timer);
    this.#dueAt = Number.POSITIVE_INFINITY;
    this.#isPaused = true;
  }

  /** Ends the request under way and all waiting. */
  abort() {
    this.#abort.abort();
    this.#abort = new AbortController();
  }

  async #sendAll() {
    this.#dueAt = Number.POSITIVE_INFINITY;
    if (this.#isRunning) return;
    this.#isRunning = true;
    try {
      while (!this.#isPaused && this.#outbox.length > 0) {
        const { signal } = this.#abort;
        if (this.#visits) await this.#visits.prepare(userIdsOf(this.#nextBatch()), signal);
        if (signal.aborted || this.#isPaused || this.#outbox.length === 0) continue; // it went while tokens were asked for
        const retryMillis = await this.#sendBatch(signal);
        this.#isToldToWait = retryMillis > 0;
        if (retryMillis === undefined) this.#backoff.reset();
        else if (!signal.aborted) await this.#backoff.wait(signal, retryMillis);
        this.#isToldToWait = false;
      }
    } finally {
      this.#isRunning = false;
    }
  }

  /** @returns {Promise<number | undefined>} milliseconds to wait at least before the next; nothing to go on at once */
  async #sendBatch(signal) {
    const batch = this.#nextBatch();
    const { response, answer } = await this.#post(batch, signal);
    if (!response) return 0; // unreachable
    if (response.ok && Number.isInteger(answer?.offset)) {
      this.#acknowledge(batch, answer);
      return undefined;
    }
    if (CONDEMNING.includes(response.status)) {
      if (!this.#halve(batch)) this.#reject(batch[0], response.status, answer);
      return undefined;
    }
    if (response.status === 500) this.#failed(batch, answer);
    return retryAfterMillis(response.headers, Date.now());
  }

  #nextBatch() {
    const { entries } = this.#outbox;
    return entries.slice(0, batchLength(entries, this.#batchEventsMax, this.#visits?.tokens));
  }

  async #post(batch, signal) {
    const request = new AbortController();
    const end = () => request.abort();
    const timer = setTimeout(end, SEND_MILLIS_MAX);
    signal.addEventListener('abort', end);
    try {
      // `text/plain` needs no preflight from another origin; `keepalive` lets it outlive the page.
      const headers = { 'content-type': 'text/plain;charset=UTF-8' };
      const options = { method: 'POST', headers, body: bodyOf(batch, this.#visits?.tokens), keepalive: true, signal: request.signal };
      const response = await fetch(this.#url, options);
      const answer = await response.json().catch(() => undefined); // a proxy may answer with a page of its own
      return { response, answer };
    } catch {
      return {}; // the outbox keeps the events
    } finally {
      clearTimeout(timer);
      signal.removeEventListener('abort', end);
    }
  }

  #acknowledge(batch, { offset, rejected = [], invalid_tokens: numInvalid = 0 }) {
    this.#numAcknowledged += 1;
    this.#visits?.heard(userIdsOf(batch), numInvalid);
    this.#batchEventsMax = Math.min(BATCH_EVENTS_MAX, this.#batchEventsMax * 2);
    const reasons = new Map(rejected.map((rejection) => [rejection.index, rejection]));
    const receiptOf = (index) => {
      const { code, detail } = reasons.get(index) ?? {};
      return code === undefined ? { status: 'accepted', offset } : { status: 'rejected', code, detail };
    };
    this.#finish(batch.map((entry, index) => ({ entry, receipt: receiptOf(index) })));
  }

  /** Looks for the culprit in ever smaller batches. Answers whether there was anything to halve. */
  #halve(batch) {
    if (batch.length > 1) this.#batchEventsMax = Math.ceil(batch.length / 2);
    return batch.length > 1;
  }

  /** An event at which the server fails goes to the end, and is given up once it has failed while others were taken. */
  #failed(batch, answer) {
    if (this.#halve(batch)) return;
    const [entry] = batch;
    const { count, after } = this.#failures.get(entry) ?? { count: 0 };
    const isAnother = after !== this.#numAcknowledged;
    const failure = { count: isAnother ? count + 1 : count, after: this.#numAcknowledged };
    this.#failures.set(entry, failure);
    if (failure.count >= FAILURES_MAX) this.#reject(entry, 500, answer);
    else this.#outbox.toEnd(entry.key);
  }

  #reject(entry, status, answer) {
    const detail = answer?.detail ?? `The server answered ${status}.`;
    this.#finish([{ entry, receipt: { status: 'rejected', code: `http_${status}`, detail } }]);
  }

  /** What was dropped or withdrawn in the meantime has left the outbox before. */
  #finish(results) {
    const left = results.filter(({ entry }) => this.#outbox.remove(entry.key) !== undefined);
    if (left.length > 0) this.#onResults(left);
  }
}

const userIdsOf = (batch) => batch.map(({ event }) => event.user_id);
