//! The stream of version announcements (server-sent events), read through `fetch`.
//!
//! Not `EventSource`: this one counts bytes, notices a silent connection, and waits between attempts as told.

import { Backoff, retryAfterMillis } from './backoff.js';

/** The server sends a comment every 15 s; three missed ones mean that the connection is dead. */
const SILENCE_MILLIS_MAX = 45_000;
/** A stream that lived this long was a good one: the next wait is short again. */
const GOOD_STREAM_MILLIS = 5_000;
/** Longest announcement; an inline delta is far smaller. */
const EVENT_CHARS_MAX = 4 * 1024 * 1024;

/**
 * Splits a server-sent event stream into events.
 * @returns {{push: (text: string) => {event: string, data: string}[]}}
 */
export function sseParser() {
  let buffer = '';
  let event = '';
  let data = [];
  let dataChars = 0;
  const takeLine = (line, events) => {
    if (line === '') {
      if (data.length > 0) events.push({ event: event || 'message', data: data.join('\n') });
      event = '';
      data = [];
      dataChars = 0;
      return;
    }
    const colon = line.indexOf(':');
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? '' : line.slice(colon + 1).replace(/^ /, '');
    if (field === 'event') event = value;
    if (field === 'data') {
      data.push(value);
      dataChars += value.length;
    }
  };
  return {
    push(text) {
      buffer += text;
      const lines = buffer.split(/\r\n|\n|\r(?!$)/);
      buffer = lines.pop() ?? '';
      const events = [];
      for (const line of lines) takeLine(line, events);
      if (buffer.length + dataChars > EVENT_CHARS_MAX) throw new Error('announcement is too long');
      return events;
    },
  };
}

/**
 * Reads the stream until `signal` aborts, reconnecting with backoff. Never throws.
 * @param {object} options
 * @param {string} options.url
 * @param {AbortSignal} options.signal
 * @param {Backoff} options.backoff its `wake` ends a wait
 * @param {(text: string) => void} options.onVersion data of a `version` event
 * @param {(revision: number) => void} options.onRules data of a `moderation` event
 * @param {(isOnline: boolean, reason?: string) => void} options.onState
 * @param {(numBytes: number) => void} options.onBytes
 */
export async function watchVersions({ url, signal, backoff, onVersion, onRules, onState, onBytes }) {
  while (!signal.aborted) {
    const openedAt = Date.now();
    const outcome = await readOnce({ url, signal, onVersion, onRules, onState, onBytes });
    if (signal.aborted) return;
    onState(false, outcome.reason);
    if (Date.now() - openedAt > GOOD_STREAM_MILLIS) backoff.reset();
    await backoff.wait(signal, outcome.retryAfterMillis);
  }
}

/** One connection, to its end. */
async function readOnce({ url, signal, onVersion, onRules, onState, onBytes }) {
  const attempt = new AbortController();
  const abort = () => attempt.abort();
  signal.addEventListener('abort', abort);
  let watchdog = setTimeout(abort, SILENCE_MILLIS_MAX);
  try {
    const response = await fetch(url, {
      signal: attempt.signal,
      headers: { accept: 'text/event-stream' },
      cache: 'no-store',
    });
    if (!response.ok || !response.body) {
      await response.body?.cancel();
      const reason = `the server answered ${response.status}`;
      return { reason, retryAfterMillis: retryAfterMillis(response.headers, Date.now()) };
    }
    onState(true);
    const parser = sseParser();
    const decoder = new TextDecoder();
    const reader = response.body.getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return { reason: 'the server closed the stream', retryAfterMillis: 0 };
      clearTimeout(watchdog);
      watchdog = setTimeout(abort, SILENCE_MILLIS_MAX);
      onBytes(value.byteLength);
      for (const { event, data } of parser.push(decoder.decode(value, { stream: true }))) {
        if (event === 'version') onVersion(data);
        if (event === 'moderation') onRules(Number(data));
      }
    }
  } catch (error) {
    return { reason: error instanceof Error ? error.message : String(error), retryAfterMillis: 0 };
  } finally {
    clearTimeout(watchdog);
    attempt.abort();
    signal.removeEventListener('abort', abort);
  }
}
