//! The feedback of this tab: every event is stored and kept until the server has answered for it.
//!
//! Sending is `sender.js`, which is loaded once there is something to send: one tab does it for all. What may be sent at all
//! is decided by the caller (consent).

import { BATCH_EVENTS_MAX, EVENT_BYTES_MAX, QUEUE_EVENTS_MAX, batchLength, bodyOf, channelName } from './batches.js';
import { openChannel } from './channel.js';
import { randomId } from './consent.js';
import { withKey } from './key.js';
import { VisitTokens } from './visit-tokens.js';

const encoder = new TextEncoder();

export class FeedbackQueue {
  #url;
  /** Where events are posted: with the key of the server, if it has one. */
  #postUrl;
  #visitUrl;
  #tokens;
  /** Whether tokens go beside events. */
  #hasTokens;
  #prefix;
  #emit;
  #onWithdrawn;
  #store;
  /** By key, oldest first. */
  #own = new Map();
  /** Entries that are to be stored before this turn ends. */
  #fresh = [];
  /** @type {import('./sender.js').Sender | undefined} */
  #sender;
  /** Whether it sends, or has others send for it: not before there is something, not after consent was withdrawn. */
  #isTakingPart = false;
  /** Keys that the browser took when the page was left, and of which it says nothing more. */
  #beaconed = new Set();

  /**
   * @param {object} options
   * @param {string} options.url of the server
   * @param {string} [options.key] of the server, for events
   * @param {boolean} [options.visitTokens] whether visit tokens go beside events
   * @param {import('./store.js').Store} options.store
   * @param {(name: string, detail: object) => void} options.emit
   * @param {() => void} options.onWithdrawn another tab of this origin withdrew consent
   */
  constructor({ url, key, visitTokens = false, store, emit, onWithdrawn }) {
    this.#url = `${url}/v1/events`;
    this.#postUrl = withKey(this.#url, key);
    this.#visitUrl = withKey(`${url}/v1/visits`, key);
    this.#tokens = new VisitTokens(url);
    this.#hasTokens = visitTokens;
    this.#prefix = `${this.#url} `;
    this.#store = store;
    this.#emit = emit;
    this.#onWithdrawn = onWithdrawn;
  }

  get numWaiting() {
    return this.#own.size;
  }

  /** Takes part in sending for all tabs, beginning with what earlier pages left. */
  start() {
    return this.#join();
  }

