//! The feedback of all tabs of an origin: the tab that leads sends it, and tells the others what came of it.
//!
//! A tab hands what it has to the leader, which says that it took it, and that it lives as long as it has something to send.
//! Whenever the leader changes, every tab hands over again what it has no answer for; together with the records in storage,
//! which outlive their tabs, nothing is left behind.

import { QUEUE_EVENTS_MAX, channelName } from './batches.js';
import { Delivery } from './delivery.js';
import { Outbox } from './outbox.js';
import { Tabs } from './tabs.js';
import { Visits } from './visits.js';

/** Gathers the events of one gesture into one request without being felt. */
const GATHER_MILLIS = 25;
/** Nobody waits for these. */
const GATHER_IMPRESSIONS_MILLIS = 1000;
/** A leader that has something to send says so often that it lives; one that is silent for longer is frozen or slowed down. */
const BEAT_MILLIS = 1000;
const SILENCE_MILLIS_MAX = 4000;
/** Of tabs that hear nothing of each other: records that are younger are still being sent by the tab that made them. */
const LEFTOVER_AGE_MILLIS = 10_000;

export class Sender {
  #prefix;
  #store;
  #own;
  #onResults;
  #onWithdrawn;
  /** Of all tabs, where this one leads. */
  #outbox = new Outbox();
  #delivery;
  #tabs;
  /** Keys of own entries that the leader took. */
  #taken = new Set();
  /** Keys of what has left the outbox while records are read, which may hold it still. @type {Set<string> | undefined} */
  #gone;
  #beat;
  #silence;

