//! What the engine asks for, fetched: update plans and blobs, counted in one total.

import { fetchBytes } from './http.js';
import { withKey } from './key.js';

const KEY_LIST_BYTES_MAX = 128 * 1024;
const PLAN_BYTES_MAX = 1024 * 1024;
const TEXT_NOTE_BYTES_MAX = 4096;
const RULES_BYTES_MAX = 2 ** 18;
/** Steps of a plan that are fetched ahead; one after the other, each would cost a round trip. */
const PREFETCH_BLOBS_MAX = 64;
const PREFETCH_BLOB_BYTES_MAX = 256 * 1024;
/** Ids remembered of blobs that arrived damaged. */
const DAMAGED_BLOBS_MAX = 64;

export class Downloads {
  #url;
  #key;
  #model;
  #signal;
  #onProgress;
  /** `Date` of the last answer about keys or plans, and when it came by a clock that nobody sets. */
  #serverTime;
  /** Drawn once by the page, 0 to 99; pages with a low one have releases before the others. @type {number | undefined} */
  #bucket;
  #bytesReceived = 0;
  #bytesExpected = 0;
  /** Blobs of the newest plan that are under way, by id. */
  #ahead = new Map();
  /** Blobs that arrived damaged. The browser keeps blobs for a year, so it is told to fetch these anew. */
  #damaged = new Set();

  /**
   * @param {object} options
   * @param {string} options.url base of the server, without a slash at the end
   * @param {string} [options.key] of the server, for reports
   * @param {string} options.model
   * @param {AbortSignal} options.signal ends all fetches
   * @param {(progress: {bytesReceived: number, bytesTotal: number}) => void} options.onProgress
   */
  constructor({ url, key, model, signal, onProgress }) {
    this.#url = url;
    this.#key = key;
    this.#model = model;
    this.#signal = signal;
    this.#onProgress = onProgress;
  }

  get bytesReceived() {
    return this.#bytesReceived;
  }

