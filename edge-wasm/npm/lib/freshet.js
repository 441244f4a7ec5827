//! Freshet in the page: rank on the visitor's own device, keep fresh, report feedback.
//!
//! Importing does nothing, on a server too; only `Freshet.connect` and `Freshet.open` touch the browser.
//! This is what a page calls; the visitor (`visitor.js`), the engine (`engine.js`) and what it is asked (`questions.js`) know
//! nothing of each other. `index.js`, `cpu.js` and `webgpu.js` say which modules there are.

import { Emitter } from './emitter.js';
import { PageEngine } from './engine.js';
import { abortable, disposedError, throwIfAborted, toFreshetError } from './errors.js';
import { checkedOptions } from './options.js';
import { followPage } from './page-life.js';
import { explainQuestion, filtered, personalOf, rankNewQuestion, rankQuestion, searchQuestion, similarQuestion } from './questions.js';
import { Store } from './store.js';
import { Visitor } from './visitor.js';

export class Freshet {
  /** What a subclass brings: how its worker and its host in the page are opened. @type {import('./link.js').Entry} */
  static entry;

  #options;
  #emitter = new Emitter();
  #visitor;
  #engine;
  /** @type {Promise<Freshet>} */
  #ready;
  /** What the personal model came to at the last ranking by it. @type {import('../index.d.ts').PersonalStatus | null} */
  #personal = null;
  #isDisposed = false;
  #stopFollowing = () => {};

  /**
   * Connects to a Freshet server; resolves when this page can rank.
   * @param {import('../index.d.ts').ConnectOptions} options
   * @returns {Promise<Freshet>}
   */
  static async connect(options) {
    const freshet = this.open(options);
    try {
      return await freshet.#ready;
    } catch (error) {
      await freshet.dispose();
      throw error;
    }
  }

