//! The page's side of the engine host: a module worker, or the page itself where workers are refused.
//!
//! A host that ends (panic, lost graphics device, worker error) is replaced by a fresh one, which starts
//! from the cache; calls that were waiting are sent again once. After three replacements it gives up.
//! Lost devices are counted by themselves: the next host tries WebGPU again twice, and stays on the CPU then.

import { FreshetError, toFreshetError } from './errors.js';
import { whenEnded } from './life.js';

const RESTARTS_MAX = 3;
/** As in `upgrade.js`, which is not there for the CPU alone. */
const DEVICE_LOSSES_MAX = 2;
/** Reading the worker's files takes a round trip or two; a worker that says nothing for so long was refused. */
const WORKER_LOAD_MILLIS_MAX = 10_000;
/** No call takes so long; one that does means a hung graphics driver. */
const CALL_MILLIS_MAX = 30_000;
/** Its module is downloaded first, which a slow connection may take long for. */
const START_MILLIS_MAX = 180_000;
/** These may download an encoder first, for as long as bytes come: it is the engine that has to answer meanwhile. */
const DOWNLOADING = new Set(['search', 'rankNew', 'prepareSearch']);

/**
 * @typedef {(config: import('./host.js').HostConfig, emit: (name: string, detail: object) => void,
 *   inlined: () => Promise<{default: string}>) => import('./host.js').EngineHost} OpenHost
 *
 * @typedef {object} Entry what an entry of the package brings
 * @property {string[]} backends that may be asked for, the default first
 * @property {string} backend the default
 * @property {string} workerFile name of its worker in a copy of the package
 * @property {() => Worker} openWorker
 * @property {() => Promise<{openHost: OpenHost}>} loadHost for a page in which workers are refused
 * @property {() => Promise<{default: string}>} inlined the CPU module as text
 */

export class EngineLink {
  #config;
  #entry;
  #isWorkerWanted;
  /** @type {'worker' | 'page' | null} */
  #place = null;
  #emit;
  /** @type {{post: (message: object) => void, end: () => void} | undefined} */
  #transport;
  #calls = new Map();
  #nextId = 1;
  #numCrashes = 0;
  #numDeviceLosses = 0;
  /** What the host ranks with: a hung one does not say so itself. */
  #backend = 'cpu';
  #isEnded = false;
  #endError = new FreshetError('disposed', 'This Freshet has ended.');
  /** The newest start, which is the one that counts. @type {Promise<void>} */
  #started = Promise.resolve();

  /**
   * @param {import('./host.js').HostConfig} config
   * @param {Entry & {isWorkerWanted: boolean}} entry
   * @param {(name: string, detail: any) => void} emit
   */
  constructor(config, entry, emit) {
    this.#config = config;
    this.#entry = entry;
    this.#isWorkerWanted = entry.isWorkerWanted;
    this.#emit = emit;
  }

  /** Starts a host; resolves when it is ready for calls, or another that replaces it. */
  start() {
    void this.#newStart();
    return this.#whenStarted();
  }

  /**
   * @param {string} method of the host
   * @param {...any} args
   */
  async call(method, ...args) {
    await this.#whenStarted();
    return this.#send(method, args);
  }

  /** What the next host is to begin with. @param {Partial<import('./host.js').HostConfig>} changes */
  configure(changes) {
    this.#config = { ...this.#config, ...changes };
  }

  /** Where the host runs: in a worker, or in the page where workers are refused or not wanted. */
  get place() {
    return this.#place;
  }

  /** Ends the host. Waiting calls are rejected. */
  async dispose() {
    if (this.#isEnded) return;
    if (this.#transport) {
      const farewell = this.#send('dispose', []);
      await Promise.race([farewell.catch(() => {}), new Promise((resolve) => setTimeout(resolve, 500))]);
    }
    this.#end(new FreshetError('disposed', 'This Freshet was disposed.'));
  }

  #newStart() {
    const started = this.#startHost();
    started.catch(() => {}); // whoever waits for it is told
    this.#started = started;
    return started;
  }

  /** A host that ends in its start says nothing of the one that replaces it. */
  async #whenStarted() {
    for (;;) {
      const started = this.#started;
      const failure = await started.then(
        () => undefined,
        (error) => error,
      );
      if (started !== this.#started) continue;
      if (failure) throw this.#isEnded ? this.#endError : failure;
      return;
    }
  }

