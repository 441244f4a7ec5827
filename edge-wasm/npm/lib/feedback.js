//! The feedback queue: events are kept until the server has acknowledged them, sent in batches, never twice learned.
//!
//! Idempotent by `event_id`, so sending again is always safe; bounded, so a dead server costs no memory.
//! What may be sent at all is decided by the caller (consent).

import { Backoff, retryAfterMillis } from './backoff.js';

/** Gathers the events of one gesture into one request without being felt. */
const GATHER_MILLIS = 25;
const BATCH_EVENTS_MAX = 200;
/** Browsers allow 64 KiB of keepalive bodies and beacons in flight. */
export const BATCH_BYTES_MAX = 60 * 1024;
const QUEUE_EVENTS_MAX = 1000;
/** Events of another tab that are younger than this are still being sent by that tab. */
const LEFTOVER_AGE_MILLIS = 10_000;

const encoder = new TextEncoder();

/**
 * The longest run of entries that fits one request, at least one.
 * @param {{bytes: number}[]} entries
 * @param {number} eventsMax
 * @returns {number}
 */
export function batchLength(entries, eventsMax) {
  let bytes = 64; // the frame around the events
  let length = 0;
  for (const entry of entries) {
    bytes += entry.bytes + 1;
    if (length > 0 && (bytes > BATCH_BYTES_MAX || length >= eventsMax)) break;
    length += 1;
  }
  return length;
}

export class FeedbackQueue {
  #url;
  #emit;
  #store;
  #backoff = new Backoff();
  #stop = new AbortController();
  /** @type {{event: object, bytes: number, settle: (receipt: object) => void}[]} oldest first */
  #entries = [];
  #batchEventsMax = BATCH_EVENTS_MAX;
  #timer;
  #isSending = false;

  /**
   * @param {object} options
   * @param {string} options.url of the server
   * @param {import('./store.js').Store} options.store
   * @param {(name: string, detail: object) => void} options.emit
   */
  constructor({ url, store, emit }) {
    this.#url = `${url}/v1/events`;
    this.#store = store;
    this.#emit = emit;
  }

  get numWaiting() {
    return this.#entries.length;
  }

  /**
   * Takes an event in wire form.
   * @param {object} event
   * @returns {Promise<object>} settles when the server has answered for it; never rejects
   */
  add(event) {
    const delivered = this.#append(event);
    void this.#store.putEvents([this.#record(event)]);
    this.#flushSoon();
    return delivered;
  }

