//! Freshet in the page: rank on the visitor's own device, keep fresh, report feedback.
//!
//! Importing does nothing, on a server too; only `Freshet.connect` and `Freshet.open` touch the browser.
//! The engine runs behind `link.js`, in a worker by default. `index.js`, `cpu.js` and `webgpu.js` say which modules there are.

import { forgetUserId, randomId, readLocal, resolveConsent, userId, writeLocal } from './consent.js';
import { Emitter } from './emitter.js';
import { FreshetError, abortable, invalid, throwIfAborted, toFreshetError } from './errors.js';
import { FeedbackQueue } from './feedback.js';
import { History, checkHistory, checkHistoryEvent } from './history.js';
import { ID_OF_ITEM, checkIds, isId } from './ids.js';
import { EngineLink } from './link.js';
import { Observed } from './observe.js';
import { checkPersonal, checkedOptions } from './options.js';
import { followPage } from './page-life.js';
import {
  checkCount,
  checkEligible,
  checkText,
  diversityOf,
  explanationOf,
  explorationOf,
  foundOf,
  isBetween,
  missingOf,
  newItemsOf,
  newRankingOf,
  personalOf,
  rankingOf,
  rulesOf,
  similarOf,
} from './ranking.js';
import { nextVersion, patiently } from './patience.js';
import { Store } from './store.js';
import { wireEvent } from './wire.js';

/** What `choice.js` goes by. */
const WEBGPU_KEY = 'freshet:webgpu';
/** As in the engine. */
const SIMILAR_TO_MAX = 1000;

export class Freshet {
  /** What a subclass brings: how its worker and its host in the page are opened. @type {import('./link.js').Entry} */
  static entry;

