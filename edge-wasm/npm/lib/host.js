//! Owns the engine: opens it, answers calls with it one at a time, replaces it by one on WebGPU, and ends with it.
//!
//! Lives in the worker, or in the page where workers are refused. It never touches the DOM.
//! What the engine asks for is fetched in `follow.js`, and what it holds is kept in `cache.js`. The engine itself (bytes in,
//! requests out) is the wasm module; feedback and history are the page's.

import { loadModule } from './backend.js';
import { VersionCache } from './cache.js';
import { Downloads } from './downloads.js';
import { FreshetError, toFreshetError } from './errors.js';
import { Follower } from './follow.js';
import { Hold } from './hold.js';
import { Rules } from './rules.js';
import { Store } from './store.js';
import { Texts, loadTextHost } from './texts.js';

/** So long a call may take that is under way when the page ends; one that panicked, or whose device hangs, never settles. */
const LAST_CALL_MILLIS_MAX = 500;
/** Under a pinned root, a page that hears nothing for so long still finds out that what it ranks with has expired. */
const FRESHNESS_INTERVAL_MILLIS = 60_000;

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
  #stop = new AbortController();
  #cache;
  #downloads;
  #hold;
  #follower;
  #module;
  #engine;
  #engineBackend = 'cpu';
  #backendReason;
  #keys = [];
  /** What was seen under the pinned root before the reload. @type {Uint8Array | undefined} */
  #edgeState;
  /** Tail of the calls to the engine: it runs one at a time. */
  #tail = Promise.resolve();
  #hasPanicked = false;
  /** Code of what was wrong with the freshness when last looked; told once. @type {string | undefined} */
  #staleCode;
  /** @type {Promise<import('./upgrade.js').Upgrade> | undefined} */
  #upgrade;
  #texts;
  #rules;

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
    const { signal } = this.#stop;
    const onProgress = (progress) => emit('progress', progress);
    this.#downloads = new Downloads({ ...config, signal, onProgress });
    const texts = { downloads: this.#downloads, assets: config.assets, signal };
    this.#texts = new Texts(() => loadTextHost(texts), (body) => this.#withEngine(body), () => this.#follower.pump());
    const read = (stored) => this.#kept(stored);
    this.#cache = new VersionCache({ store: new Store(), config, signal, read, onError: (error) => this.#warn(error) });
    this.#rules = new Rules({
      signal,
      downloads: this.#downloads,
      cache: this.#cache,
      withEngine: (body) => this.#withEngine(body),
      pump: () => this.#follower.pump(),
      onChanged: () => void this.#tellStatus('moderation').catch(() => {}), // a host that ended is replaced
      warn: (error) => this.#warn(error),
    });
    this.#follower = new Follower(this.#followed());
  }

  /** Starts on the CPU with the cached version, and begins to follow the server in the background. */
  async start() {
    const finding = this.#cache.find();
    this.#module = await loadModule(this.#runtimes.cpu, this.#config.assets, (message) => this.#panicked(message));
    const [cached] = await Promise.all([finding, this.#rules.find()]);
    this.#keys = this.#config.publicKeys.length > 0 ? this.#config.publicKeys : (cached?.keys ?? []);
    this.#edgeState = this.#config.rootKey ? cached?.edgeState : undefined;
    this.#engine = await this.#open(this.#module, 'cpu');
    if (cached) await this.#restore(cached);
    this.#watchFreshness();
    this.#follower.start().catch((error) => this.#warn(error));
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
    void this.#cache.write().catch(() => {}); // the cache is only an optimisation: a fresh engine starts from it
    return version;
  }

  /** Takes what came meanwhile, and whatever comes. */
  async unpin() {
    const missed = await this.#withEngine(() => this.#hold.release());
    await this.#tellStatus('pin');
    await this.#follower.settle(); // what had been fetched before
    void (missed === undefined ? this.#follower.pump() : this.#follower.announced(missed));
  }

  /** @param {object} request as `explain` of the wasm engine takes it */
  async explain(request) {
    const text = JSON.stringify(request);
    return JSON.parse(await this.#withEngine((engine) => engine.explain(text)));
  }

  /** Writes the live version to the cache now. */
  async persist() {
    await this.#cache.write();
  }

  /** Answers once the engine has ended its calls: a hung one does not. */
  async ping() {
    await this.#withEngine(() => {});
  }

  /** The browser is online again, or the page is visible again: try at once. */
  wake() {
    this.#follower.wake();
    void this.#checkFreshness(); // timers slept with the page
  }

  async dispose() {
    this.#stop.abort();
    await Promise.race([this.#tail, new Promise((resolve) => setTimeout(resolve, LAST_CALL_MILLIS_MAX))]);
    this.#endUpgrade(); // in a moment, after the engine has let its device go
    this.#freeEngine();
    await this.#cache.close();
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
    this.#rules.giveTo(engine); // where its keys are not known yet, they are fetched
    return engine;
  }

  /** The engine checks signature and hash as if the version came from the network. */
  async #restore({ manifest, snapshot, version }) {
    try {
      await this.#withEngine((engine) => engine.restore(manifest, snapshot));
      const { expires_at } = JSON.parse(await this.#withEngine((engine) => engine.status()));
      // Under a pinned root it ranks until something newer is believed; see docs/keys.md on wrong clocks.
      if (!this.#config.rootKey && expires_at <= Date.now()) throw new FreshetError('expired', 'The cached model is too old to be trusted.');
    } catch (error) {
      await this.#cache.forget();
      const fresh = await this.#open(this.#module, 'cpu');
      await this.#withEngine((engine) => {
        this.#engine = fresh;
        engine.free();
      });
      this.#warn(error);
      return;
    }
    this.#cache.setStored(version);
    await this.#tellStatus('update');
    this.#considerWebGpu();
  }

  /** What ranks, for the cache, unless that is version `stored`. @returns {Promise<import('./cache.js').Kept | undefined>} */
  #kept(stored) {
    return this.#withEngine((engine) => {
      const version = versionOf(engine);
      if (version === null || version === stored) return undefined;
      const edgeState = engine.edge_state();
      return { version, manifest: engine.signed_manifest(), snapshot: engine.export_snapshot(), edgeState, keys: this.#keys };
    });
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
    const { signal } = this.#stop;
    if (!this.#config.rootKey || signal.aborted) return;
    const timer = setInterval(() => void this.#checkFreshness(), FRESHNESS_INTERVAL_MILLIS);
    signal.addEventListener('abort', () => clearInterval(timer), { once: true });
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

  // ---- the server ----------------------------------------------------------------------------

  /** @returns {import('./follow.js').Followed} */
  #followed() {
    return {
      config: this.#config,
      signal: this.#stop.signal,
      cache: this.#cache,
      downloads: this.#downloads,
      hold: this.#hold,
      rules: this.#rules,
      withEngine: (body) => this.#withEngine(body),
      tellTime: (engine) => this.#tellTime(engine),
      adoptKeys: (served) => this.#adoptKeys(served),
      onSwapped: () => this.#swapped(),
      emit: this.#emit,
      warn: (error) => this.#warn(error),
    };
  }

  async #adoptKeys(served) {
    const isSameServer = served.some((key) => this.#keys.includes(key));
    if (isSameServer) return;
    const isOtherServer = this.#keys.length > 0;
    if (isOtherServer) this.#rules.forget();
    const fresh = await this.#open(this.#module, 'cpu', served); // throws where a key is malformed
    await this.#withEngine((engine) => {
      this.#keys = served;
      this.#engine = fresh;
      this.#engineBackend = 'cpu';
      engine.free();
      this.#endUpgrade();
    });
    if (!isOtherServer) return;
    await this.#cache.forget();
    this.#warn(new FreshetError('identity_changed', 'The server has other keys than before; its model is fetched anew.'));
    await this.#tellStatus('update');
  }

  /** Another version ranks. */
  async #swapped() {
    await this.#tellStatus('update');
    this.#cache.writeSoon();
    // A version that ranks proves that the keys are known; before them, a note on rules is refused.
    if (!this.#rules.isKnown) void this.#rules.fetch();
    this.#considerWebGpu();
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
      if (!this.#rules.giveTo(opened.engine)) void this.#rules.fetch();
      this.#engine = opened.take();
      this.#engineBackend = 'webgpu';
      cpu.free();
      void this.#follower.pump();
      return 'taken';
    });
    if (failure) throw failure;
    return outcome;
  }
}

function versionOf(engine) {
  return JSON.parse(engine.status()).version;
}