  /**
   * @param {object} options
   * @param {string} options.url that takes events, which tells queues of different servers apart
   * @param {string} options.postUrl the same with the server's key, if it has one
   * @param {string} options.visitUrl of that server, which gives visit tokens, likewise
   * @param {import('./visit-tokens.js').VisitTokens} [options.tokens] where events go with them
   * @param {string} options.prefix of the keys of this queue's records
   * @param {import('./store.js').Store} options.store
   * @param {Map<string, import('./batches.js').Entry>} options.own entries that this tab made
   * @param {(results: import('./delivery.js').Result[]) => void} options.onResults for own entries and those of dead tabs
   * @param {() => void} options.onWithdrawn another tab withdrew consent
   */
  constructor({ url, postUrl, visitUrl, tokens, prefix, store, own, onResults, onWithdrawn }) {
    this.#prefix = prefix;
    this.#store = store;
    this.#own = own;
    this.#onResults = onResults;
    this.#onWithdrawn = onWithdrawn;
    const visits = tokens && new Visits({ url: visitUrl, tokens });
    const onOutboxResults = (results) => this.#finish(results);
    this.#delivery = new Delivery({ url: postUrl, outbox: this.#outbox, visits, onResults: onOutboxResults });
    this.#tabs = new Tabs(channelName(url), {
      onLead: () => void this.#lead(),
      onLost: () => this.#lost(),
      onMessage: (message) => this.#heard(message),
    });
  }

  /** Takes part, for the first time or after `leave`. May be called again. */
  join() {
    if (this.#tabs.join() && !this.#tabs.isLeader) this.#hand([...this.#own.values()]);
  }

  /** Sends own entries, or has them sent. @param {import('./batches.js').Entry[]} entries */
  send(entries) {
    if (this.#tabs.isLeader) this.#take(entries);
    else this.#hand(entries);
  }

  /** What nobody but this tab is going to send. @returns {import('./batches.js').Entry[]} */
  get entries() {
    const own = [...this.#own.values()];
    if (!this.#tabs.isLeader) return own.filter(({ key }) => !this.#taken.has(key));
    const notTakenYet = own.filter(({ key }) => !this.#outbox.get(key)); // they are being stored
    return [...this.#outbox.entries, ...notTakenYet];
  }

  /** Whoever would have sent this own entry does not. @param {string} key */
  drop(key) {
    if (this.#tabs.isLeader) this.#forget(key);
    else this.#tabs.post({ type: 'drop', key });
  }

  /** Whether the server asked for a pause. */
  get isToldToWait() {
    return this.#delivery.isToldToWait;
  }

  /** Sends now what waits, or has it sent. A leader that took it may be frozen since, so it is handed over again. */
  wake() {
    if (this.#tabs.isLeader) {
      this.#delivery.wake();
      return;
    }
    this.#taken.clear();
    this.#hand([...this.#own.values()]);
    this.#tabs.post({ type: 'wake' });
  }

  /** Lets another tab send; what is under way goes on. */
  leave() {
    this.#tabs.leave();
    this.#taken.clear();
    this.#stopListening();
  }

  /** As `leave`, and nothing of what was not answered goes on. */
  clear() {
    this.leave();
    this.#delivery.abort();
  }

  async #lead() {
    this.#stopListening();
    this.#take([...this.#own.values()]);
    const gone = new Set();
    this.#gone = gone;
    const records = await this.#store.listEvents(this.#prefix, QUEUE_EVENTS_MAX);
    this.#gone = undefined;
    if (!this.#tabs.isLeader) return;
    const before = this.#tabs.isAlone ? Date.now() - LEFTOVER_AGE_MILLIS : Number.POSITIVE_INFINITY;
    const isLeftover = ({ key, savedAt }) => savedAt < before && !gone.has(key);
    const leftovers = records.filter(isLeftover).map((record) => ({ ...record, isLeftover: true }));
    const newer = this.#outbox.clear();
    this.#take(leftovers); // first, since they are the oldest
    this.#take(newer);
    this.#tabs.post({ type: 'lead' });
  }

  #lost() {
    this.#delivery.pause();
    this.#outbox.clear();
    this.#stopBeat();
  }

  #heard(message) {
    switch (message?.type) {
      case 'hand':
        if (!this.#tabs.isLeader) return;
        this.#take(message.entries);
        this.#tabs.post({ type: 'taken', keys: message.entries.map(({ key }) => key) });
        break;
      case 'taken':
        for (const key of message.keys) if (this.#own.has(key)) this.#taken.add(key);
        break;
      case 'done':
        this.#tell(message.results);
        this.#listen();
        break;
      case 'beat':
        this.#listen();
        break;
      case 'lead':
        this.#taken.clear();
        this.#hand([...this.#own.values()]);
        this.#listen();
        break;
      case 'wake':
        if (this.#tabs.isLeader) this.#delivery.wake();
        break;
      case 'drop':
        this.#forget(message.key);
        break;
      case 'withdrawn':
        this.#onWithdrawn();
        break;
    }
  }

  #hand(entries) {
    if (entries.length === 0) return;
    this.#tabs.post({ type: 'hand', entries: entries.map(({ key, event, bytes }) => ({ key, event, bytes })) });
    if (this.#silence === undefined) this.#listen();
  }

  /** For the next sign of the leader; where none comes while something is unanswered, this tab takes its place. */
  #listen() {
    this.#stopListening();
    if (this.#own.size === 0 || this.#tabs.isLeader) return;
    this.#silence = setTimeout(() => {
      this.#silence = undefined;
      this.#tabs.takeOver();
    }, SILENCE_MILLIS_MAX);
  }

  #stopListening() {
    clearTimeout(this.#silence);
    this.#silence = undefined;
  }

  #stopBeat() {
    clearInterval(this.#beat);
    this.#beat = undefined;
  }

  /** Into the outbox of all tabs. */
  #take(entries) {
    const dropped = [];
    for (const entry of entries) {
      const known = this.#outbox.get(entry.key);
      if (known) known.isLeftover = false; // its tab lives
      else dropped.push(...this.#outbox.push(entry));
    }
    if (dropped.length > 0) this.#finish(dropped.map((entry) => ({ entry, receipt: { status: 'dropped' } })));
    if (this.#outbox.length === 0) return;
    this.#delivery.sendWithin(gatherMillis(entries));
    this.#beat ??= setInterval(() => this.#tabs.post({ type: 'beat' }), BEAT_MILLIS);
  }

  #forget(key) {
    this.#outbox.remove(key);
    this.#gone?.add(key);
  }

  /** Results of what was in the outbox. */
  #finish(results) {
    if (this.#outbox.length === 0) this.#stopBeat();
    for (const { entry } of results) this.#gone?.add(entry.key);
    void this.#store.remove('events', results.map(({ entry }) => entry.key));
    const told = results.map(({ entry, receipt }) => ({ entry: { key: entry.key }, receipt }));
    this.#tabs.post({ type: 'done', results: told });
    this.#tell(results);
  }

  #tell(results) {
    const ours = results.filter(({ entry }) => entry.isLeftover || this.#own.has(entry.key));
    for (const { entry } of ours) this.#taken.delete(entry.key);
    if (ours.length > 0) this.#onResults(ours);
  }
}

/** How long more events are waited for. Timers of a hidden tab run late, so that one does not wait. */
function gatherMillis(entries) {
  if (globalThis.document?.visibilityState === 'hidden') return 0;
  return entries.every(({ event }) => event.kind === 'impression') ? GATHER_IMPRESSIONS_MILLIS : GATHER_MILLIS;
}