  #options;
  #emitter = new Emitter();
  #store = new Store();
  #history;
  #queue;
  #observed;
  #link;
  #consent;
  #memoryUserId;
  /** @type {Promise<Freshet>} */
  #ready;
  #end = new AbortController();
  /** Counts the calls of `pin` and `unpin`: the newest decides. */
  #holdTurn = 0;
  /** Ids of the live version, for filters; items are only ever added. @type {string[]} */
  #itemIds = [];
  #isStarted = false;
  #isOnline = false;
  #lastProblem;
  #version;
  /** What the personal model came to at the last ranking by it. @type {import('../index.d.ts').PersonalStatus | null} */
  #personal = null;
  #progress = { bytesReceived: 0, bytesTotal: 0 };
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
    this.#consent = resolveConsent(options.consent);
    const isGranted = this.#consent === 'granted';
    const emit = (name, detail) => this.#emitter.emit(name, detail);
    if (options.onProgress) this.#emitter.on('progress', options.onProgress);
    this.#history = new History(options.model, isGranted);
    this.#queue = new FeedbackQueue({
      url: options.url,
      store: this.#store,
      emit,
      onWithdrawn: () => void this.#withdraw(),
    });
    this.#observed = new Observed((event) => this.feedback(event), emit);
  }

  /**
   * Ranks for a history (the kept one if none is given).
   * @param {import('../index.d.ts').RankOptions} [options]
   * @returns {Promise<import('../index.d.ts').Ranking>}
   */
  async rank(options = {}) {
    const { k = 10, excludeSeen = false, personal = this.#options.personal, signal, nowMillis = Date.now() } = options;
    const history = this.#wireHistory(options.history);
    checkCount(k);
    checkPersonal(personal);
    checkEligible(options);
    const rules = rulesOf(options.rules);
    const diversity = diversityOf(options.diversity);
    const exploration = explorationOf(options.exploration);
    throwIfAborted(signal);
    const rank = async () => {
      const { candidates, refused } = await this.#eligible(options, rules);
      const call = { history, candidates, k, excludeSeen, rules, diversity, exploration, personal, nowMillis };
      if (refused.size === 0) return this.#ranked(call);
      const require = rules.require.filter(({ itemId }) => !refused.has(itemId));
      const ranking = await this.#ranked({ ...call, rules: { ...rules, require } });
      return { ...ranking, missing: missingOf(rules, ranking, refused) };
    };
    return abortable(rank(), signal);
  }

  /**
   * The items that are most like an item, or like several taken together.
   * @param {string | string[]} itemIds
   * @param {import('../index.d.ts').SimilarOptions} [options]
   * @returns {Promise<import('../index.d.ts').Similar>}
   */
  async similar(itemIds, options = {}) {
    const { k = 10, excludeSeen = false, signal } = options;
    const asked = [itemIds].flat();
    if (asked.length === 0) throw invalid('itemIds', `the id of an item, or a list of 1 to ${SIMILAR_TO_MAX}`, itemIds);
    checkIds('itemIds', asked, SIMILAR_TO_MAX);
    const history = excludeSeen ? this.#wireHistory(options.history) : [];
    checkCount(k);
    checkEligible(options);
    throwIfAborted(signal);
    const find = async () => {
      const { candidates } = await this.#eligible(options);
      return similarOf(await this.#call('similar', { itemIds: asked, candidates, history, k, excludeSeen }));
    };
    return abortable(find(), signal);
  }

  /**
   * The items whose texts are most like a text, in the sense of the server's text encoder. The first call loads it.
   * @param {string} text
   * @param {import('../index.d.ts').SearchOptions} [options]
   * @returns {Promise<import('../index.d.ts').Found>}
   */
  async search(text, options = {}) {
    const { k = 10, personal = 0, excludeSeen = false, signal, nowMillis = Date.now() } = options;
    checkText('text', text);
    if (!isBetween(personal, 0, 1)) throw invalid('personal', 'a number from 0 to 1', personal);
    const history = this.#wireHistory(options.history);
    checkCount(k);
    checkEligible(options);
    throwIfAborted(signal);
    const find = async () => {
      const { candidates } = await this.#eligible(options);
      return foundOf(await this.#call('search', { text, personal, candidates, history, k, excludeSeen, nowMillis }));
    };
    return abortable(find(), signal);
  }

  /**
   * Ranks items that the server has never seen, by their texts. Their scores are on the scale of `rank`.
   * @param {{itemId: string, text: string}[]} items
   * @param {import('../index.d.ts').RankNewOptions} [options]
   * @returns {Promise<import('../index.d.ts').NewRanking>}
   */
  async rankNew(items, { history, nowMillis = Date.now(), signal } = {}) {
    const call = { ...newItemsOf(items), history: this.#wireHistory(history), nowMillis };
    throwIfAborted(signal);
    return newRankingOf(await abortable(this.#call('rankNew', call), signal));
  }

  /**
   * Loads what `search` and `rankNew` need ahead of their first call, as when a search box gets the focus.
   * @param {{signal?: AbortSignal}} [options]
   */
  async prepareSearch({ signal } = {}) {
    throwIfAborted(signal);
    await abortable(this.#call('prepareSearch'), signal);
  }

  /**
   * Why an item has its score, computed on this device.
   * @param {string} itemId
   * @param {import('../index.d.ts').ExplainOptions} [options]
   * @returns {Promise<import('../index.d.ts').Explanation>}
   */
  async explain(itemId, options = {}) {
    const { k = 10, signal, nowMillis = Date.now() } = options;
    const history = this.#wireHistory(options.history);
    if (!isId(itemId)) throw invalid('itemId', ID_OF_ITEM, itemId);
    checkCount(k);
    throwIfAborted(signal);
    const call = this.#call('explain', { history, itemId, k, nowMillis });
    return explanationOf(await abortable(call, signal));
  }

  /**
   * The `k` best items for this visitor, without those already in the history.
   * @param {import('../index.d.ts').RankOptions} [options]
   */
  recommend(options = {}) {
    return this.rank({ excludeSeen: true, ...options });
  }

  /**
   * Reports what the visitor did. The local history has it at once; the server gets it if consent allows.
   * @param {string | import('../index.d.ts').FeedbackEvent} kindOrEvent
   * @param {string} [itemId]
   * @param {object} [more] further fields of the event
   * @returns {import('../index.d.ts').FeedbackReceipt}
   */
  feedback(kindOrEvent, itemId, more = {}) {
    if (this.#isDisposed) throw disposedError();
    const event = typeof kindOrEvent === 'string' ? { ...more, kind: kindOrEvent, itemId } : { ...kindOrEvent };
    event.occurredAt ??= Date.now();
    if (typeof event.occurredAt === 'number') event.occurredAt = Math.round(event.occurredAt); // finer clocks are welcome
    checkHistoryEvent(event);
    const eventId = event.eventId ?? randomId();
    this.#history.add(event);
    if (this.#consent === 'denied') return { eventId, delivered: Promise.resolve({ status: 'withheld' }) };
    const wire = wireEvent({ ...event, eventId }, this.#userId(), this.#version?.version);
    return { eventId, delivered: this.#queue.add(wire) };
  }

  /**
   * Logs an impression of `item` once `element` was visible for long enough; the answer ends it.
   * @type {import('../index.d.ts').Freshet['observe']}
   */
  observe(...asked) {
    if (this.#isDisposed) throw disposedError();
    return this.#observed.observe(...asked);
  }

  /**
   * As `observe`, for the children of a container, which show the items of a ranking in their order.
   * @type {import('../index.d.ts').Freshet['observeList']}
   */
  observeList(...asked) {
    if (this.#isDisposed) throw disposedError();
    return this.#observed.observeList(...asked);
  }

  /** The history of this visitor, kept on this device only. */
  get history() {
    const history = this.#history;
    return {
      read: () => history.read(),
      clear: () => history.clear(),
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
    const turn = this.#nextHoldTurn();
    const pinned = this.#call('pin').then((version) => {
      // An engine that replaces this one is pinned too, unless the page has thought better of it.
      if (turn === this.#holdTurn) this.#link.configure({ isPinned: true });
      return version;
    });
    return abortable(pinned, signal);
  }

  /**
   * Takes new versions again, at once.
   * @param {{signal?: AbortSignal}} [options]
   */
  async unpin({ signal } = {}) {
    throwIfAborted(signal);
    this.#nextHoldTurn();
    this.#link?.configure({ isPinned: false });
    await abortable(this.#call('unpin'), signal);
  }

  /**
   * @param {'update' | 'backend' | 'error' | 'progress' | 'online' | 'delivered' | 'rejected' | 'restart'} name
   * @param {(detail: any) => void} listener
   * @returns {() => void} removes the listener
   */
  on(name, listener) {
    return this.#emitter.on(name, listener);
  }

  /** What this page ranks with now. */
  status() {
    const live = this.#version;
    return {
      model: this.#options.model,
      version: live?.version ?? null,
      backend: live?.backend ?? null,
      backendReason: live?.backendReason ?? '',
      runsIn: this.#link?.place ?? null,
      isOnline: this.#isOnline,
      isPinned: live?.isPinned ?? false,
      learnedThrough: live?.learned_through ?? null,
      stateHash: live?.state_hash ?? null,
      numItems: live?.num_items ?? 0,
      createdAt: live?.created_at ?? null,
      ageMillis: live?.created_at == null ? null : Math.max(0, Date.now() - live.created_at),
      bytesReceived: this.#progress.bytesReceived,
      eventsWaiting: this.#queue.numWaiting,
      consent: this.#consent,
      personal: this.#personal && { ...this.#personal },
    };
  }

  /**
   * @param {'granted' | 'denied' | 'auto'} consent
   * @param {{signal?: AbortSignal}} [options] ends the waiting; the consent is changed all the same
   */
  async setConsent(consent, { signal } = {}) {
    throwIfAborted(signal);
    this.#consent = resolveConsent(consent);
    const isGranted = this.#consent === 'granted';
    if (isGranted) {
      this.#history.setStored(true);
      void this.#queue.start();
      return;
    }
    const forgotten = this.#withdraw();
    this.#queue.tellWithdrawn();
    await abortable(forgotten, signal);
  }

  /**
   * Sends waiting feedback now.
   * @param {{signal?: AbortSignal}} [options] ends the waiting; what is on its way goes on
   */
  async flush({ signal } = {}) {
    throwIfAborted(signal);
    await abortable(this.#queue.flush(), signal);
  }

  /** Ends the worker, the stream and all listeners. May be called again. */
  async dispose() {
    if (this.#isDisposed) return;
    this.#end.abort();
    this.#stopFollowing();
    this.#observed.dispose();
    this.#queue.dispose();
    await this.#link?.dispose();
    await this.#store.close();
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

  get #isDisposed() {
    return this.#end.signal.aborted;
  }

  async #start() {
    throwIfAborted(this.#options.signal);
    this.#followPage();
    if (this.#consent === 'denied' && this.#options.consent !== 'denied') this.#optOut();
    await patiently(this.#getReady(), this.#limits()).finally(() => this.#sendFeedback());
  }

  async #getReady() {
    await this.#startEngine();
    this.#isStarted = true;
    this.#sendFeedback();
    if (this.#options.waitForModel && !this.#version) await nextVersion(this.#emitter);
  }

  /** What earlier pages left too. */
  #sendFeedback() {
    if (this.#consent === 'granted' && !this.#isDisposed) void this.#queue.start();
  }

  async #startEngine() {
    const { url, model, cache, worker, assets, publicKey = [], rootKey, backend } = this.#options;
    const publicKeys = [publicKey].flat();
    const config = { url, model, cache, publicKeys, rootKey, assets, backend, remembered: readRemembered() };
    const entry = { ...this.constructor.entry, isWorkerWanted: Boolean(worker) };
    if (typeof worker === 'function') entry.openWorker = worker;
    this.#link = new EngineLink(config, entry, (name, detail) => this.#hostSaid(name, detail));
    await this.#link.start();
  }

  #limits() {
    const { signal, timeoutMillis } = this.#options;
    return { signal, end: this.#end.signal, timeoutMillis, ended: disposedError, late: () => this.#lateError() };
  }

  #lateError() {
    const { timeoutMillis } = this.#options;
    if (!this.#isStarted) {
      return new FreshetError('module_load_failed', `The engine did not start within ${timeoutMillis} ms.`);
    }
    const { code = 'unreachable', message = 'The server did not answer.' } = this.#lastProblem ?? {};
    return new FreshetError(code, `No model arrived within ${timeoutMillis} ms. ${message}`);
  }

  #hostSaid(name, detail) {
    if (this.#isDisposed) return;
    switch (name) {
      case 'pin':
        this.#version = detail;
        break;
      case 'update':
      case 'backend':
        this.#version = detail;
        this.#emitter.emit(name, this.status());
        break;
      case 'progress':
        this.#told(detail);
        break;
      case 'online':
        this.#isOnline = detail.isOnline;
        if (detail.isOnline) void this.#queue.flush();
        this.#emitter.emit('online', detail);
        break;
      case 'waiting':
        this.#lastProblem = detail;
        break;
      case 'remember':
        this.#remember(detail);
        break;
      case 'webgpu_failed':
        // A module that could not be fetched says nothing about the graphics driver.
        if (detail.code !== 'module_load_failed') this.#remember({ failure: { message: detail.message, atMillis: Date.now() } });
        this.#emitter.emit('error', detail);
        break;
      default:
        if (name === 'error') this.#lastProblem = detail;
        if (detail.code === 'identity_changed') this.#itemIds = [];
        this.#emitter.emit(name, detail);
    }
  }

  /** Another tab may have remembered something else meanwhile. @param {import('./choice.js').Remembered} part */
  #remember(part) {
    const remembered = { ...readRemembered(), ...part };
    writeLocal(WEBGPU_KEY, JSON.stringify(remembered));
    this.#link.configure({ remembered });
  }

  /** A restarted host counts from zero again; the page's progress only rises. */
  #told({ bytesReceived, bytesTotal }) {
    const received = Math.max(this.#progress.bytesReceived, bytesReceived);
    this.#progress = { bytesReceived: received, bytesTotal: Math.max(received, bytesTotal) };
    this.#emitter.emit('progress', { ...this.#progress });
  }

  #followPage() {
    this.#stopFollowing = followPage({
      onHide: () => {
        this.#queue.hide();
        this.#link?.call('persist').catch(() => {}); // the cache is only an optimisation
      },
      onLeave: () => this.#queue.leave(),
      onReturn: () => this.#consent === 'granted' && this.#queue.join(),
      onWake: () => this.#wake(),
    });
  }

  #wake() {
    this.#link?.call('wake').catch(() => {}); // a host that ended is replaced by the link
    if (this.#consent === 'granted') void this.#queue.flush();
  }

  /** Forgets what was kept for a consent that is no more, here or in another tab. */
  #withdraw() {
    this.#consent = 'denied';
    this.#history.setStored(false);
    this.#memoryUserId = undefined;
    forgetUserId();
    return this.#queue.clear();
  }

  /** The browser opts out for the visitor: what earlier pages kept goes too. */
  #optOut() {
    this.#history.clear();
    void this.#withdraw();
  }

  async #ranked(call) {
    const answer = await this.#call('rank', call);
    if (call.personal) this.#personal = personalOf(answer);
    return rankingOf(answer);
  }

  /** The history given, else the kept one, as the engine takes it. */
  #wireHistory(given) {
    const history = given ?? this.#history.read();
    checkHistory('history', history);
    return history.map(({ itemId, kind, occurredAt }) => ({ item_id: itemId, kind, occurred_at: occurredAt }));
  }

  /** Candidates that the page's filter lets through, and what of the required it does not. */
  async #eligible({ candidates, filter }, { require = [] } = {}) {
    if (!filter) return { candidates, refused: new Set() };
    const itemIds = candidates ?? (await this.#liveItemIds());
    const refused = require.map(({ itemId }) => itemId).filter((itemId) => !filter(itemId));
    return { candidates: itemIds.filter((itemId) => filter(itemId)), refused: new Set(refused) };
  }

  async #liveItemIds() {
    await this.#whenReady();
    if (this.#itemIds.length !== this.#version?.num_items) this.#itemIds = await this.#call('itemIds');
    return this.#itemIds;
  }

  /** Where it did not get ready, the call itself says why. */
  async #whenReady() {
    await this.#ready.catch(() => {});
  }

  async #call(method, ...args) {
    if (this.#isDisposed) throw disposedError();
    await this.#whenReady();
    if (this.#isDisposed || !this.#link) throw disposedError();
    try {
      return await this.#link.call(method, ...args);
    } catch (error) {
      if (error.code !== 'no_model' || !this.#version) throw error;
      // There was one: an engine that replaces another, or another server, has to be waited for.
      await patiently(nextVersion(this.#emitter), this.#limits());
      return this.#link.call(method, ...args);
    }
  }

  #nextHoldTurn() {
    this.#holdTurn += 1;
    return this.#holdTurn;
  }

  #userId() {
    this.#memoryUserId ??= this.#options.userId ?? userId();
    return this.#memoryUserId;
  }
}

/** @returns {import('./choice.js').Remembered} */
function readRemembered() {
  try {
    return JSON.parse(readLocal(WEBGPU_KEY)) ?? {};
  } catch {
    return {}; // written by something else
  }
}

function disposedError() {
  return new FreshetError('disposed', 'This Freshet was disposed.');
}

