//! The engine as the page has it: when it is ready, which version ranks, and calls that wait for one.
//!
//! Not here: where it runs and what replaces one that ended (`link.js`), and what it is asked (`questions.js`).

import { readLocal, writeLocal } from './consent.js';
import { FreshetError, disposedError } from './errors.js';
import { EngineLink } from './link.js';
import { nextVersion, patiently } from './patience.js';

/** What `choice.js` goes by. */
const WEBGPU_KEY = 'freshet:webgpu';

export class PageEngine {
  #options;
  #entry;
  #emitter;
  #status;
  #onStarted;
  #onOnline;
  #end = new AbortController();
  /** @type {EngineLink | undefined} */
  #link;
  /** Settles when this page can rank, or cannot. @type {Promise<void> | undefined} */
  #ready;
  #isStarted = false;
  #isOnline = false;
  #lastProblem;
  /** Status of the engine as of the version that ranks; nothing where none does. */
  #version;
  /** Whether one ranked before, so that another comes. */
  #hadVersion = false;
  #progress = { bytesReceived: 0, bytesTotal: 0 };
  /** Counts the calls of `pin` and `unpin`: the newest decides. */
  #holdTurn = 0;
  /** Ids of the live version, for filters; items are only ever added. @type {string[]} */
  #itemIds = [];

  /**
   * @param {object} parts
   * @param {import('../index.d.ts').ConnectOptions} parts.options checked
   * @param {import('./link.js').Entry} parts.entry
   * @param {import('./emitter.js').Emitter} parts.emitter of the page
   * @param {() => import('../index.d.ts').FreshetStatus} parts.status what `update` and `backend` tell
   * @param {() => void} parts.onStarted called once a host takes calls, with or without a version
   * @param {() => void} parts.onOnline called whenever the server is reached again
   */
  constructor({ options, entry, emitter, status, onStarted, onOnline }) {
    this.#options = options;
    this.#entry = entry;
    this.#emitter = emitter;
    this.#status = status;
    this.#onStarted = onStarted;
    this.#onOnline = onOnline;
  }

  /** Its part of the status of the page. */
  get status() {
    const live = this.#version;
    return {
      version: live?.version ?? null,
      backend: live?.backend ?? null,
      backendReason: live?.backendReason ?? '',
      runsIn: this.#link?.place ?? null,
      isOnline: this.#isOnline,
      isPinned: live?.isPinned ?? false,
      moderationRevision: live?.moderation_revision ?? null,
      learnedThrough: live?.learned_through ?? null,
      stateHash: live?.state_hash ?? null,
      numItems: live?.num_items ?? 0,
      createdAt: live?.created_at ?? null,
      ageMillis: live?.created_at == null ? null : Math.max(0, Date.now() - live.created_at),
      bytesReceived: this.#progress.bytesReceived,
    };
  }

  get version() {
    return this.#version?.version;
  }

  /** Resolves when this page can rank. */
  start() {
    this.#ready = patiently(this.#getReady(), { ...this.#limits(), signal: this.#options.signal });
    return this.#ready;
  }

