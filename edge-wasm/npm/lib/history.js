//! The history that the page keeps itself and ranks from. It never leaves the device.

import { readLocal, writeLocal } from './consent.js';
import { invalid } from './errors.js';
import { ID_OF_ITEM, isId } from './ids.js';

/** More than any model attends to. */
const EVENTS_MAX = 200;
const EXPORT_FORMAT = 'freshet-history';
const EXPORT_FORMAT_VERSION = 1;
/** Of a history that is brought in or ranked for; as in the engine. */
const GIVEN_EVENTS_MAX = 10_000;
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
   * @returns {number} how many events of it were new and are among those kept
   */
  import(exported) {
    const { format, formatVersion, events } = exported ?? {};
    if (format !== EXPORT_FORMAT) throw invalid('history.format', `"${EXPORT_FORMAT}"`, format);
    if (formatVersion !== EXPORT_FORMAT_VERSION) {
      throw invalid('history.formatVersion', String(EXPORT_FORMAT_VERSION), formatVersion);
    }
    checkHistory('history.events', events);
    const impression = events.findIndex(({ kind }) => kind === 'impression');
    if (impression >= 0) throw invalid(`history.events[${impression}].kind`, 'of what a visitor does', 'impression');
    const known = this.read();
    const added = withoutKnown(known, events);
    this.#keep([...known, ...added]);
    return this.#events.filter((event) => added.includes(event)).length;
  }

  /** From now on it survives the page, joined to what an earlier visit has left. */
  store() {
    if (this.#isStored) return;
    this.#isStored = true;
    const left = parse(readLocal(this.#key));
    this.#keep([...left, ...withoutKnown(left, this.#events)]);
  }

  /** From now on it ends with the page, and nothing of it is left in storage. */
  forgetStored() {
    this.#isStored = false;
    writeLocal(this.#key, null);
  }

  #keep(events) {
    this.#events = events.sort((a, b) => a.occurredAt - b.occurredAt).slice(-EVENTS_MAX);
    this.#write();
  }

  #write() {
    if (this.#isStored) this.#isMemoryOnly = !writeLocal(this.#key, JSON.stringify(this.#events));
  }
}

/** Those of `events` that are not in `known`, each once. */
function withoutKnown(known, events) {
  const keyOf = ({ itemId, kind, occurredAt }) => JSON.stringify([itemId, kind, occurredAt]);
  const keys = new Set(known.map(keyOf));
  const fresh = [];
  for (const { itemId, kind, occurredAt } of events) {
    const event = { itemId, kind, occurredAt };
    if (keys.has(keyOf(event))) continue;
    keys.add(keyOf(event));
    fresh.push(event);
  }
  return fresh;
}

/** What is stored may have been written by anything; only well-formed events are taken. */
function parse(text) {
  if (text === null) return [];
  try {
    const events = JSON.parse(text);
    return Array.isArray(events) ? events.filter((event) => !problemOf(event)).slice(-EVENTS_MAX) : [];
  } catch {
    return []; // damaged: start anew
  }
}

/** Throws if `events` is no list that can be ranked for. @param {string} field @param {any} events */
export function checkHistory(field, events) {
  if (!Array.isArray(events) || events.length > GIVEN_EVENTS_MAX) {
    throw invalid(field, `a list of at most ${GIVEN_EVENTS_MAX} events`, events);
  }
  events.forEach((event, idx) => checkHistoryEvent(event, `${field}[${idx}].`));
}

/** Throws if the engine would not take the event. @param {any} event @param {string} [place] before the field's name */
export function checkHistoryEvent(event, place = '') {
  const problem = problemOf(event);
  if (problem) throw invalid(place + problem.field, problem.expected, problem.actual);
}

/** What is wrong with an event of a history; `undefined` for nothing. */
function problemOf(event) {
  const { itemId, kind, occurredAt } = event ?? {};
  if (!isId(itemId)) return { field: 'itemId', expected: ID_OF_ITEM, actual: itemId };
  if (!KINDS.has(kind)) return { field: 'kind', expected: `one of ${[...KINDS].join(', ')}`, actual: kind };
  if (Number.isSafeInteger(occurredAt)) return undefined;
  return { field: 'occurredAt', expected: 'whole milliseconds since 1970', actual: occurredAt };
}
