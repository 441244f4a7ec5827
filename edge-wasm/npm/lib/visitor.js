//! The visitor of this page: consent, pseudonymous id, kept history, and what is reported of them.
//!
//! It knows nothing of the engine but the number of the version that ranks.

import { forgetConsent, isStillGranted, markGranted, randomId, resolveConsent, userId } from './consent.js';
import { invalid } from './errors.js';
import { FeedbackQueue } from './feedback.js';
import { History, checkHistoryEvent } from './history.js';
import { Observed } from './observe.js';
import { checkReport, wireEvent } from './wire.js';

export class Visitor {
  #options;
  #store;
  #emit;
  #consent;
  /** Of the consent with which the page was left last. @type {string | null} */
  #grantedMark = null;
  #memoryUserId;
  #history;
  #queue;
  #observed;
  /** @type {Promise<import('./experiments.js').Experiments | undefined> | undefined} */
  #experiments;
  #liveVersion;
  #isDisposed = false;

  /**
   * @param {object} parts
   * @param {import('../index.d.ts').ConnectOptions} parts.options checked
   * @param {import('./store.js').Store} parts.store
   * @param {(name: string, detail: object) => void} parts.emit
   * @param {() => number | undefined} parts.liveVersion
   */
  constructor({ options, store, emit, liveVersion }) {
    this.#options = options;
    this.#store = store;
    this.#emit = emit;
    this.#liveVersion = liveVersion;
    this.#consent = resolveConsent(options.consent);
    this.#history = new History(options.model, this.#isGranted);
    const { url, key, visitTokens } = options;
    this.#queue = new FeedbackQueue({ url, key, visitTokens, store, emit, onWithdrawn: () => void this.#withdraw() });
    this.#observed = new Observed((event) => this.feedback(event), emit);
  }

  get consent() {
    return this.#consent;
  }

  get history() {
    return this.#history;
  }

  /** How many events are not acknowledged yet. */
  get numWaiting() {
    return this.#queue.numWaiting;
  }

  /** Where the browser opts out for the visitor, what earlier pages kept goes. */
  start() {
    if (!this.#isGranted && this.#options.consent !== 'denied') void this.#withdraw();
  }

  /** Sends what waits, what earlier pages left too. */
  send() {
    if (this.#isGranted && !this.#isDisposed) void this.#queue.start();
  }

  /**
   * @param {string | import('../index.d.ts').FeedbackEvent} kindOrEvent
   * @param {string} [itemId]
   * @param {object} [more] further fields of the event
   * @returns {import('../index.d.ts').FeedbackReceipt}
   */
  feedback(kindOrEvent, itemId, more = {}) {
    const event = typeof kindOrEvent === 'string' ? { ...more, kind: kindOrEvent, itemId } : { ...kindOrEvent };
    event.occurredAt ??= Date.now();
    if (typeof event.occurredAt === 'number') event.occurredAt = Math.round(event.occurredAt); // finer clocks are welcome
    checkHistoryEvent(event);
    checkReport(event);
    const eventId = event.eventId ?? randomId();
    this.#history.add(event);
    if (!this.#isGranted) return { eventId, delivered: Promise.resolve({ status: 'withheld' }) };
    const wire = wireEvent({ ...event, eventId }, this.#userId(), this.#liveVersion());
    return { eventId, delivered: this.#queue.add(wire) };
  }

  /**
   * The arm of an experiment that this visitor has at a place. Without consent there is none: nothing would tell of it.
   * @param {string} place
   */
  async armAt(place) {
    if (!isPlace(place)) throw invalid('place', '1 to 48 letters, digits, or -_.', place);
    if (!this.#isGranted) return undefined;
    this.#experiments ??= this.#loadExperiments();
    const experiments = await this.#experiments;
    return this.#isGranted ? experiments?.armAt(place, this.#userId()) : undefined;
  }

  /** @type {import('../index.d.ts').Freshet['observe']} */
  observe(...asked) {
    return this.#observed.observe(...asked);
  }

  /** @type {import('../index.d.ts').Freshet['observeList']} */
  observeList(...asked) {
    return this.#observed.observeList(...asked);
  }

  /**
   * @param {'granted' | 'denied' | 'auto'} asked
   * @returns {Promise<void>} settles when nothing is left of what was kept for a consent that is no more
   */
  async setConsent(asked) {
    if (resolveConsent(asked) === 'granted') {
      this.#grant();
      return;
    }
    const forgotten = this.#withdraw();
    this.#queue.tellWithdrawn();
    await forgotten;
    if (this.#isDisposed) await this.#store.close(); // forgetting has opened it
  }

  /** Sends now, and waits for the answers. */
  flush() {
    return this.#queue.flush();
  }

  /** The page is looked at again, or online again. */
  wake() {
    this.#hearOfWithdrawal();
    if (this.#isGranted) void this.#queue.flush();
  }

  /** The page may be going away unseen. */
  hide() {
    this.#queue.hide();
  }

  /** The page goes; it may come back as it was. */
  leave() {
    this.#queue.leave();
    this.#grantedMark = this.#isGranted ? markGranted() : null;
  }

  /** The page has come back as it was. */
  return() {
    this.#hearOfWithdrawal();
    if (this.#isGranted) this.#queue.join();
  }

  /** @returns {Promise<void>} settles when what is not sent yet is stored */
  async dispose() {
    this.#isDisposed = true;
    this.#observed.dispose();
    await this.#queue.dispose();
    await this.#store.close();
  }

  get #isGranted() {
    return this.#consent === 'granted';
  }

  #grant() {
    if (this.#isDisposed) return;
    this.#changeConsent('granted');
    this.#history.store();
    void this.#queue.start();
  }

  /** Forgets what was kept for a consent that is no more, here or in another tab. */
  #withdraw() {
    this.#changeConsent('denied');
    this.#history.forgetStored();
    this.#memoryUserId = undefined;
    forgetConsent();
    return this.#queue.clear();
  }

  #changeConsent(consent) {
    if (consent === this.#consent) return;
    this.#consent = consent;
    this.#grantedMark = null;
    this.#emit('consent', { consent });
  }

  /** Another tab may have withdrawn consent while this page was left, and told it to nobody here. */
  #hearOfWithdrawal() {
    if (this.#isGranted && !isStillGranted(this.#grantedMark)) void this.#withdraw();
  }

  /** Where the script cannot be fetched now there is no experiment, and it is tried again with the next ranking. */
  async #loadExperiments() {
    const { url, model } = this.#options;
    try {
      const { Experiments } = await import('./experiments.js');
      return new Experiments(url, model);
    } catch {
      this.#experiments = undefined;
      return undefined;
    }
  }

  #userId() {
    this.#memoryUserId ??= this.#options.userId ?? userId();
    return this.#memoryUserId;
  }
}

/** As the server names places. */
const isPlace = (place) => typeof place === 'string' && /^[\w.-]{1,48}$/.test(place);
