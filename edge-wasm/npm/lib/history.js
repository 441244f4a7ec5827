//! The history that the page keeps itself and ranks from. It never leaves the device.

import { readLocal, writeLocal } from './consent.js';
import { invalid } from './errors.js';

/** More than any model attends to. */
const EVENTS_MAX = 200;
const EXPORT_FORMAT = 'freshet-history';
const EXPORT_FORMAT_VERSION = 1;
/** What is brought in may come from anywhere. */
const IMPORT_EVENTS_MAX = 10_000;
const KINDS = new Set(['impression', 'view', 'click', 'add_to_cart', 'purchase', 'like', 'dislike', 'rating', 'skip', 'watch']);

export class History {
  #model;
  #key;
  #isStored;
  /** Whether storage is forbidden or full, so that memory is all there is. */
  #isMemoryOnly = false;
  #events = [];

  /**
   * @param {string} model
   * @param {boolean} isStored whether it survives the page
   */
  constructor(model, isStored) {
    this.#model = model;
    this.#key = `freshet:history:${model}`;
    this.#isStored = isStored;
    this.read();
  }

  /** Oldest first. */
  read() {
    // Another tab may have added to it, or cleared it.
    if (this.#isStored && !this.#isMemoryOnly) this.#events = parse(readLocal(this.#key));
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

  /** Everything that is kept, as an object that JSON holds. @returns {import('../index.d.ts').ExportedHistory} */
  export() {
    return { format: EXPORT_FORMAT, formatVersion: EXPORT_FORMAT_VERSION, model: this.#model, events: this.read() };
  }

  /**
   * Adds what `export` gave, here or on another device. An event that is there already is not added again.
   * @param {import('../index.d.ts').ExportedHistory} exported
   * @returns {number} how many events were added
   */
  import(exported) {
    const { format, formatVersion, events } = exported ?? {};
    if (format !== EXPORT_FORMAT) throw invalid('history.format', `"${EXPORT_FORMAT}"`);
    if (formatVersion !== EXPORT_FORMAT_VERSION) throw invalid('history.formatVersion', String(EXPORT_FORMAT_VERSION));
    if (!Array.isArray(events) || events.length > IMPORT_EVENTS_MAX) {
      throw invalid('history.events', `a list of at most ${IMPORT_EVENTS_MAX} events`);
    }
    const malformed = events.findIndex((event) => !isHistoryEvent(event) || event.kind === 'impression');
    if (malformed >= 0) throw invalid(`history.events[${malformed}]`, 'an event that a history keeps');
    const keyOf = ({ itemId, kind, occurredAt }) => JSON.stringify([itemId, kind, occurredAt]);
    const known = new Map(this.read().map((event) => [keyOf(event), event]));
    const numBefore = known.size;
    for (const { itemId, kind, occurredAt } of events) {
      const event = { itemId, kind, occurredAt };
      if (!known.has(keyOf(event))) known.set(keyOf(event), event);
    }
    const inOrder = [...known.values()].sort((a, b) => a.occurredAt - b.occurredAt);
    this.#events = inOrder.slice(-EVENTS_MAX);
    this.#write();
    return known.size - numBefore;
  }

  /** @param {boolean} isStored */
  setStored(isStored) {
    if (isStored === this.#isStored) return;
    this.#isStored = isStored;
    if (isStored) this.#write();
    else writeLocal(this.#key, null);
  }

  #write() {
    if (this.#isStored) this.#isMemoryOnly = !writeLocal(this.#key, JSON.stringify(this.#events));
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