  /** Counts bytes, also those of the announcement stream. @param {number} numBytes */
  received(numBytes) {
    this.#bytesReceived += numBytes;
    const bytesTotal = Math.max(this.#bytesExpected, this.#bytesReceived);
    this.#onProgress({ bytesReceived: this.#bytesReceived, bytesTotal });
  }

  /** Says this bucket from now on. @param {number} bucket 0 to 99 */
  sayBucket(bucket) {
    this.#bucket = bucket;
  }

  watchUrl() {
    return this.modelUrl(`watch${this.#query({})}`);
  }

  /**
   * Tells the server of a version that this page could not take; whether it hears of it is no matter of the page.
   * @param {number} version
   * @param {string} code `self_test`, `apply` or `hash`
   */
  async report(version, code) {
    const body = JSON.stringify({ version, code, bucket: this.#bucket });
    const headers = { 'content-type': 'application/json' };
    try {
      await fetch(withKey(this.modelUrl('reports'), this.#key), { method: 'POST', body, headers, signal: this.#signal, keepalive: true });
    } catch {
      // The server is away: it will be told of the next one.
    }
  }

  /** @param {Record<string, number>} parts */
  #query(parts) {
    const query = new URLSearchParams(this.#bucket === undefined ? parts : { ...parts, bucket: this.#bucket });
    return query.size > 0 ? `?${query}` : '';
  }

  /** @param {string} rest of the path of this model */
  modelUrl(rest) {
    return `${this.#url}/v1/models/${encodeURIComponent(this.#model)}/${rest}`;
  }

  /** The time by the server, milliseconds since 1970; `undefined` before it was heard. @returns {number | undefined} */
  serverMillis() {
    if (!this.#serverTime) return undefined;
    return this.#serverTime.millis + (performance.now() - this.#serverTime.heardAt);
  }

  /** The public keys that the server names, in base64. @returns {Promise<string[]>} */
  async keys() {
    const { keys } = parse(await this.#fetch(this.modelUrl('keys'), KEY_LIST_BYTES_MAX));
    return keys.map((key) => String(key.public_key));
  }

  /**
   * Fetches what was asked for and gives it to the engine behind `withEngine`.
   * @param {{kind: 'key_set'} | {kind: 'plan', base: number | null} | {kind: 'blob', id: string, bytes: number}} request
   * @param {(body: (engine: any) => any) => Promise<any>} withEngine
   */
  async perform(request, withEngine) {
    if (request.kind === 'key_set') {
      const bytes = await this.#fetch(this.modelUrl('keys'), KEY_LIST_BYTES_MAX, 'no-store');
      await withEngine((engine) => engine.on_key_set(bytes));
    } else if (request.kind === 'plan') {
      const query = this.#query(request.base === null ? {} : { base: request.base });
      const bytes = await this.#fetch(this.modelUrl(`plan${query}`), PLAN_BYTES_MAX);
      await withEngine((engine) => engine.on_plan(bytes));
      const plan = parse(bytes); // well-formed, or the engine had refused it
      this.#bytesExpected = this.#bytesReceived + plan.total_bytes;
      this.#fetchAhead(plan.steps);
    } else {
      await this.checked(request.id, async () => {
        const ahead = this.#ahead.get(request.id);
        this.#ahead.delete(request.id);
        const bytes = await (ahead ?? this.#fetchBlob(request));
        await withEngine((engine) => engine.on_blob(request.id, bytes));
      });
    }
  }

  /**
   * Runs what fetches a blob or looks at it; where that fails, the blob is fetched past the browser's cache the next time.
   * @template T
   * @param {string} id of the blob
   * @param {() => T | Promise<T>} body
   * @returns {Promise<T>}
   */
  async checked(id, body) {
    try {
      const outcome = await body();
      this.#damaged.delete(id);
      return outcome;
    } catch (error) {
      if (this.#damaged.size >= DAMAGED_BLOBS_MAX) this.#damaged.clear();
      this.#damaged.add(id);
      throw error;
    }
  }

  /** What the server says of the text encoder of a generation, signed. @param {number} generation */
  textNote(generation) {
    return this.#fetch(this.modelUrl(`text-encoder?generation=${generation}`), TEXT_NOTE_BYTES_MAX);
  }

  /** The rules of the server's operators, signed. */
  rules() {
    return this.#fetch(this.modelUrl('moderation'), RULES_BYTES_MAX, 'no-cache');
  }

  /**
   * A text encoder, whose bytes are yet to be `checked`.
   * @param {{id: string, bytes: number}} blob
   * @returns {Promise<Uint8Array>}
   */
  textFile(blob) {
    this.#bytesExpected = Math.max(this.#bytesExpected, this.#bytesReceived) + blob.bytes;
    return this.checked(blob.id, () => this.#fetchBlob(blob));
  }

  #fetchAhead(steps) {
    this.#ahead.clear();
    for (const { blob } of steps.slice(0, PREFETCH_BLOBS_MAX)) {
      if (blob.bytes > PREFETCH_BLOB_BYTES_MAX) continue;
      const ahead = this.#fetchBlob(blob);
      ahead.catch(() => {}); // whoever asks for the blob gets the error
      this.#ahead.set(blob.id, ahead);
    }
  }

  #fetchBlob({ id, bytes }) {
    const cache = this.#damaged.has(id) ? 'reload' : 'default';
    return this.#fetch(`${this.#url}/v1/blobs/${id}`, bytes, cache);
  }

  #fetch(url, bytesMax, cache = 'default') {
    const onBytes = (numBytes) => this.received(numBytes);
    // Blobs come from the browser's own cache too, with the `Date` of long ago.
    const onDate = url.includes('/v1/blobs/') ? undefined : (date) => this.#heardDate(date);
    return fetchBytes(url, { signal: this.#signal, bytesMax, onBytes, onDate, cache });
  }

  #heardDate(date) {
    const millis = Date.parse(date);
    if (Number.isFinite(millis)) this.#serverTime = { millis, heardAt: performance.now() };
  }
}

function parse(bytes) {
  return JSON.parse(new TextDecoder().decode(bytes));
}