  /** Takes over what an earlier page could not deliver. */
  async adoptLeftovers() {
    const before = Date.now() - LEFTOVER_AGE_MILLIS;
    const records = await this.#store.list('events', QUEUE_EVENTS_MAX);
    const known = new Set(this.#entries.map((entry) => entry.event.event_id));
    for (const { url, savedAt, event } of records) {
      const isOurs = url === this.#url && savedAt < before && typeof event?.event_id === 'string';
      if (isOurs && !known.has(event.event_id)) void this.#append(event);
    }
    if (this.#entries.length > 0) this.#flushSoon();
  }

  /**
   * The page is going away: hands everything to the browser. What it does not take stays stored for the next
   * visit; what it takes stays stored too, because nobody says whether it arrived.
   */
  beacon() {
    if (typeof navigator === 'undefined' || typeof navigator.sendBeacon !== 'function') return;
    let rest = this.#entries;
    while (rest.length > 0) {
      const length = batchLength(rest, BATCH_EVENTS_MAX);
      const body = new Blob([bodyOf(rest.slice(0, length))], { type: 'text/plain' });
      if (!navigator.sendBeacon(this.#url, body)) return;
      rest = rest.slice(length);
    }
  }

  /** Sends what waits, without waiting for a gap. */
  flush() {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#backoff.wake();
    return this.#sendAll();
  }

  /** Forgets everything that was not sent. */
  async clear() {
    for (const entry of this.#entries.splice(0)) entry.settle({ status: 'withheld' });
    await this.#store.clear('events');
  }

  dispose() {
    this.beacon();
    this.#stop.abort();
    clearTimeout(this.#timer);
    for (const entry of this.#entries.splice(0)) entry.settle({ status: 'queued' });
  }

  #record(event) {
    return { key: event.event_id, url: this.#url, savedAt: Date.now(), event };
  }

  #append(event) {
    if (this.#entries.length >= QUEUE_EVENTS_MAX) {
      const [oldest] = this.#entries.splice(0, 1);
      this.#finish(oldest, { status: 'dropped' });
      this.#emit('error', { code: 'queue_full', message: 'The feedback queue is full; its oldest event was dropped.' });
    }
    const bytes = encoder.encode(JSON.stringify(event)).byteLength;
    return new Promise((settle) => this.#entries.push({ event, bytes, settle }));
  }

  #finish(entry, receipt) {
    void this.#store.remove('events', [entry.event.event_id]);
    entry.settle(receipt);
  }

  #flushSoon() {
    if (this.#isSending) return; // goes with the next batch
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      void this.#sendAll();
    }, GATHER_MILLIS);
  }

  async #sendAll() {
    if (this.#isSending) return;
    this.#isSending = true;
    try {
      while (this.#entries.length > 0 && !this.#stop.signal.aborted) {
        const batch = this.#entries.slice(0, batchLength(this.#entries, this.#batchEventsMax));
        const retryMillis = await this.#sendBatch(batch);
        if (retryMillis === undefined) this.#backoff.reset();
        else await this.#backoff.wait(this.#stop.signal, retryMillis);
      }
    } finally {
      this.#isSending = false;
    }
  }

  /** @returns {Promise<number | undefined>} milliseconds to wait at least before trying again; nothing if it is done */
  async #sendBatch(batch) {
    let response;
    let answer;
    try {
      // `text/plain` needs no preflight from another origin.
      const headers = { 'content-type': 'text/plain;charset=UTF-8' };
      const body = bodyOf(batch);
      const keepalive = encoder.encode(body).byteLength <= BATCH_BYTES_MAX;
      response = await fetch(this.#url, { method: 'POST', headers, body, keepalive, signal: this.#stop.signal });
      answer = await response.json().catch(() => undefined); // a proxy may answer with a page of its own
    } catch {
      return 0; // unreachable: the queue keeps the events
    }
    if (response.ok && answer) {
      this.#acknowledge(batch, answer);
      return undefined;
    }
    const isPassing = response.status === 429 || response.status === 408 || response.status >= 500 || response.ok;
    if (isPassing) return retryAfterMillis(response.headers, Date.now());
    this.#refused(batch, response.status, answer);
    return undefined;
  }

  #acknowledge(batch, answer) {
    const reasons = new Map((answer.rejected ?? []).map((rejected) => [rejected.index, rejected]));
    this.#drop(batch);
    this.#batchEventsMax = Math.min(BATCH_EVENTS_MAX, this.#batchEventsMax * 2);
    batch.forEach((entry, index) => {
      const rejected = reasons.get(index);
      if (!rejected) this.#finish(entry, { status: 'accepted', offset: answer.offset });
      else this.#reject(entry, rejected.code, rejected.detail);
    });
    const eventIds = batch.filter((_, index) => !reasons.has(index)).map((entry) => entry.event.event_id);
    if (eventIds.length > 0) this.#emit('delivered', { eventIds, offset: answer.offset });
  }

  /** The server refused the whole request: halve it until the culprit is alone, so that it blocks no other event. */
  #refused(batch, status, answer) {
    if (batch.length > 1) {
      this.#batchEventsMax = Math.ceil(batch.length / 2);
      return;
    }
    this.#drop(batch);
    this.#reject(batch[0], `http_${status}`, answer?.detail ?? `The server answered ${status}.`);
  }

  #reject(entry, code, detail) {
    this.#finish(entry, { status: 'rejected', code, detail });
    const message = `The server refused an event (${code}): ${detail}`;
    this.#emit('error', { code: 'event_rejected', message, eventId: entry.event.event_id });
  }

  #drop(batch) {
    const done = new Set(batch);
    this.#entries = this.#entries.filter((entry) => !done.has(entry));
  }
}

function bodyOf(entries) {
  return JSON.stringify({ sent_at: Date.now(), events: entries.map((entry) => entry.event) });
}
