//! Fetching: errors that say what happened, a limit on what is read, progress on the way.

import { retryAfterMillis } from './backoff.js';
import { FreshetError } from './errors.js';

/** A server that says nothing for so long gives way to the next attempt. */
const SILENCE_MILLIS_MAX = 30_000;

/**
 * Fetches at most `bytesMax` bytes.
 * @param {string} url
 * @param {object} options
 * @param {AbortSignal} options.signal
 * @param {number} options.bytesMax
 * @param {(numBytes: number) => void} options.onBytes
 * @param {(date: string) => void} [options.onDate] told the `Date` of the answer, where it can be read
 * @param {RequestCache} [options.cache] whether the browser's own cache may answer
 * @returns {Promise<Uint8Array>}
 * @throws {FreshetError} `unreachable`, `no_model`, `server_error`, `too_long`; with `retryAfterMillis` where the
 * server said so
 */
export async function fetchBytes(url, { signal, bytesMax, onBytes, onDate, cache = 'default' }) {
  const attempt = new AbortController();
  const abort = () => attempt.abort();
  let watchdog = setTimeout(abort, SILENCE_MILLIS_MAX);
  signal.addEventListener('abort', abort);
  const heard = (numBytes) => {
    clearTimeout(watchdog);
    watchdog = setTimeout(abort, SILENCE_MILLIS_MAX);
    onBytes(numBytes);
  };
  try {
    const response = await fetch(url, { signal: attempt.signal, cache });
    const date = response.headers.get('date');
    if (date !== null) onDate?.(date);
    if (!response.ok) throw refusal(response, url);
    return await readBody(response.body, bytesMax, heard);
  } catch (error) {
    if (error instanceof FreshetError) throw error;
    throw new FreshetError('unreachable', `The server cannot be reached: ${error?.message ?? error}`, { cause: error });
  } finally {
    clearTimeout(watchdog);
    signal.removeEventListener('abort', abort);
    attempt.abort(); // lets go of a body that was not read
  }
}

function refusal(response, url) {
  const { pathname } = new URL(url);
  const isMissing = response.status === 404;
  const message = isMissing
    ? `The server has no version of the model yet (${pathname}).`
    : `The server answered ${response.status} to ${pathname}.`;
  const error = new FreshetError(isMissing ? 'no_model' : 'server_error', message);
  error.retryAfterMillis = retryAfterMillis(response.headers, Date.now());
  return error;
}

async function readBody(body, bytesMax, onBytes) {
  const chunks = [];
  let length = 0;
  const reader = body.getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    length += value.byteLength;
    if (length > bytesMax) {
      throw new FreshetError('too_long', `The server sent more than the ${bytesMax} bytes it had named.`);
    }
    chunks.push(value);
    onBytes(value.byteLength);
  }
  const bytes = new Uint8Array(length);
  let offset = 0;
  for (const chunk of chunks) {
    bytes.set(chunk, offset);
    offset += chunk.byteLength;
  }
  return bytes;
}
