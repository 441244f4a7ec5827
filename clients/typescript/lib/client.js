//! The calls of a server, one method each. Names of fields are turned from and to those of the wire here.

import { FreshetError } from './errors.js';
import { newEventId } from './ids.js';
import { Transport } from './transport.js';

/** Half of what a server takes by default. */
const BATCH_LEN_MAX = 500;
/** Half of what a server takes by default in bytes, were every character three of them. */
const BATCH_CHARS_MAX = 330_000;

/** A server; see `index.d.ts`. */
export class Client {
  #public;
  #admin;
  #keys;

  /** @param {import('../index.d.ts').ClientOptions} [options] */
  constructor({
    url = 'http://127.0.0.1:7878',
    ingestKey,
    readKey,
    adminUrl = 'http://127.0.0.1:7879',
    adminToken,
    timeoutMillis = 10_000,
    triesMax = 5,
    fetch = globalThis.fetch,
  } = {}) {
    this.#public = new Transport({ url, timeoutMillis, triesMax, fetch });
    this.#admin = new Transport({ url: adminUrl, timeoutMillis, triesMax, fetch });
    this.#keys = { ingest: ingestKey ?? adminToken, read: readKey ?? adminToken, admin: adminToken };
  }

  /** A feedback event with an id and the time, ready to be kept and sent. */
  static event({ eventId = newEventId(), occurredAt = Date.now(), ...event }) {
    return { eventId, occurredAt, ...event };
  }

  sendEvents(events, options = {}) {
    const sent = map(events, (event) => toWire(Client.event(event)));
    return this.#send(sent, 'events', 'POST', this.#keys.ingest, options);
  }

  putItems(items, options = {}) {
    const sent = map(items, ({ itemId, ...item }) => ({ item_id: itemId, ...item }));
    return this.#send(sent, 'items', 'PUT', this.#keys.admin, options);
  }

  deleteItems(itemIds, options = {}) {
    return this.#send(itemIds, 'item_ids', 'DELETE', this.#keys.admin, options);
  }

  recommend(question) {
    return this.#ask('/v1/recommend', question);
  }

  score(question) {
    return this.#ask('/v1/score', question);
  }

  search(question) {
    return this.#ask('/v1/search', question);
  }

  async status({ signal } = {}) {
    const raw = await this.#public.request('GET', '/v1/status', { key: this.#keys.read, signal });
    const { log_offset, learned_through, version, device } = raw;
    return { logOffset: log_offset, learnedThrough: learned_through, version, device, raw };
  }

  async waitUntilLearned(offset, { timeoutMillis = 30_000, signal } = {}) {
    const deadline = performance.now() + timeoutMillis;
    for (;;) {
      const status = await this.status({ signal });
      if (status.learnedThrough !== null && status.learnedThrough >= offset) return status;
      if (performance.now() > deadline) {
        const newest = `the newest is at ${status.learnedThrough}`;
        throw new FreshetError(`no version has learned through ${offset} in ${timeoutMillis} ms, ${newest}`);
      }
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }

  async *exportUser(userId, { signal } = {}) {
    const path = `/v1/users/${encodeURIComponent(userId)}`;
    for (let from = 0; from !== null; ) {
      const document = await this.#operate('GET', `${path}?from=${from}`, { signal });
      yield document;
      from = document.next_from;
    }
  }

  eraseUser(userId, options = {}) {
    return this.#operate('DELETE', `/v1/users/${encodeURIComponent(userId)}`, options);
  }

  versions({ limit = 50, before, signal } = {}) {
    const end = before === undefined ? '' : `&before=${before}`;
    return this.#operate('GET', `/v1/versions?limit=${limit}${end}`, { signal });
  }

  rollback(version, { by, signal } = {}) {
    const body = JSON.stringify({ order: 'rollback', version, by });
    return this.#operate('POST', '/v1/rollout', { body, isIdempotent: false, signal });
  }

  #operate(method, path, options) {
    return this.#admin.request(method, path, { key: this.#keys.admin, ...options });
  }

  async #ask(path, { signal, ...question }) {
    const body = JSON.stringify(toWire(question));
    return fromWire(await this.#public.request('POST', path, { key: this.#keys.read, body, signal }));
  }

  async #send(elements, name, method, key, { dryRun = false, signal }) {
    const path = `/v1/${name === 'events' ? 'events' : 'items'}${dryRun ? '?dry_run=true' : ''}`;
    const receipt = { accepted: 0, duplicates: 0, rejected: [], offset: 0 };
    let numSent = 0;
    for await (const batch of batches(elements)) {
      const body = `{"${name}":[${batch.join(',')}]}`;
      const answer = await this.#public.request(method, path, { key, body, mayPack: true, signal });
      receipt.accepted += answer.accepted;
      receipt.duplicates += (answer.duplicates ?? 0) + (answer.unchanged ?? 0);
      receipt.offset = Math.max(receipt.offset, answer.offset);
      for (const rejection of answer.rejected) {
        receipt.rejected.push({ ...rejection, index: numSent + rejection.index });
      }
      numSent += batch.length;
    }
    return receipt;
  }
}

/** `userId` to `user_id`; what is in attributes and vectors is the sender's own and stays. */
function toWire(value) {
  if (Array.isArray(value)) return value.map(toWire);
  if (typeof value !== 'object' || value === null) return value;
  const name = (key) => key.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
  return Object.fromEntries(Object.entries(value).map(([key, held]) => [name(key), toWire(held)]));
}

/** `user_id` to `userId`. */
function fromWire(value) {
  if (Array.isArray(value)) return value.map(fromWire);
  if (typeof value !== 'object' || value === null) return value;
  const name = (key) => key.replace(/_([a-z])/g, (_, letter) => letter.toUpperCase());
  return Object.fromEntries(Object.entries(value).map(([key, held]) => [name(key), fromWire(held)]));
}

async function* map(elements, change) {
  for await (const element of elements) yield change(element);
}

/** JSON has no other numbers, and `null` in their place would be taken for no value. */
function finite(name, held) {
  if (typeof held === 'number' && !Number.isFinite(held)) {
    throw new TypeError(`${name} is ${held}, expected a finite number`);
  }
  return held;
}

/** Elements as JSON, as many at a time as a server takes. */
async function* batches(elements) {
  let batch = [];
  let numChars = 0;
  for await (const element of elements) {
    const text = JSON.stringify(element, finite);
    if (batch.length > 0 && (batch.length === BATCH_LEN_MAX || numChars + text.length > BATCH_CHARS_MAX)) {
      yield batch;
      batch = [];
      numChars = 0;
    }
    batch.push(text);
    numChars += text.length + 1;
  }
  if (batch.length > 0) yield batch;
}
