//! Freshet in the page: rank on the visitor's own device, keep fresh, report feedback.
//!
//! Importing does nothing, on a server too; only `Freshet.connect` touches the browser.
//! The engine runs behind `link.js`, in a worker by default. `index.js`, `cpu.js` and `webgpu.js` say which modules there are.

import { forgetUserId, randomId, readLocal, resolveConsent, userId, writeLocal } from './consent.js';
import { Emitter } from './emitter.js';
import { FreshetError, abortError, invalid, throwIfAborted, toFreshetError } from './errors.js';
import { FeedbackQueue } from './feedback.js';
import { History, isEventKind, isHistoryEvent } from './history.js';
import { EngineLink } from './link.js';
import { explanationOf, explorationOf, rankingOf } from './ranking.js';
import { Store } from './store.js';

const WEBGPU_FAILED_KEY = 'freshet:webgpu-failed';
/** A failed graphics driver is tried again after a week. */
const WEBGPU_RETRY_MILLIS = 7 * 24 * 3600 * 1000;
const CONNECT_TIMEOUT_MILLIS = 20_000;

export class Freshet {
  /** What a subclass brings: how its worker and its host in the page are opened. @type {import('./link.js').Entry} */
  static entry;

  #options;
  #emitter = new Emitter();
  #store = new Store();
  #history;
  #queue;
  #link;
  #consent;
  #memoryUserId;
  #isDisposed = false;
  #isOnline = false;
  #lastProblem;
  #version;
  #progress = { bytesReceived: 0, bytesTotal: 0 };
  #stopListening = [];

  /**
   * Connects to a Freshet server; resolves when this page can rank.
   * @param {import('../index.d.ts').ConnectOptions} options
   * @returns {Promise<Freshet>}
   */
  static async connect(options) {
    const checked = checkedOptions(options, this.entry);
    throwIfAborted(checked.signal);
    const freshet = new this(checked);
    try {
      await freshet.#start();
    } catch (error) {
      await freshet.dispose();
      throw toFreshetError(error);
    }
    return freshet;
  }

