//! How events are cut into requests, by beacons and by whoever sends.

import { TOKEN_BYTES_MAX } from './visit-tokens.js';

/** In events: what a visitor who is offline for long may take of memory and storage. */
export const QUEUE_EVENTS_MAX = 1000;
export const BATCH_EVENTS_MAX = 200;
/** Browsers allow 64 KiB in beacons and `keepalive` requests that are under way. */
export const BATCH_BYTES_MAX = 60 * 1024;
/** The frame around the events of a batch. */
const FRAME_BYTES = 64;
export const EVENT_BYTES_MAX = BATCH_BYTES_MAX - FRAME_BYTES;

/**
 * @typedef {object} Entry
 * @property {string} key of its record, the same in all tabs
 * @property {{event_id: string, user_id: string}} event in wire form
 * @property {number} bytes of its JSON in UTF-8
 */

/**
 * The longest run of entries that fits one request, at least one.
 * @param {{bytes: number}[]} entries
 * @param {number} eventsMax
 * @param {import('./visit-tokens.js').VisitTokens} [tokens] that go beside them
 * @returns {number}
 */
export function batchLength(entries, eventsMax, tokens) {
  const bytesBeside = tokens ? TOKEN_BYTES_MAX : 0;
  let bytes = FRAME_BYTES;
  let length = 0;
  for (const entry of entries) {
    bytes += entry.bytes + bytesBeside + 1;
    if (length > 0 && (bytes > BATCH_BYTES_MAX || length >= eventsMax)) break;
    length += 1;
  }
  return length;
}

/**
 * The body of a request.
 * @param {Entry[]} entries
 * @param {import('./visit-tokens.js').VisitTokens} [tokens] that go beside them, as far as they are held
 */
export function bodyOf(entries, tokens) {
  const events = entries.map(({ event }) => (tokens ? { ...event, token: tokens.of(event.user_id) } : event));
  return JSON.stringify({ sent_at: Date.now(), events });
}

/** Of the tabs that share a queue. @param {string} url that takes events */
export function channelName(url) {
  return `freshet:feedback:${url}`;
}
