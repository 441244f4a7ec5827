//! The history that the page keeps itself and ranks from. It never leaves the device.

import { readLocal, writeLocal } from './consent.js';

/** More than any model attends to. */
const EVENTS_MAX = 200;
const KINDS = new Set(['impression', 'view', 'click', 'add_to_cart', 'purchase', 'like', 'dislike', 'rating', 'skip', 'watch']);

export class History {
  #key;
  #isStored;
  #events;

  /**
   * @param {string} model
   * @param {boolean} isStored whether it survives the page
   */
  constructor(model, isStored) {
    this.#key = `freshet:history:${model}`;
    this.#isStored = isStored;
    this.#events = isStored ? parse(readLocal(this.#key)) : [];
  }

  /** Oldest first. */
  read() {
    if (this.#isStored) this.#events = parse(readLocal(this.#key)) ?? this.#events;
    return this.#events.map((event) => ({ ...event }));
  }

  /** @param {{itemId: string, kind: string, occurredAt: number}} event */
  add({ itemId, kind, occurredAt }) {
    if (kind === 'impression') return; // what the server chose, not what the visitor did
    const events = this.read();
    events.push({ itemId, kind, occurredAt });
    this.#events = events.slice(-EVENTS_MAX);
    this.#write();
  }

  clear() {
    this.#events = [];
    writeLocal(this.#key, null);
  }

  /** @param {boolean} isStored */
  setStored(isStored) {
    if (isStored === this.#isStored) return;
    this.#isStored = isStored;
    if (isStored) this.#write();
    else writeLocal(this.#key, null);
  }

  #write() {
    if (this.#isStored) writeLocal(this.#key, JSON.stringify(this.#events));
  }
}

/** What is stored may have been written by anything; only well-formed events are taken. */
function parse(text) {
  if (text === null) return [];
  try {
    const events = JSON.parse(text);
    return Array.isArray(events) ? events.filter(isHistoryEvent).slice(-EVENTS_MAX) : [];
  } catch {
    return []; // damaged: start anew
  }
}

/** @param {any} event */
export function isHistoryEvent(event) {
  const hasId = typeof event?.itemId === 'string' && event.itemId !== '';
  return hasId && KINDS.has(event.kind) && Number.isFinite(event.occurredAt);
}

/** @param {unknown} kind */
export function isEventKind(kind) {
  return KINDS.has(kind);
}