  async #startHost() {
    const transport = await this.#connect();
    if (this.#isEnded) {
      transport.end(); // disposed while it was being opened
      throw new FreshetError('disposed', 'This Freshet was disposed.');
    }
    this.#transport = transport;
    await this.#send('start', [this.#config]);
  }

  async #connect() {
    if (this.#isWorkerWanted && typeof Worker !== 'undefined') {
      try {
        const transport = await this.#connectWorker();
        this.#place = 'worker';
        return transport;
      } catch (error) {
        this.#isWorkerWanted = false;
        const message = `No worker is to be had here, so ranking runs in the page: ${error.message}`;
        this.#emit('error', { code: 'worker_refused', message });
      }
    }
    this.#place = 'page';
    return this.#connectInline();
  }

  #connectWorker() {
    return new Promise((resolve, reject) => {
      const worker = this.#openWorker();
      let isLoaded = false;
      const refuse = (message) => {
        worker.terminate();
        reject(new Error(message));
      };
      const timer = setTimeout(() => refuse('the worker did not answer'), WORKER_LOAD_MILLIS_MAX);
      const transport = { post: (message) => worker.postMessage(message), end: () => worker.terminate() };
      worker.onmessage = ({ data }) => {
        if (data.event === 'loaded') {
          isLoaded = true;
          clearTimeout(timer);
          resolve(transport);
        } else if (data.event === 'alive') {
          whenEnded(data.detail.lock, () => {
            if (this.#transport === transport) this.#hostEnded({ code: 'worker_failed', message: 'The worker was ended.' });
          });
        } else if (this.#transport === transport) {
          this.#received(data);
        }
      };
      worker.onerror = (event) => {
        event.preventDefault?.();
        clearTimeout(timer);
        const message = event.message ?? 'the worker could not be loaded';
        if (!isLoaded) refuse(message);
        else if (this.#transport === transport) this.#hostEnded({ code: 'worker_failed', message });
      };
    });
  }

  #openWorker() {
    const { assets } = this.#config;
    if (!assets) return this.#entry.openWorker();
    return new Worker(new URL(this.#entry.workerFile, assets), { type: 'module', name: 'freshet' });
  }

  async #connectInline() {
    const { openHost } = await this.#entry.loadHost();
    let host;
    const transport = {
      post: async ({ id, method, args }) => {
        try {
          if (method === 'start') host = openHost(args[0], (event, detail) => deliver({ event, detail }), this.#entry.inlined);
          deliver({ id, result: await host[method](...(method === 'start' ? [] : args)) });
        } catch (thrown) {
          const { code, message } = toFreshetError(thrown);
          deliver({ id, error: { code, message } });
        }
      },
      end: () => void host?.dispose().catch(() => {}), // the instance is dropped either way
    };
    const deliver = (data) => {
      if (this.#transport === transport) this.#received(data);
    };
    return transport;
  }

  #send(method, args, isResent = false) {
    if (this.#isEnded || !this.#transport) {
      return Promise.reject(this.#endError);
    }
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      this.#calls.set(id, { method, args, isResent, resolve, reject, stopWatching: this.#watch(method) });
      this.#transport.post({ id, method, args });
    });
  }

  /** Finds out a host that hangs in a call. @returns {() => void} ends the watch */
  #watch(method) {
    if (DOWNLOADING.has(method)) {
      const timer = setInterval(() => this.#send('ping', []).catch(() => {}), CALL_MILLIS_MAX); // its own watch tells
      return () => clearInterval(timer);
    }
    const hung = () => this.#hostEnded({ code: 'hung', message: `The engine did not answer "${method}".` });
    const timer = setTimeout(hung, method === 'start' ? START_MILLIS_MAX : CALL_MILLIS_MAX);
    return () => clearTimeout(timer);
  }

  #received({ id, result, error, event, detail }) {
    if (event === 'fatal') {
      this.#hostEnded(detail);
      return;
    }
    if (event === 'device_lost') {
      this.#numDeviceLosses += 1; // of a device that did not rank yet: its host goes on
      return;
    }
    if (event !== undefined) {
      this.#backend = detail.backend ?? this.#backend; // a status says it
      this.#emit(event, detail);
      return;
    }
    const call = this.#calls.get(id);
    if (!call) return;
    this.#calls.delete(id);
    call.stopWatching();
    if (error) call.reject(new FreshetError(error.code, error.message));
    else call.resolve(result);
  }

  /** Replaces a host that ended. */
  #hostEnded({ code, message, backend = this.#backend }) {
    if (this.#isEnded) return;
    this.#backend = 'cpu';
    this.#transport?.end();
    this.#transport = undefined;
    const waiting = [...this.#calls.values()];
    this.#calls.clear();
    for (const call of waiting) call.stopWatching();

    const isDeviceLost = code === 'device_lost';
    if (isDeviceLost) this.#numDeviceLosses += 1;
    else this.#numCrashes += 1;
    if (this.#numCrashes > RESTARTS_MAX) {
      const error = new FreshetError('engine_stopped', `The engine ended too often, last because: ${message}`);
      for (const call of waiting) call.reject(error);
      this.#end(error);
      this.#emit('error', { code: error.code, message: error.message });
      return;
    }
    this.#config = { ...this.#config, numDeviceLosses: this.#numDeviceLosses };
    if (backend === 'webgpu' && !(isDeviceLost && this.#numDeviceLosses <= DEVICE_LOSSES_MAX)) {
      this.#config = { ...this.#config, backend: 'cpu', backendReason: `WebGPU failed here: ${message}` };
      this.#emit('webgpu_failed', { code, message });
    }
    const numRestarts = this.#numCrashes + this.#numDeviceLosses;
    this.#emit('restart', { code, message, numRestarts });
    const started = this.#newStart();
    started.catch((error) => {
      const isReplaced = started !== this.#started; // it ended in its start
      if (!isReplaced) this.#hostEnded({ code: error.code, message: error.message });
    });
    for (const call of waiting) {
      if (call.method === 'start') call.reject(new FreshetError(code, message)); // the new host has a start of its own
      else void this.#resend(call);
    }
  }

  /** A call that was waiting when the host ended. */
  async #resend({ method, args, isResent, resolve, reject }) {
    try {
      if (isResent) throw new FreshetError('engine_stopped', 'The engine ended twice during this call.');
      await this.#whenStarted();
      resolve(await this.#send(method, args, true));
    } catch (error) {
      reject(error);
    }
  }

  #end(error) {
    this.#isEnded = true;
    this.#endError = error;
    this.#transport?.end();
    this.#transport = undefined;
    for (const call of this.#calls.values()) {
      call.stopWatching();
      call.reject(error);
    }
    this.#calls.clear();
  }
}
