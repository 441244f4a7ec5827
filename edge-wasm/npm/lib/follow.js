//! Follows the server: hears of versions, fetches what the engine asks for, and makes live what has arrived whole.
//!
//! Not here: the engine, which is reached through its host (`host.js`), and how one fetch goes (`downloads.js`).

import { Backoff } from './backoff.js';
import { toFreshetError } from './errors.js';
import { joinTabs } from './leader.js';
import { watchVersions } from './watch.js';

/** As in `shared_model::manifest`. */
const NUM_BUCKETS = 100;
/** Codes of what did not come at all. */
const FETCH_FAILURES = new Set(['unreachable', 'no_model', 'server_error']);

/**
 * @typedef {object} Followed what the host brings
 * @property {import('./host.js').HostConfig} config
 * @property {AbortSignal} signal of the host's end
 * @property {import('./cache.js').VersionCache} cache
 * @property {import('./downloads.js').Downloads} downloads
 * @property {import('./hold.js').Hold} hold
 * @property {import('./rules.js').Rules} rules of the server's operators
 * @property {<T>(body: (engine: any) => T | Promise<T>) => Promise<T>} withEngine
 * @property {(engine: any) => void} tellTime by which what arrives is judged
 * @property {(keys: string[]) => Promise<void>} adoptKeys that the server names
 * @property {() => Promise<void>} onSwapped another version ranks
 * @property {(name: string, detail: object) => void} emit
 * @property {(error: unknown) => void} warn
 */

export class Follower {
  /** @type {Followed} */
  #host;
  #backoff = new Backoff();
  #watchBackoff = new Backoff();
  #isPumping = false;
  #isPumpWanted = false;
  #isOnline;
  /** Newest version that the server was told of as not to be taken. */
  #reportedVersion = -1;

  /** @param {Followed} host */
  constructor(host) {
    this.#host = host;
  }

  /** Begins to follow, until the host ends. */
  async start() {
    await this.#drawBucket();
    await this.#ensureKeys();
    const { config, signal, rules } = this.#host;
    if (signal.aborted) return;
    void rules.fetch();
    joinTabs({
      name: `freshet ${config.url} ${config.model}`,
      signal,
      onLead: (tabs) => this.#watch(tabs),
      onVersion: (text) => void this.announced(text),
      onRules: (revision) => void rules.fetch(revision),
      onState: (isOnline) => this.#setOnline(isOnline, ''),
    });
    await this.pump();
  }

  /** Another version is out. @param {string} text the announcement */
  async announced(text) {
    const { hold, withEngine, tellTime, warn } = this.#host;
    try {
      await withEngine((engine) => {
        if (hold.isHeld) return hold.miss(text);
        tellTime(engine);
        engine.on_announcement(new TextEncoder().encode(text));
      });
      await this.settle();
    } catch (error) {
      warn(error);
      void this.#reportFault(error);
    }
    await this.pump();
  }

  /** Does what the engine asks for until it asks for nothing. */
  async pump() {
    this.#isPumpWanted = true;
    if (this.#isPumping) return;
    this.#isPumping = true;
    try {
      while (this.#isPumpWanted && !this.#host.signal.aborted) {
        this.#isPumpWanted = false;
        await this.#fetchWanted();
      }
    } catch (error) {
      this.#host.warn(error);
    } finally {
      this.#isPumping = false;
    }
  }

  /** Makes a verified candidate live, if there is one. */
  async settle() {
    const { hold, withEngine, onSwapped, warn } = this.#host;
    let hasSwapped = false;
    try {
      hasSwapped = await withEngine(async (engine) => {
        const hasSwapped = !hold.isHeld && (await engine.settle());
        if (hasSwapped) hold.ranks(true);
        return hasSwapped;
      });
    } catch (error) {
      warn(error);
      void this.#reportFault(error);
    }
    if (hasSwapped) await onSwapped();
  }

  /** Tries at once what waits. */
  wake() {
    this.#backoff.wake();
    this.#watchBackoff.wake();
    this.#host.rules.wake();
  }

  /** One of a hundred, drawn once per browser and model: all that the server hears of it. */
  async #drawBucket() {
    const { cache, downloads } = this.#host;
    downloads.sayBucket(await cache.drawnOnce('bucket', Math.floor(Math.random() * NUM_BUCKETS)));
  }

  /**
   * Without configured keys, those that the server names are trusted: then https protects, as it protects the scripts.
   * A server with other keys than the cached ones is another server, and the cached version is given up.
   */
  async #ensureKeys() {
    const { config, signal, downloads, adoptKeys } = this.#host;
    const isPinned = Boolean(config.rootKey) || config.publicKeys.length > 0;
    while (!isPinned && !signal.aborted) {
      try {
        await adoptKeys(await downloads.keys());
        this.#backoff.reset();
        return;
      } catch (error) {
        await this.#waitAfter(error);
      }
    }
  }

  /** Listens for all tabs of this origin. @param {import('./leader.js').Tabs} tabs */
  #watch(tabs) {
    const { signal, downloads, rules } = this.#host;
    const onState = (isOnline, reason) => {
      tabs.tellState(isOnline);
      this.#setOnline(isOnline, reason);
    };
    const onVersion = (text) => {
      tabs.tellVersion(text);
      void this.announced(text);
    };
    const onRules = (revision) => {
      tabs.tellRules(revision);
      void rules.fetch(revision);
    };
    const onBytes = (numBytes) => downloads.received(numBytes);
    const options = { url: downloads.watchUrl(), signal, backoff: this.#watchBackoff };
    void watchVersions({ ...options, onVersion, onRules, onState, onBytes });
  }

  #setOnline(isOnline, reason) {
    const { withEngine, emit, warn } = this.#host;
    if (this.#isOnline === isOnline) return;
    this.#isOnline = isOnline;
    emit('online', { isOnline, reason: reason ?? '' });
    if (!isOnline) return;
    this.#backoff.wake();
    // Keys may have been revoked meanwhile.
    void withEngine((engine) => engine.refresh_key_set())
      .then(() => this.pump())
      .catch(warn);
  }

  async #fetchWanted() {
    const { signal, downloads, hold, withEngine, tellTime, warn } = this.#host;
    const withTime = (body) =>
      withEngine((engine) => {
        tellTime(engine);
        return body(engine);
      });
    for (;;) {
      const text = await withEngine((engine) => (hold.isHeld ? undefined : engine.next_request()));
      if (text === undefined || signal.aborted) return;
      try {
        await downloads.perform(JSON.parse(text), withTime);
        await this.settle();
        this.#backoff.reset();
      } catch (error) {
        if (signal.aborted) return;
        await withEngine((engine) => engine.on_failure(text));
        // What does not come is waited for; what came and was refused is told.
        if (!FETCH_FAILURES.has(error?.code)) warn(error);
        void this.#reportFault(error);
        await this.#waitAfter(error);
      }
    }
  }

  async #waitAfter(error) {
    const { signal, emit } = this.#host;
    const { code, message } = toFreshetError(error, 'unreachable');
    if (!signal.aborted) emit('waiting', { code, message });
    await this.#backoff.wait(signal, error?.retryAfterMillis ?? 0);
  }

  /** Tells the server, once per version, of what says something of the version and not of this page. */
  async #reportFault(error) {
    const { signal, downloads } = this.#host;
    if (error?.fault === undefined || signal.aborted) return;
    const { fault, version } = error;
    if (version === undefined || version <= this.#reportedVersion) return;
    this.#reportedVersion = version;
    await downloads.report(version, fault);
  }
}