  /**
   * @param {string} method of the host
   * @param {...any} args
   */
  async call(method, ...args) {
    if (this.#isDisposed) throw disposedError();
    await this.#whenReady();
    if (this.#isDisposed || !this.#link) throw disposedError();
    try {
      return await this.#link.call(method, ...args);
    } catch (error) {
      if (error.code !== 'no_model' || !this.#hadVersion) throw error;
      // There was one: an engine that replaces another, or another server, has to be waited for.
      await patiently(nextVersion(this.#emitter), this.#limits());
      return this.#link.call(method, ...args);
    }
  }

  /** Ids of all items of the live version. @returns {Promise<string[]>} */
  async itemIds() {
    await this.#whenReady();
    if (this.#itemIds.length !== this.#version?.num_items) this.#itemIds = await this.call('itemIds');
    return this.#itemIds;
  }

  /**
   * @param {AbortSignal} [signal] of who would unpin, and does not where it never heard that it was pinned
   * @returns {Promise<number>} the version that it is held at
   */
  async pin(signal) {
    const turn = this.#nextHoldTurn();
    const version = await this.call('pin');
    const isNewest = turn === this.#holdTurn;
    if (isNewest && signal?.aborted) await this.unpin();
    else if (isNewest) this.#link.configure({ isPinned: true }); // an engine that replaces this one is pinned too
    return version;
  }

  async unpin() {
    this.#nextHoldTurn();
    this.#link?.configure({ isPinned: false });
    await this.call('unpin');
  }

  /** Writes the live version to the cache: the page may be going away unseen. */
  persist() {
    this.#link?.call('persist').catch(() => {}); // the cache is only an optimisation
  }

  /** The page is looked at again, or online again. */
  wake() {
    this.#link?.call('wake').catch(() => {}); // a host that ended is replaced by the link
  }

  async dispose() {
    this.#end.abort();
    await this.#link?.dispose();
  }

  get #isDisposed() {
    return this.#end.signal.aborted;
  }

  async #getReady() {
    await this.#startHost();
    this.#isStarted = true;
    this.#onStarted();
    if (this.#options.waitForModel && !this.#version) await nextVersion(this.#emitter);
  }

  async #startHost() {
    const { url, key, model, cache, worker, assets, publicKey = [], rootKey, backend } = this.#options;
    const publicKeys = [publicKey].flat();
    const config = { url, key, model, cache, publicKeys, rootKey, assets, backend, remembered: readRemembered() };
    const entry = { ...this.#entry, isWorkerWanted: Boolean(worker) };
    if (typeof worker === 'function') entry.openWorker = worker;
    this.#link = new EngineLink(config, entry, (name, detail) => this.#hostSaid(name, detail));
    await this.#link.start();
  }

  #limits() {
    const { timeoutMillis } = this.#options;
    return { end: this.#end.signal, timeoutMillis, ended: disposedError, late: () => this.#lateError() };
  }

  #lateError() {
    const { timeoutMillis } = this.#options;
    if (!this.#isStarted) {
      return new FreshetError('module_load_failed', `The engine did not start within ${timeoutMillis} ms.`);
    }
    const { code = 'unreachable', message = 'The server did not answer.' } = this.#lastProblem ?? {};
    return new FreshetError(code, `No model arrived within ${timeoutMillis} ms. ${message}`);
  }

  /** Where it did not get ready, the call itself says why. */
  async #whenReady() {
    await this.#ready?.catch(() => {});
  }

  #hostSaid(name, detail) {
    if (this.#isDisposed) return;
    switch (name) {
      case 'pin':
        this.#ranks(detail);
        break;
      case 'moderation':
        this.#ranks(detail);
        if (!this.#version) break; // the first list is ranked under these rules
        this.#emitter.emit('update', this.#status());
        this.#emitter.emit('moderation', this.#status());
        break;
      case 'update':
      case 'backend':
        this.#ranks(detail);
        if (this.#version) this.#emitter.emit(name, this.#status()); // else it was given up: the server is another
        break;
      case 'progress':
        this.#progressed(detail);
        break;
      case 'online':
        this.#isOnline = detail.isOnline;
        if (detail.isOnline) this.#onOnline();
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

  /** @param {{version: number | null}} status of the engine */
  #ranks(status) {
    this.#version = status.version === null ? undefined : status;
    this.#hadVersion ||= this.#version !== undefined;
  }

  /** Another tab may have remembered something else meanwhile. @param {import('./choice.js').Remembered} part */
  #remember(part) {
    const remembered = { ...readRemembered(), ...part };
    writeLocal(WEBGPU_KEY, JSON.stringify(remembered));
    this.#link.configure({ remembered });
  }

  /** A restarted host counts from zero again; the page's progress only rises. */
  #progressed({ bytesReceived, bytesTotal }) {
    const received = Math.max(this.#progress.bytesReceived, bytesReceived);
    this.#progress = { bytesReceived: received, bytesTotal: Math.max(received, bytesTotal) };
    this.#emitter.emit('progress', { ...this.#progress });
  }

  #nextHoldTurn() {
    this.#holdTurn += 1;
    return this.#holdTurn;
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