  /** Use `Freshet.connect`. */
  constructor(options) {
    this.#options = options;
    this.#consent = resolveConsent(options.consent);
    const isGranted = this.#consent === 'granted';
    this.#history = new History(options.model, isGranted);
    this.#queue = new FeedbackQueue({
      url: options.url,
      store: this.#store,
      emit: (name, detail) => this.#emitter.emit(name, detail),
    });
  }

  /**
   * Ranks for a history (the kept one if none is given).
   * @param {import('../index.d.ts').RankOptions} [options]
   * @returns {Promise<import('../index.d.ts').Ranking>}
   */
  async rank(options = {}) {
    const { candidates, k = 10, excludeSeen = false, signal, nowMillis = Date.now() } = options;
    const history = this.#wireHistory(options.history);
    if (!Number.isInteger(k) || k < 0) throw invalid('k', 'a whole number from 0');
    if (candidates !== undefined && !isListOfIds(candidates)) throw invalid('candidates', 'a list of item ids');
    const exploration = explorationOf(options.exploration);
    throwIfAborted(signal);
    const call = this.#call('rank', { history, candidates, k, excludeSeen, exploration, nowMillis });
    return rankingOf(await abortable(call, signal));
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
    if (typeof itemId !== 'string' || itemId === '') throw invalid('itemId', 'the id of an item');
    if (!Number.isInteger(k) || k < 0) throw invalid('k', 'a whole number from 0');
    throwIfAborted(signal);
    const call = this.#call('explain', { history, itemId, k, nowMillis });
    return explanationOf(await abortable(call, signal));
  }

  /**
   * The `k` best items for this visitor, without those already in the history.
   * @param {{k?: number, exploration?: import('../index.d.ts').Exploration, signal?: AbortSignal}} [options]
   */
  recommend({ k = 10, exploration, signal } = {}) {
    return this.rank({ k, excludeSeen: true, exploration, signal });
  }

  /**
   * Reports what the visitor did. The local history has it at once; the server gets it if consent allows.
   * @param {string | import('../index.d.ts').FeedbackEvent} kindOrEvent
   * @param {string} [itemId]
   * @param {object} [more] further fields of the event
   * @returns {import('../index.d.ts').FeedbackReceipt}
   */
  feedback(kindOrEvent, itemId, more = {}) {
    if (this.#isDisposed) throw new FreshetError('disposed', 'This Freshet was disposed.');
    const event = typeof kindOrEvent === 'string' ? { ...more, kind: kindOrEvent, itemId } : { ...kindOrEvent };
    if (!isEventKind(event.kind)) throw invalid('kind', 'a known kind of event');
    if (typeof event.itemId !== 'string' || event.itemId === '') throw invalid('itemId', 'the id of an item');
    const occurredAt = event.occurredAt ?? Date.now();
    if (!Number.isFinite(occurredAt)) throw invalid('occurredAt', 'milliseconds since 1970');
    const eventId = event.eventId ?? randomId();
    this.#history.add({ itemId: event.itemId, kind: event.kind, occurredAt });
    if (this.#consent === 'denied') return { eventId, delivered: Promise.resolve({ status: 'withheld' }) };
    const wire = wireEvent({ ...event, occurredAt, eventId }, this.#userId(), this.#version?.version);
    return { eventId, delivered: this.#queue.add(wire) };
  }

  /** The history of this visitor, kept on this device only. */
  get history() {
    const history = this.#history;
    return { read: () => history.read(), clear: () => history.clear() };
  }

  /**
   * @param {'update' | 'backend' | 'error' | 'progress' | 'online' | 'delivered' | 'restart'} name
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
      learnedThrough: live?.learned_through ?? null,
      stateHash: live?.state_hash ?? null,
      numItems: live?.num_items ?? 0,
      createdAt: live?.created_at ?? null,
      ageMillis: live?.created_at == null ? null : Math.max(0, Date.now() - live.created_at),
      bytesReceived: this.#progress.bytesReceived,
      eventsWaiting: this.#queue.numWaiting,
      consent: this.#consent,
    };
  }

  /** @param {'granted' | 'denied' | 'auto'} consent */
  async setConsent(consent) {
    this.#consent = resolveConsent(consent);
    const isGranted = this.#consent === 'granted';
    this.#history.setStored(isGranted);
    if (isGranted) return;
    this.#memoryUserId = undefined;
    forgetUserId();
    await this.#queue.clear();
  }

  /** Sends waiting feedback now. */
  flush() {
    return this.#queue.flush();
  }

  /** Ends the worker, the stream and all listeners. May be called again. */
  async dispose() {
    if (this.#isDisposed) return;
    this.#isDisposed = true;
    for (const stop of this.#stopListening) stop();
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

  async #start() {
    const { signal, timeoutMillis, waitForModel } = this.#options;
    this.#listen();
    const started = this.#startEngine();
    await abortable(started, signal);
    if (this.#consent === 'granted') void this.#queue.adoptLeftovers();
    if (waitForModel && !this.#version) await this.#firstVersion(signal, timeoutMillis);
  }

  async #startEngine() {
    const { url, model, cache, worker, assets, publicKey = [], rootKey } = this.#options;
    const publicKeys = [publicKey].flat();
    const config = { url, model, cache, publicKeys, rootKey, assets, backend: this.#backendToTry() };
    const entry = { ...this.constructor.entry, isWorkerWanted: Boolean(worker) };
    if (typeof worker === 'function') entry.openWorker = worker;
    this.#link = new EngineLink(config, entry, (name, detail) => this.#hostSaid(name, detail));
    await this.#link.start();
  }

  /** A driver that failed before is left alone for a while, unless WebGPU is asked for by name. */
  #backendToTry() {
    const { backend } = this.#options;
    if (backend !== 'auto') return backend;
    const failedAt = Number(readLocal(WEBGPU_FAILED_KEY) ?? Number.NaN);
    return Date.now() - failedAt < WEBGPU_RETRY_MILLIS ? 'cpu' : 'auto';
  }

  #firstVersion(signal, timeoutMillis) {
    return new Promise((resolve, reject) => {
      const finish = (settle, value) => {
        clearTimeout(timer);
        signal?.removeEventListener('abort', onAbort);
        stop();
        settle(value);
      };
      const onAbort = () => finish(reject, abortError(signal));
      const onTimeout = () => {
        const { code = 'unreachable', message = 'The server did not answer.' } = this.#lastProblem ?? {};
        finish(reject, new FreshetError(code, `No model arrived within ${timeoutMillis} ms. ${message}`));
      };
      const timer = setTimeout(onTimeout, timeoutMillis);
      const stop = this.#emitter.on('update', () => finish(resolve));
      signal?.addEventListener('abort', onAbort);
    });
  }

  #hostSaid(name, detail) {
    if (this.#isDisposed) return;
    switch (name) {
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
      case 'webgpu_failed':
        // A module that could not be fetched says nothing about the graphics driver.
        if (detail.code !== 'module_load_failed') writeLocal(WEBGPU_FAILED_KEY, String(Date.now()));
        this.#emitter.emit('error', detail);
        break;
      default:
        if (name === 'error') this.#lastProblem = detail;
        this.#emitter.emit(name, detail);
    }
  }

  /** A restarted host counts from zero again; the page's progress only rises. */
  #told({ bytesReceived, bytesTotal }) {
    const received = Math.max(this.#progress.bytesReceived, bytesReceived);
    this.#progress = { bytesReceived: received, bytesTotal: Math.max(received, bytesTotal) };
    this.#options.onProgress?.({ ...this.#progress });
    this.#emitter.emit('progress', { ...this.#progress });
  }

  #listen() {
    const listen = (target, name, listener) => {
      target.addEventListener(name, listener);
      this.#stopListening.push(() => target.removeEventListener(name, listener));
    };
    if (typeof window === 'undefined') return;
    const leave = () => {
      if (this.#consent === 'granted') this.#queue.beacon();
    };
    listen(window, 'pagehide', leave);
    listen(window, 'online', () => this.#wake());
    listen(document, 'visibilitychange', () => {
      if (document.visibilityState === 'hidden') {
        leave();
        this.#link?.call('persist').catch(() => {}); // the cache is only an optimisation
      } else {
        this.#wake();
      }
    });
  }

  #wake() {
    this.#link?.call('wake').catch(() => {}); // a host that ended is replaced by the link
    if (this.#consent === 'granted') void this.#queue.flush();
  }

  /** The history given, else the kept one, as the engine takes it. */
  #wireHistory(given) {
    const history = given ?? this.#history.read();
    if (!Array.isArray(history) || !history.every(isHistoryEvent)) throw invalid('history', 'a list of history events');
    return history.map(({ itemId, kind, occurredAt }) => ({ item_id: itemId, kind, occurred_at: occurredAt }));
  }

  async #call(method, ...args) {
    if (this.#isDisposed || !this.#link) throw new FreshetError('disposed', 'This Freshet was disposed.');
    return this.#link.call(method, ...args);
  }

  #userId() {
    this.#memoryUserId ??= this.#options.userId ?? userId();
    return this.#memoryUserId;
  }
}

/**
 * @param {import('../index.d.ts').ConnectOptions} options
 * @param {import('./link.js').Entry} entry
 */
function checkedOptions(options, entry) {
  const { url, model = 'main', backend = entry.backend, timeoutMillis = CONNECT_TIMEOUT_MILLIS } = options ?? {};
  if (typeof window === 'undefined' && typeof self === 'undefined') {
    throw new FreshetError('unsupported', 'Freshet.connect works in a browser only.');
  }
  if (typeof WebAssembly === 'undefined') throw new FreshetError('unsupported', 'This browser has no WebAssembly.');
  if (typeof url !== 'string') throw invalid('url', 'the address of a Freshet server');
  if (typeof model !== 'string' || model === '') throw invalid('model', 'the name of a model');
  if (!entry.backends.includes(backend)) throw invalid('backend', `one of ${entry.backends.join(', ')}`);
  const base = globalThis.location?.href;
  if (!URL.canParse(url, base)) throw invalid('url', 'the address of a Freshet server');
  const absolute = new URL(url, base).href.replace(/\/+$/, '');
  const { worker = true, cache = true, waitForModel = true } = options;
  const assets = absoluteFolder(options.assets, base);
  return { ...options, url: absolute, model, backend, worker, assets, cache, waitForModel, timeoutMillis };
}

/** The address of a folder, with a slash at its end; nothing for nothing. */
function absoluteFolder(folder, base) {
  if (folder === undefined) return undefined;
  if (typeof folder !== 'string' || !URL.canParse(folder, base)) throw invalid('assets', 'the address of a folder');
  return new URL(folder.endsWith('/') ? folder : `${folder}/`, base).href;
}

function isListOfIds(candidates) {
  return Array.isArray(candidates) && candidates.every((itemId) => typeof itemId === 'string');
}

/** The wire form; fields that are not there are left out. */
function wireEvent(event, user_id, liveVersion) {
  const { eventId, kind, itemId, occurredAt, value, impressionId, position, propensity } = event;
  return {
    event_id: eventId,
    kind,
    user_id,
    item_id: itemId,
    occurred_at: Math.round(occurredAt),
    value,
    model_version: event.modelVersion ?? liveVersion ?? undefined,
    impression_id: impressionId,
    position,
    propensity,
  };
}

function abortable(promise, signal) {
  if (!signal) return promise;
  return new Promise((resolve, reject) => {
    const onAbort = () => reject(abortError(signal));
    signal.addEventListener('abort', onAbort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', onAbort));
  });
}
