//! Requests over HTTP: tries, waits, and errors that say what is wrong.

import { ProblemError, TransportError } from './errors.js';

/** Smaller bodies are not worth packing. */
const GZIP_CHARS_MIN = 1024;
/** The first wait is at most this long, and every one twice the one before. */
const WAIT_MILLIS_MIN = 250;
const WAIT_MILLIS_MAX = 30_000;
const RETRIED = new Set([408, 429, 502, 503, 504]);

/** One address of a server. */
export class Transport {
  #url;
  #timeoutMillis;
  #triesMax;
  #fetch;

  /** @param {{url: string, timeoutMillis: number, triesMax: number, fetch: typeof fetch}} options */
  constructor({ url, timeoutMillis, triesMax, fetch }) {
    if (!/^https?:\/\//.test(url)) throw new TypeError(`url is ${url}, expected http:// or https://`);
    this.#url = url.replace(/\/+$/, '');
    this.#timeoutMillis = timeoutMillis;
    this.#triesMax = Math.max(1, triesMax);
    this.#fetch = fetch;
  }

  /**
   * The answer as JSON. What is not idempotent is sent again only where the server has said that it did not look.
   * @param {string} method
   * @param {string} path
   * @param {{key?: string, body?: string, mayPack?: boolean, isIdempotent?: boolean, signal?: AbortSignal}} [request]
   */
  async request(method, path, { key, body, mayPack = false, isIdempotent = true, signal } = {}) {
    /** @type {Record<string, string>} */
    const headers = { accept: 'application/json' };
    if (key !== undefined) headers.authorization = `Bearer ${key}`;
    if (body !== undefined) headers['content-type'] = 'application/json';
    /** @type {BodyInit | undefined} */
    let sent = body;
    if (body !== undefined && mayPack && body.length >= GZIP_CHARS_MIN) {
      headers['content-encoding'] = 'gzip';
      sent = await packed(body);
    }
    for (let numTries = 1; ; numTries += 1) {
      const timeout = AbortSignal.timeout(this.#timeoutMillis);
      const either = signal === undefined ? timeout : AbortSignal.any([signal, timeout]);
      let error;
      let waitMillis = 0;
      let isWorthIt = isIdempotent;
      try {
        const answer = await this.#fetch(this.#url + path, { method, headers, body: sent, signal: either });
        if (answer.ok) return await answer.json();
        const { status } = answer;
        error = new ProblemError(status, await answer.json().catch(() => ({ title: answer.statusText })));
        waitMillis = retryAfterMillis(answer.headers.get('retry-after'), Date.now());
        isWorthIt = RETRIED.has(status) && (isIdempotent || status === 429 || status === 503);
      } catch (cause) {
        signal?.throwIfAborted();
        error = new TransportError(`${method} ${this.#url}${path}: ${reason(cause)}`, { cause });
      }
      if (!isWorthIt || numTries >= this.#triesMax) throw error;
      await pause(Math.max(waitMillis, backoffMillis(numTries)), signal);
    }
  }
}

/** `fetch` hides why it failed in a cause. @param {any} thrown */
function reason(thrown) {
  return thrown?.cause?.message || thrown?.message || String(thrown);
}

/**
 * Between half of and the whole of a wait that doubles, so that clients do not come back all at once.
 * @param {number} numTries
 */
export function backoffMillis(numTries) {
  const longest = Math.min(WAIT_MILLIS_MAX, WAIT_MILLIS_MIN * 2 ** (numTries - 1));
  return longest * (0.5 + 0.5 * Math.random());
}

/**
 * Seconds, or a date (RFC 9110, 10.2.3), bounded.
 * @param {string | null} header
 * @param {number} nowMillis
 */
export function retryAfterMillis(header, nowMillis) {
  if (header === null) return 0;
  const millis = /^\d+$/.test(header) ? Number(header) * 1000 : Date.parse(header) - nowMillis;
  return Math.min(Math.max(millis || 0, 0), WAIT_MILLIS_MAX);
}

/** @param {string} text */
async function packed(text) {
  const stream = new Blob([text]).stream().pipeThrough(new CompressionStream('gzip'));
  return new Response(stream).arrayBuffer();
}

/** @param {number} millis @param {AbortSignal} [signal] */
function pause(millis, signal) {
  return new Promise((resolve, reject) => {
    const aborted = () => {
      clearTimeout(timer);
      reject(signal?.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener('abort', aborted);
      resolve(undefined);
    }, millis);
    signal?.addEventListener('abort', aborted, { once: true });
    if (signal?.aborted) aborted();
  });
}
