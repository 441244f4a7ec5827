//! Runs the engine: fetches what it asks for, tells it what arrived, swaps versions, chooses the backend.
//!
//! Lives in the worker, or in the page where workers are refused. It never touches the DOM.
//! The engine itself (bytes in, requests out) is the wasm module; feedback and history are the page's.

import { Backoff } from './backoff.js';
import { loadModule } from './backend.js';
import { Downloads } from './downloads.js';
import { FreshetError, toFreshetError } from './errors.js';
import { Hold } from './hold.js';
import { joinTabs } from './leader.js';
import { Store } from './store.js';
import { Texts, loadTextHost } from './texts.js';
import { watchVersions } from './watch.js';

/**
 * Writing the cache costs an encode of the whole model (0.3 s for 4,000 items with texts), so a busy stream writes it
 * this often at most, and when the page is hidden.
 */
const PERSIST_INTERVAL_MILLIS = 300_000;
const FIRST_PERSIST_MILLIS = 1_500;
/** So long a call may take that is under way when the page ends; one that panicked, or whose device hangs, never settles. */
const LAST_CALL_MILLIS_MAX = 500;
/** Under a pinned root, a page that hears nothing for so long still finds out that what it ranks with has expired. */
const FRESHNESS_INTERVAL_MILLIS = 60_000;
/** As in `shared_model::manifest`. */
const NUM_BUCKETS = 100;
/** Codes of what did not come at all. */
const FETCH_FAILURES = new Set(['unreachable', 'no_model', 'server_error']);

/**
 * @typedef {object} HostConfig
 * @property {string} url base of the server, without a slash at the end
 * @property {string} model
 * @property {'auto' | 'cpu' | 'webgpu'} backend
 * @property {string[]} publicKeys empty: those that the server names
 * @property {string} [rootKey] the pinned root; `publicKeys` are not looked at then
 * @property {boolean} cache
 * @property {boolean} [isPinned] whether no other version is taken than the first that ranks
 * @property {string} [assets] address of a copy of the package, where the bundler makes none
 * @property {import('./choice.js').Remembered} [remembered] of WebGPU on this device
 * @property {number} [numDeviceLosses] graphics devices that this page has lost
 * @property {string} [backendReason] why it begins on the CPU, where that is not as asked for
 */

export class EngineHost {
  #config;
  #runtimes;
  #emit;
  #store = new Store();
  #stop = new AbortController();
  #downloads;
  #hold;
  #backoff = new Backoff();
  #watchBackoff = new Backoff();
  #module;
  #engine;
  #engineBackend = 'cpu';
  #backendReason;
  #keys = [];
  /** What was seen under the pinned root before the reload. @type {Uint8Array | undefined} */
  #edgeState;
  /** Tail of the calls to the engine: it runs one at a time. */
  #tail = Promise.resolve();
  #isPumping = false;
  #isPumpWanted = false;
  #isOnline;
  #hasPanicked = false;
  #persistedVersion = -1;
  #hasPersisted = false;
  /** Newest version that the server was told of as not to be taken. */
  #reportedVersion = -1;
  #persistTimer;
  #freshnessTimer;
  /** Code of what was wrong with the freshness when last looked; told once. @type {string | undefined} */
  #staleCode;
  /** @type {Promise<import('./upgrade.js').Upgrade> | undefined} */
  #upgrade;
  #texts;