  /**
   * Takes an event in wire form.
   * @param {object} event
   * @returns {Promise<object>} settles when the server has answered for it; never rejects
   */
  add(event) {
    const savedAt = Date.now();
    const bytes = encoder.encode(JSON.stringify(event)).byteLength;
    if (bytes > EVENT_BYTES_MAX) return Promise.resolve(this.#tooLarge(event, bytes));
    const entry = { key: `${this.#prefix}${savedAt} ${randomId()}`, savedAt, event, bytes };
    entry.delivered = new Promise((settle) => (entry.settle = settle));
    this.#own.set(entry.key, entry);
    if (this.#own.size > QUEUE_EVENTS_MAX) this.#dropOldest();
    this.#fresh.push(entry);
    const isFirstOfTurn = this.#fresh.length === 1;
    if (isFirstOfTurn) queueMicrotask(() => void this.#keep(this.#fresh.splice(0)));
    return entry.delivered;
  }

  /** The page may be going away unseen. Where the server asked for a pause, what is stored waits for another page. */
  hide() {
    if (!this.#sender?.isToldToWait) this.#beacon();
  }

  /** The page goes: another tab sends from now on, until `join`. */
  leave() {
    this.#beacon();
    this.#sender?.leave();
  }

  /** The page was left and came back as it was. */
  join() {
    this.#beaconed.clear();
    this.#sender?.join();
  }

  /** Sends what waits, without waiting for a gap. Resolves when the server has answered for everything of this tab. */
  async flush() {
    if (!this.#isTakingPart) return; // nothing was added
    this.#beaconed.clear();
    await this.#join();
    this.#sender?.wake();
    await Promise.all([...this.#own.values()].map(({ delivered }) => delivered));
  }

  /** Forgets everything of all tabs that was not sent. */
  async clear() {
    this.#isTakingPart = false;
    this.#sender?.clear();
    this.#tokens.forget();
    this.#settleAll('withheld');
    await this.#store.clearEvents(this.#prefix);
  }

  /** Lets all other tabs know that consent was withdrawn. */
  tellWithdrawn() {
    const channel = openChannel(channelName(this.#url));
    channel?.postMessage({ type: 'withdrawn' });
    channel?.close();
  }

  /** @returns {Promise<void>} settles when all is stored that another tab or the next page is to send */
  async dispose() {
    this.#beacon();
    this.#isTakingPart = false;
    this.#sender?.clear();
    const stored = this.#putRecords(this.#fresh.splice(0));
    this.#settleAll('queued');
    await stored;
  }

  /**
   * Hands to the browser what no other tab sends. It stays stored too, since nobody says whether it arrived; what the
   * browser does not take is sent by another tab or by the next page.
   */
  #beacon() {
    if (typeof globalThis.navigator?.sendBeacon !== 'function') return;
    const entries = this.#sender?.entries ?? [...this.#own.values()];
    const tokens = this.#hasTokens ? this.#tokens : undefined;
    let rest = entries.filter(({ key }) => !this.#beaconed.has(key));
    while (rest.length > 0) {
      const batch = rest.slice(0, batchLength(rest, BATCH_EVENTS_MAX, tokens));
      const body = new Blob([bodyOf(batch, tokens)], { type: 'text/plain' });
      if (!isTaken(this.#postUrl, body)) return;
      for (const { key } of batch) this.#beaconed.add(key);
      rest = rest.slice(batch.length);
    }
  }

  /** Stored first: a record outlives this tab. */
  async #keep(fresh) {
    const waiting = () => fresh.filter(({ key }) => this.#own.has(key));
    await this.#putRecords(fresh);
    if (waiting().length === 0) return;
    await this.#join();
    this.#sender?.send(waiting());
  }

  /** Stores what was neither dropped nor withdrawn meanwhile. */
  async #putRecords(entries) {
    const waiting = entries.filter(({ key }) => this.#own.has(key));
    const records = waiting.map(({ key, savedAt, event, bytes }) => ({ key, savedAt, event, bytes }));
    if (records.length > 0) await this.#store.putEvents(records);
  }

  /** Where the script cannot be fetched now, it is tried again with the next event. */
  async #join() {
    this.#isTakingPart = true;
    try {
      const { Sender } = await import('./sender.js');
      if (!this.#isTakingPart) return; // consent was withdrawn in the meantime
      this.#sender ??= new Sender({
        url: this.#url,
        postUrl: this.#postUrl,
        visitUrl: this.#visitUrl,
        tokens: this.#hasTokens ? this.#tokens : undefined,
        prefix: this.#prefix,
        store: this.#store,
        own: this.#own,
        onResults: (results) => this.#finish(results),
        onWithdrawn: this.#onWithdrawn,
      });
      this.#sender.join();
    } catch (error) {
      const message = `What sends feedback could not be loaded; feedback is kept. ${error?.message ?? error}`;
      this.#emit('error', { code: 'module_load_failed', message });
    }
  }

  #dropOldest() {
    const [entry] = this.#own.values();
    this.#sender?.drop(entry.key);
    void this.#store.remove('events', [entry.key]);
    this.#finish([{ entry, receipt: { status: 'dropped' } }]);
  }

  #settleAll(status) {
    for (const { settle } of this.#own.values()) settle({ status });
    this.#own.clear();
  }

  /** @param {import('./delivery.js').Result[]} results of own events, and of those that dead tabs left */
  #finish(results) {
    const accepted = [];
    for (const { entry, receipt } of results) {
      const { event, settle } = this.#own.get(entry.key) ?? entry;
      this.#own.delete(entry.key);
      settle?.(receipt);
      if (receipt.status === 'accepted') accepted.push({ eventId: event.event_id, offset: receipt.offset });
      else this.#complain(event, receipt);
    }
    if (accepted.length === 0) return;
    this.#emit('delivered', { eventIds: accepted.map(({ eventId }) => eventId), offset: accepted[0].offset });
  }

  #tooLarge(event, bytes) {
    const detail = `It has ${bytes} bytes, at most ${EVENT_BYTES_MAX} are allowed.`;
    const receipt = { status: 'rejected', code: 'too_large', detail };
    this.#complain(event, receipt);
    return receipt;
  }

  #complain(event, { status, code, detail }) {
    const eventId = event.event_id;
    if (status === 'dropped') {
      const message = 'The feedback queue is full; its oldest event was dropped.';
      this.#emit('error', { code: 'queue_full', message, eventId });
    } else {
      this.#emit('error', { code: 'event_rejected', message: `The server refused an event (${code}): ${detail}`, eventId });
      this.#emit('rejected', { eventId, kind: event.kind, itemId: event.item_id, code, detail });
    }
  }
}

/** Whether the browser takes a beacon; where something refuses beacons it may throw. */
function isTaken(url, body) {
  try {
    return navigator.sendBeacon(url, body);
  } catch {
    return false;
  }
}
