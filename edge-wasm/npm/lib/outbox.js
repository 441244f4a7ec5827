//! The bounded list of events that one tab sends for all, oldest first.

import { QUEUE_EVENTS_MAX } from './batches.js';

/** Of JSON, all events together. */
const QUEUE_BYTES_MAX = 1024 * 1024;

/** @typedef {import('./batches.js').Entry} Entry */

export class Outbox {
  /** @type {Map<string, Entry>} in the order of adding */
  #entries = new Map();
  #bytes = 0;

  get length() {
    return this.#entries.size;
  }

  /** Oldest first. */
  get entries() {
    return [...this.#entries.values()];
  }

  /** @param {string} key */
  get(key) {
    return this.#entries.get(key);
  }

  /**
   * Adds an entry at the end, where it is not there yet.
   * @param {Entry} entry
   * @returns {Entry[]} the oldest ones, which had to make room
   */
  push(entry) {
    const dropped = [];
    if (this.#entries.has(entry.key)) return dropped;
    this.#entries.set(entry.key, entry);
    this.#bytes += entry.bytes;
    for (const oldest of this.#entries.values()) {
      if (this.#entries.size <= QUEUE_EVENTS_MAX && this.#bytes <= QUEUE_BYTES_MAX) break;
      dropped.push(oldest);
      this.remove(oldest.key);
    }
    return dropped;
  }

  /** @param {string} key @returns {Entry | undefined} what was there */
  remove(key) {
    const entry = this.#entries.get(key);
    if (!entry) return undefined;
    this.#entries.delete(key);
    this.#bytes -= entry.bytes;
    return entry;
  }

  /** Lets all others go first. @param {string} key */
  toEnd(key) {
    const entry = this.remove(key);
    if (entry) this.push(entry);
  }

  /** @returns {Entry[]} what was there */
  clear() {
    const { entries } = this;
    this.#entries.clear();
    this.#bytes = 0;
    return entries;
  }
}