  /**
   * @param {HostConfig} config
   * @param {import('./backend.js').Runtimes} runtimes
   * @param {(name: string, detail: object) => void} emit
   */
  constructor(config, runtimes, emit) {
    this.#config = config;
    this.#runtimes = runtimes;
    this.#emit = emit;
    this.#backendReason = config.backendReason ?? '';
    this.#hold = new Hold(config.isPinned ?? false);
    const onProgress = (progress) => emit('progress', progress);
    this.#downloads = new Downloads({ ...config, signal: this.#stop.signal, onProgress });
    const texts = { downloads: this.#downloads, assets: config.assets, signal: this.#stop.signal };
    this.#texts = new Texts(() => loadTextHost(texts), (body) => this.#withEngine(body));
  }

  /** Starts on the CPU with the cached version, and begins to follow the server in the background. */
  async start() {
    const reading = this.#config.cache ? this.#store.get('versions', this.#cacheKey()) : undefined;
    this.#module = await loadModule(this.#runtimes.cpu, this.#config.assets, (message) => this.#panicked(message));
    const cached = await reading;
    this.#keys = this.#config.publicKeys.length > 0 ? this.#config.publicKeys : (cached?.keys ?? []);
    this.#edgeState = this.#config.rootKey ? cached?.edgeState : undefined;
    this.#engine = await this.#open(this.#module, 'cpu');
    if (cached) await this.#restore(cached);
    this.#watchFreshness();
    this.#follow().catch((error) => this.#warn(error));
  }

  // ---- what the page calls -------------------------------------------------------------------

  /** @param {object} request as `rank` of the wasm engine takes it */
  async rank(request) {
    const text = JSON.stringify(request);
    return JSON.parse(await this.#withEngine((engine) => engine.rank(text)));
  }

  /** @param {object} request as `similar` of the wasm engine takes it */
  async similar(request) {
    const text = JSON.stringify(request);
    return JSON.parse(await this.#withEngine((engine) => engine.similar(text)));
  }

  /** @param {object} request as `search` of the wasm engine takes it, with the `text` to look for */
  async search({ text, ...request }) {
    return this.#texts.ask([text], (engine, embedded) => engine.search(JSON.stringify(request), embedded));
  }

  /** @param {object} request as `rank_new` of the wasm engine takes it, with the `texts` of the items */
  async rankNew({ texts, ...request }) {
    return this.#texts.ask(texts, (engine, embedded) => engine.rank_new(JSON.stringify(request), embedded));
  }

  /** Loads what embeds texts. */
  async prepareSearch() {
    await this.#texts.ask([], () => 'null');
  }

  /** Ids of all items of the live version. */
  async itemIds() {
    return JSON.parse(await this.#withEngine((engine) => engine.item_ids()));
  }

  /** Takes no other version than the one that ranks. Answers with its number. */
  async pin() {
    const version = await this.#withEngine((engine) => {
      const { version } = JSON.parse(engine.status());
      if (version === null) throw new FreshetError('no_model', 'There is no version yet that this page could be held at.');
      this.#hold.pin();
      this.#hold.ranks(true);
      return version;
    });
    await this.#tellStatus('pin');
    void this.persist().catch(() => {}); // the cache is only an optimisation: a fresh engine starts from it
    return version;
  }

  /** Takes what came meanwhile, and whatever comes. */
  async unpin() {
    const missed = await this.#withEngine(() => this.#hold.release());
    await this.#tellStatus('pin');
    await this.#settle(); // what had been fetched before
    void (missed === undefined ? this.#pump() : this.#announced(missed));
  }

  /** @param {object} request as `explain` of the wasm engine takes it */
  async explain(request) {
    const text = JSON.stringify(request);
    return JSON.parse(await this.#withEngine((engine) => engine.explain(text)));
  }

  /** Writes the live version to the cache now. */
  async persist() {
    if (!this.#config.cache || this.#stop.signal.aborted) return;
    if (!(await this.#store.isThere())) return; // encoding takes long
    this.#hasPersisted = true;
    const version = await this.#withEngine((engine) => {
      const { version } = JSON.parse(engine.status());
      if (version === null || version === this.#persistedVersion) return undefined;
      const edgeState = engine.edge_state();
      return { version, manifest: engine.signed_manifest(), snapshot: engine.export_snapshot(), edgeState };
    });
    if (version === undefined) return;
    const isStored = await this.#store.putVersion(this.#cacheKey(), { ...version, keys: this.#keys });
    if (isStored) this.#persistedVersion = version.version;
  }

  /** Answers once the engine has ended its calls: a hung one does not. */
  async ping() {
    await this.#withEngine(() => {});
  }

  /** The browser is online again, or the page is visible again: try at once. */
  wake() {
    this.#backoff.wake();
    this.#watchBackoff.wake();
    void this.#checkFreshness(); // timers slept with the page
  }

  async dispose() {
    this.#stop.abort();
    clearTimeout(this.#persistTimer);
    clearInterval(this.#freshnessTimer);
    await Promise.race([this.#tail, new Promise((resolve) => setTimeout(resolve, LAST_CALL_MILLIS_MAX))]);
    this.#endUpgrade(); // in a moment, after the engine has let its device go
    this.#freeEngine();
    await this.#store.close();
  }

  // ---- engine --------------------------------------------------------------------------------

  async #open(module, backend, keys = this.#keys) {
    const { model, rootKey } = this.#config;
    const trust = rootKey ? { root: rootKey } : keys;
    const engine = await module.Engine.open(model, JSON.stringify(trust), backend);
    if (this.#edgeState) {
      try {
        engine.resume(this.#edgeState);
      } catch (error) {
        this.#edgeState = undefined; // of another root, or damaged: the pinned root decides
        this.#warn(error);
      }
    }
    return engine;
  }

  #freeEngine() {
    const engine = this.#engine;
    this.#engine = undefined;
    try {
      engine?.free();
    } catch {
      // it panicked, or is still at work: its instance is dropped
    }
  }

  /** Under a pinned root, expiry is judged at every arrival: by this clock, and by that of the server where it was heard. */
  #tellTime(engine) {
    if (this.#config.rootKey) engine.tell_time(Date.now(), this.#downloads.serverMillis());
  }

  #watchFreshness() {
    if (!this.#config.rootKey) return;
    this.#freshnessTimer = setInterval(() => void this.#checkFreshness(), FRESHNESS_INTERVAL_MILLIS);
    this.#stop.signal.addEventListener('abort', () => clearInterval(this.#freshnessTimer), { once: true });
  }

  /** Ranking goes on with what there is; the page is told once that it must not be trusted any more, and why. */
  async #checkFreshness() {
    if (!this.#config.rootKey || this.#stop.signal.aborted) return;
    try {
      await this.#withEngine((engine) => {
        this.#tellTime(engine);
        engine.check_freshness();
      });
      this.#staleCode = undefined;
    } catch (error) {
      if (error.code === this.#staleCode) return;
      this.#staleCode = error.code;
      this.#warn(error);
    }
  }

  /**
   * Runs `body` with the engine after all earlier calls have ended.
   * @template T
   * @param {(engine: any) => T | Promise<T>} body
   * @returns {Promise<T>}
   */
  #withEngine(body) {
    const outcome = this.#tail.then(async () => {
      if (!this.#engine || this.#hasPanicked) throw new FreshetError('engine_stopped', 'The engine has ended.');
      try {
        return await body(this.#engine);
      } catch (error) {
        throw await this.#judged(error);
      }
    });
    this.#tail = outcome.then(
      () => {},
      () => {}, // the caller gets the error; the next call must still run
    );
    return outcome;
  }

  /** A trap or a lost device ends this host; everything else is the caller's to handle. */
  async #judged(error) {
    if (error instanceof WebAssembly.RuntimeError) this.#panicked(error.message);
    const known = toFreshetError(error, 'internal');
    if (known.code !== 'backend_failed') return known;
    const isLost = this.#engineBackend === 'webgpu' && (await (await this.#upgrade)?.hasLostDevice());
    this.#fatal(isLost ? new FreshetError('device_lost', known.message) : known);
    return known;
  }

  #panicked(message) {
    if (this.#hasPanicked) return;
    this.#hasPanicked = true;
    this.#fatal(new FreshetError('panic', `The engine stopped: ${message}`));
  }

  #fatal(error) {
    if (this.#stop.signal.aborted) return;
    this.#stop.abort();
    this.#emit('fatal', { code: error.code, message: error.message, backend: this.#engineBackend });
  }

  #warn(error) {
    const known = toFreshetError(error);
    if (!this.#stop.signal.aborted) this.#emit('error', { code: known.code, message: known.message });
  }

  async #tellStatus(name) {
    const status = JSON.parse(await this.#withEngine((engine) => engine.status()));
    this.#hold.ranks(status.version !== null);
    this.#emit(name, {
      ...status,
      isPinned: this.#hold.isPinned,
      backend: this.#engineBackend,
      backendReason: this.#backendReason,
      bytesReceived: this.#downloads.bytesReceived,
    });
  }

  // ---- following the server ------------------------------------------------------------------

  async #follow() {
    await this.#drawBucket();
    await this.#ensureKeys();
    if (this.#stop.signal.aborted) return;
    const signal = this.#stop.signal;
    const lead = (tabs) => {
      const onState = (isOnline, reason) => {
        tabs.tellState(isOnline);
        this.#setOnline(isOnline, reason);
      };
      const onVersion = (text) => {
        tabs.tellVersion(text);
        void this.#announced(text);
      };
      const onBytes = (numBytes) => this.#downloads.received(numBytes);
      const options = { url: this.#downloads.watchUrl(), signal, backoff: this.#watchBackoff };
      void watchVersions({ ...options, onVersion, onState, onBytes });
    };
    joinTabs({
      name: `freshet ${this.#config.url} ${this.#config.model}`,
      signal,
      onLead: lead,
      onVersion: (text) => void this.#announced(text),
      onState: (isOnline) => this.#setOnline(isOnline, ''),
    });
    await this.#pump();
  }

  /** One of a hundred, drawn once per browser and model: all that the server hears of it. */
  async #drawBucket() {
    const drawn = Math.floor(Math.random() * NUM_BUCKETS);
    const kept = this.#config.cache ? await this.#store.drawnOnce(`bucket ${this.#cacheKey()}`, drawn) : drawn;
    this.#downloads.sayBucket(kept);
  }

  /** Tells the server, once per version, of what says something of the version and not of this page. */
  async #reportFault(error) {
    if (error?.fault === undefined || this.#stop.signal.aborted) return;
    const { fault, version } = error;
    if (version === undefined || version <= this.#reportedVersion) return;
    this.#reportedVersion = version;
    await this.#downloads.report(version, fault);
  }

  /**
   * Without configured keys, those that the server names are trusted: then https protects, as it protects the scripts.
   * A server with other keys than the cached ones is another server, and the cached version is given up.
   */
  async #ensureKeys() {
    const isPinned = Boolean(this.#config.rootKey) || this.#config.publicKeys.length > 0;
    while (!isPinned && !this.#stop.signal.aborted) {
      try {
        await this.#adoptKeys(await this.#downloads.keys());
        this.#backoff.reset();
        return;
      } catch (error) {
        await this.#waitAfter(error);
      }
    }
  }

  async #adoptKeys(served) {
    const isSameServer = served.some((key) => this.#keys.includes(key));
    if (isSameServer) return;
    const isOtherServer = this.#keys.length > 0;
    const fresh = await this.#open(this.#module, 'cpu', served); // throws where a key is malformed
    await this.#withEngine((engine) => {
      this.#keys = served;
      this.#engine = fresh;
      this.#engineBackend = 'cpu';
      engine.free();
      this.#endUpgrade();
    });
    if (!isOtherServer) return;
    this.#persistedVersion = -1;
    this.#hasPersisted = false;
    await this.#store.remove('versions', [this.#cacheKey()]);
    this.#warn(new FreshetError('identity_changed', 'The server has other keys than before; its model is fetched anew.'));
    await this.#tellStatus('update');
  }

  #setOnline(isOnline, reason) {
    if (this.#isOnline === isOnline) return;
    this.#isOnline = isOnline;
    this.#emit('online', { isOnline, reason: reason ?? '' });
    if (!isOnline) return;
    this.#backoff.wake();
    // Keys may have been revoked meanwhile.
    void this.#withEngine((engine) => engine.refresh_key_set())
      .then(() => this.#pump())
      .catch((error) => this.#warn(error));
  }

  async #announced(text) {
    try {
      await this.#withEngine((engine) => {
        if (this.#hold.isHeld) return this.#hold.miss(text);
        this.#tellTime(engine);
        engine.on_announcement(new TextEncoder().encode(text));
      });
      await this.#settle();
    } catch (error) {
      this.#warn(error);
      void this.#reportFault(error);
    }
    await this.#pump();
  }

  /** Does what the engine asks for until it asks for nothing. */
  async #pump() {
    this.#isPumpWanted = true;
    if (this.#isPumping) return;
    this.#isPumping = true;
    try {
      while (this.#isPumpWanted && !this.#stop.signal.aborted) {
        this.#isPumpWanted = false;
        await this.#fetchWanted();
      }
    } catch (error) {
      this.#warn(error);
    } finally {
      this.#isPumping = false;
    }
  }

  async #fetchWanted() {
    for (;;) {
      const text = await this.#withEngine((engine) => (this.#hold.isHeld ? undefined : engine.next_request()));
      if (text === undefined || this.#stop.signal.aborted) return;
      try {
        const withEngine = (body) =>
          this.#withEngine((engine) => {
            this.#tellTime(engine);
            return body(engine);
          });
        await this.#downloads.perform(JSON.parse(text), withEngine);
        await this.#settle();
        this.#backoff.reset();
      } catch (error) {
        if (this.#stop.signal.aborted) return;
        await this.#withEngine((engine) => engine.on_failure(text));
        // What does not come is waited for; what came and was refused is told.
        if (!FETCH_FAILURES.has(error?.code)) this.#warn(error);
        void this.#reportFault(error);
        await this.#waitAfter(error);
      }
    }
  }

  async #waitAfter(error) {
    const { code, message } = toFreshetError(error, 'unreachable');
    if (!this.#stop.signal.aborted) this.#emit('waiting', { code, message });
    await this.#backoff.wait(this.#stop.signal, error?.retryAfterMillis ?? 0);
  }

  /** Makes a verified candidate live, if there is one. */
  async #settle() {
    let hasSwapped = false;
    try {
      hasSwapped = await this.#withEngine(async (engine) => {
        const hasSwapped = !this.#hold.isHeld && (await engine.settle());
        if (hasSwapped) this.#hold.ranks(true);
        return hasSwapped;
      });
    } catch (error) {
      this.#warn(error);
      void this.#reportFault(error);
    }
    if (!hasSwapped) return;
    await this.#tellStatus('update');
    this.#persistSoon();
    this.#considerWebGpu();
  }

  // ---- cache ---------------------------------------------------------------------------------

  #cacheKey() {
    return `${this.#config.url} ${this.#config.model}`;
  }

  /** The engine checks signature and hash as if the version came from the network. */
  async #restore({ manifest, snapshot, version }) {
    try {
      await this.#withEngine((engine) => engine.restore(manifest, snapshot));
      const { expires_at } = JSON.parse(await this.#withEngine((engine) => engine.status()));
      // Under a pinned root it ranks until something newer is believed; see docs/keys.md on wrong clocks.
      if (!this.#config.rootKey && expires_at <= Date.now()) throw new FreshetError('expired', 'The cached model is too old to be trusted.');
    } catch (error) {
      await this.#store.remove('versions', [this.#cacheKey()]);
      const fresh = await this.#open(this.#module, 'cpu');
      await this.#withEngine((engine) => {
        this.#engine = fresh;
        engine.free();
      });
      this.#warn(error);
      return;
    }
    this.#persistedVersion = version;
    this.#hasPersisted = true;
    await this.#tellStatus('update');
    this.#considerWebGpu();
  }

  #persistSoon() {
    if (!this.#config.cache || this.#persistTimer !== undefined) return;
    const delay = this.#hasPersisted ? PERSIST_INTERVAL_MILLIS : FIRST_PERSIST_MILLIS;
    this.#persistTimer = setTimeout(() => {
      this.#persistTimer = undefined;
      this.persist().catch((error) => this.#warn(error));
    }, delay);
  }

  // ---- WebGPU --------------------------------------------------------------------------------

  #considerWebGpu() {
    const runtime = this.#runtimes.webgpu;
    if (!runtime || this.#config.backend === 'cpu') return;
    this.#upgrade ??= runtime.loadUpgrade().then(({ Upgrade }) => new Upgrade(this.#pageOf(runtime)));
    const considered = this.#upgrade.then((upgrade) => upgrade.consider());
    considered.catch((error) => this.#warn(new FreshetError('module_load_failed', `WebGPU could not be tried: ${error.message}`)));
  }

  /** @returns {import('./upgrade.js').Page} */
  #pageOf(runtime) {
    return {
      config: this.#config,
      runtime,
      signal: this.#stop.signal,
      withCpu: (body) => this.#withEngine(body),
      open: (module) => this.#open(module, 'webgpu'),
      catchUp: (withEngine) => this.#catchUp(withEngine),
      swap: (opened, how) => this.#swap(opened, how),
      whenFree: (signal) => this.#hold.whenFree(signal),
      explain: (reason) => this.#explain(reason),
      emit: this.#emit,
      onLateFailure: (error) => this.#fatal(error),
    };
  }

  #explain(reason) {
    this.#backendReason = reason;
    // The engine may have ended meanwhile; then the page is told by its end.
    this.#tellStatus('backend').catch(() => {});
  }

  #endUpgrade() {
    this.#upgrade?.then((upgrade) => upgrade.end()).catch(() => {}); // there is none where its script did not come
    this.#upgrade = undefined;
  }

  /** Brings an engine that does not rank yet to the newest version, as far as what it asks for comes. */
  async #catchUp(withEngine) {
    if (this.#hold.isHeld) return; // that would leave the version that is held
    for (;;) {
      const text = await withEngine((engine) => engine.next_request());
      if (text === undefined || this.#stop.signal.aborted) return;
      try {
        await this.#downloads.perform(JSON.parse(text), withEngine);
      } catch {
        await withEngine((engine) => engine.on_failure(text));
        return; // it asks again once it ranks
      }
      await withEngine((engine) => engine.settle());
    }
  }

  /** Ranks with another engine from now on, if it holds what may rank. */
  async #swap(opened, { isCopied, signal }) {
    let failure; // of the other engine, so none of the one that ranks
    const outcome = await this.#withEngine(async (cpu) => {
      if (signal.aborted) return 'ended';
      if (versionOf(opened.engine) < versionOf(cpu)) {
        if (!isCopied) return 'behind';
        await opened.copy(cpu).catch((error) => (failure = error));
        if (failure) return 'behind';
      }
      if (versionOf(opened.engine) > versionOf(cpu) && this.#hold.isHeld) return 'ahead';
      this.#engine = opened.take();
      this.#engineBackend = 'webgpu';
      cpu.free();
      void this.#pump();
      return 'taken';
    });
    if (failure) throw failure;
    return outcome;
  }
}

function versionOf(engine) {
  return JSON.parse(engine.status()).version;
}