  /**
   * As `connect`, without waiting: feedback, history and listeners work at once, and what ranks waits for `ready`.
   * @param {import('../index.d.ts').ConnectOptions} options
   * @returns {Freshet}
   */
  static open(options) {
    const freshet = new this(checkedOptions(options, this.entry));
    const started = freshet.#start();
    freshet.#ready = started.then(
      () => freshet,
      (error) => {
        throw toFreshetError(error);
      },
    );
    // Nobody need wait for it, and who aborts wants none.
    freshet.#ready.catch(({ code }) => code === 'aborted' && freshet.dispose());
    return freshet;
  }

  /** Resolves with this Freshet once this page can rank; rejects as `connect` does, and feedback goes on. */
  get ready() {
    return this.#ready;
  }

  /** Use `Freshet.connect` or `Freshet.open`. */
  constructor(options) {
    this.#options = options;
    if (options.onProgress) this.#emitter.on('progress', options.onProgress);
    this.#visitor = new Visitor({
      options,
      store: new Store(),
      emit: (name, detail) => {
        if (name === 'consent' && detail.consent === 'denied') this.#personal = null; // with the history it is of
        this.#emitter.emit(name, detail);
      },
      liveVersion: () => this.#engine.version,
    });
    this.#engine = new PageEngine({
      options,
      entry: this.constructor.entry,
      emitter: this.#emitter,
      status: () => this.status(),
      onStarted: () => this.#visitor.send(),
      onOnline: () => this.#visitor.wake(),
    });
  }

  /**
   * Ranks for a history (the kept one if none is given).
   * @param {import('../index.d.ts').RankOptions} [options]
   * @returns {Promise<import('../index.d.ts').Ranking>}
   */
  async rank(options = {}) {
    const { place, signal } = options;
    if (place === undefined) return this.#ask(this.#rankQuestion(options), signal);
    throwIfAborted(signal);
    const inArm = await abortable(this.#visitor.armAt(place), signal);
    if (inArm === undefined) return this.#ask(this.#rankQuestion(options), signal);
    const ranking = await this.#ask(this.#rankQuestion({ ...options, exploration: inArm.exploration }), signal);
    return { ...ranking, items: ranking.items.map((item) => ({ ...item, arm: inArm.arm })) };
  }

  /**
   * The items that are most like an item, or like several taken together.
   * @param {string | string[]} itemIds
   * @param {import('../index.d.ts').SimilarOptions} [options]
   * @returns {Promise<import('../index.d.ts').Similar>}
   */
  async similar(itemIds, options = {}) {
    return this.#ask(similarQuestion(itemIds, options, this.#readHistory), options.signal);
  }

  /**
   * The items whose texts are most like a text, in the sense of the server's text encoder. The first call loads it.
   * @param {string} text
   * @param {import('../index.d.ts').SearchOptions} [options]
   * @returns {Promise<import('../index.d.ts').Found>}
   */
  async search(text, options = {}) {
    return this.#ask(searchQuestion(text, options, this.#readHistory), options.signal);
  }

  /**
   * Ranks items that the server has never seen, by their texts. Their scores are on the scale of `rank`.
   * @param {{itemId: string, text: string}[]} items
   * @param {import('../index.d.ts').RankNewOptions} [options]
   * @returns {Promise<import('../index.d.ts').NewRanking>}
   */
  async rankNew(items, options = {}) {
    return this.#ask(rankNewQuestion(items, options, this.#readHistory), options.signal);
  }

  /**
   * Loads what `search` and `rankNew` need ahead of their first call, as when a search box gets the focus.
   * @param {{signal?: AbortSignal}} [options]
   */
  async prepareSearch({ signal } = {}) {
    throwIfAborted(signal);
    await abortable(this.#engine.call('prepareSearch'), signal);
  }

  /**
   * Why an item has its score, computed on this device.
   * @param {string} itemId
   * @param {import('../index.d.ts').ExplainOptions} [options]
   * @returns {Promise<import('../index.d.ts').Explanation>}
   */
  async explain(itemId, options = {}) {
    return this.#ask(explainQuestion(itemId, options, this.#readHistory), options.signal);
  }

  /**
   * The `k` best items for this visitor, without those already in the history.
   * @param {import('../index.d.ts').RankOptions} [options]
   */
  recommend(options = {}) {
    return this.rank({ ...options, excludeSeen: options.excludeSeen ?? true });
  }

  /**
   * Reports what the visitor did. The local history has it at once; the server gets it if consent allows.
   * @param {string | import('../index.d.ts').FeedbackEvent} kindOrEvent
   * @param {string} [itemId]
   * @param {object} [more] further fields of the event
   * @returns {import('../index.d.ts').FeedbackReceipt}
   */
  feedback(kindOrEvent, itemId, more) {
    this.#throwIfDisposed();
    return this.#visitor.feedback(kindOrEvent, itemId, more);
  }

  /**
   * Logs an impression of `item` once `element` was visible for long enough; the answer ends it.
   * @type {import('../index.d.ts').Freshet['observe']}
   */
  observe(...asked) {
    this.#throwIfDisposed();
    return this.#visitor.observe(...asked);
  }

  /**
   * As `observe`, for the children of a container, which show the items of a ranking in their order.
   * @type {import('../index.d.ts').Freshet['observeList']}
   */
  observeList(...asked) {
    this.#throwIfDisposed();
    return this.#visitor.observeList(...asked);
  }

  /** The history of this visitor, kept on this device only. */
  get history() {
    const { history } = this.#visitor;
    return {
      read: () => history.read(),
      clear: () => {
        this.#personal = null;
        return history.clear();
      },
      export: () => history.export(),
      import: (exported) => history.import(exported),
    };
  }

  /**
   * Holds this page at the version that ranks now: no other is taken until `unpin`, or until the page is loaded anew.
   * @param {{signal?: AbortSignal}} [options]
   * @returns {Promise<number>} the version
   */
  async pin({ signal } = {}) {
    throwIfAborted(signal);
    return abortable(this.#engine.pin(signal), signal);
  }

  /**
   * Takes new versions again, at once.
   * @param {{signal?: AbortSignal}} [options]
   */
  async unpin({ signal } = {}) {
    throwIfAborted(signal);
    await abortable(this.#engine.unpin(), signal);
  }

  /**
   * @param {'update' | 'moderation' | 'backend' | 'error' | 'progress' | 'online' | 'delivered' | 'rejected' | 'consent' | 'restart'} name
   * @param {(detail: any) => void} listener
   * @returns {() => void} removes the listener
   */
  on(name, listener) {
    return this.#emitter.on(name, listener);
  }

  /** What this page ranks with now. */
  status() {
    return {
      model: this.#options.model,
      ...this.#engine.status,
      eventsWaiting: this.#visitor.numWaiting,
      consent: this.#visitor.consent,
      personal: this.#personal && { ...this.#personal },
    };
  }

  /**
   * @param {'granted' | 'denied' | 'auto'} consent
   * @param {{signal?: AbortSignal}} [options] ends the waiting; the consent is changed all the same
   */
  async setConsent(consent, { signal } = {}) {
    throwIfAborted(signal);
    await abortable(this.#visitor.setConsent(consent), signal);
  }

  /**
   * Sends waiting feedback now.
   * @param {{signal?: AbortSignal}} [options] ends the waiting; what is on its way goes on
   */
  async flush({ signal } = {}) {
    throwIfAborted(signal);
    await abortable(this.#visitor.flush(), signal);
  }

  /** Ends the worker, the stream and all listeners. May be called again. */
  async dispose() {
    if (this.#isDisposed) return;
    this.#isDisposed = true;
    this.#stopFollowing();
    await Promise.all([this.#engine.dispose(), this.#visitor.dispose()]);
    this.#emitter.clear();
  }

  /** As `dispose`, for `using`. */
  [Symbol.dispose ?? Symbol.for('Symbol.dispose')]() {
    void this.dispose();
  }

  /** As `dispose`, for `await using`. */
  [Symbol.asyncDispose ?? Symbol.for('Symbol.asyncDispose')]() {
    return this.dispose();
  }

  // ---- inside --------------------------------------------------------------------------------

  #readHistory = () => this.#visitor.history.read();

  /** @param {import('../index.d.ts').RankOptions} options */
  #rankQuestion(options) {
    return rankQuestion(options, this.#readHistory, this.#options.personal);
  }

  #throwIfDisposed() {
    if (this.#isDisposed) throw disposedError();
  }

  async #start() {
    throwIfAborted(this.#options.signal);
    this.#followPage();
    this.#visitor.start();
    await this.#engine.start().finally(() => this.#visitor.send());
  }

  #followPage() {
    this.#stopFollowing = followPage({
      onHide: () => {
        this.#visitor.hide();
        this.#engine.persist();
      },
      onLeave: () => this.#visitor.leave(),
      onReturn: () => this.#visitor.return(),
      onWake: () => {
        this.#engine.wake();
        this.#visitor.wake();
      },
    });
  }

  /** @param {import('./questions.js').Question} question @param {AbortSignal | undefined} signal */
  async #ask(question, signal) {
    throwIfAborted(signal);
    return abortable(this.#answer(question), signal);
  }

  async #answer(question) {
    const { filter, call } = question;
    const asked = filter ? filtered(question, call.candidates ?? (await this.#engine.itemIds())) : question;
    const answer = await this.#engine.call(asked.method, asked.call);
    if (answer.personal) this.#personal = personalOf(answer.personal);
    return asked.answerOf(answer);
  }
}
