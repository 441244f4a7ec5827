//! The move from the CPU to WebGPU: a second engine on the graphics adapter, tried beside the one that ranks.
//!
//! Fetched when a version ranks on the CPU and WebGPU is not ruled out. The first engine ranks and follows the server
//! all the while; compiling shaders may take seconds. Where the page may choose, it moves if the same rankings are
//! clearly faster (`choice.js`).

import { loadModule } from './backend.js';
import { choiceByCpu, choiceByTimes, recalled, sizeBucket } from './choice.js';
import { GpuDevice, findAdapter, nameOf } from './device.js';
import { FreshetError, toFreshetError } from './errors.js';
import { assertAgreement, expectedScores, liveVersion, medianMillis, typicalRequest, warmUp } from './trial.js';

/** So often a lost device is followed by another; a driver that loses more is broken. */
const DEVICE_LOSSES_MAX = 2;
/** @type {import('./choice.js').Choice} */
const WANTED = { backend: 'webgpu', reason: 'WebGPU was asked for, and agrees with the CPU.' };

/**
 * @template T
 * @typedef {(body: (engine: any) => T | Promise<T>) => Promise<T>} WithEngine
 *
 * @typedef {object} Page what the host brings
 * @property {import('./host.js').HostConfig} config
 * @property {import('./backend.js').Runtime} runtime
 * @property {AbortSignal} signal of the host's end
 * @property {WithEngine<any>} withCpu
 * @property {(module: any) => Promise<any>} open
 * @property {(withEngine: WithEngine<any>) => Promise<void>} catchUp to the newest version, as far as it comes
 * @property {(opened: WebGpuEngine, how: {isCopied: boolean, signal: AbortSignal}) => Promise<Outcome>} swap if it holds
 *   what may rank; one that is behind is given that first with `isCopied`
 * @property {(signal: AbortSignal) => Promise<void>} whenFree not pinned any more
 * @property {(reason: string) => void} explain why this backend is used
 * @property {(name: string, detail: object) => void} emit
 * @property {(error: FreshetError) => void} onLateFailure of the engine that was taken
 *
 * @typedef {'taken' | 'behind' | 'ahead' | 'ended'} Outcome
 */

export class Upgrade {
  /** @type {Page} */
  #page;
  #stop = new AbortController();
  #isUnderWay = false;
  #hasFailed = false;
  #numLosses;
  /** Size of the catalogue for which it was last decided. @type {number | undefined} */
  #bucket;
  /** @type {import('./choice.js').Remembered} */
  #remembered;
  /** @type {WebGpuEngine | undefined} */
  #taken;

  /** @param {Page} page */
  constructor(page) {
    this.#page = page;
    this.#numLosses = page.config.numDeviceLosses ?? 0;
    this.#remembered = page.config.remembered ?? {};
    page.signal.addEventListener('abort', () => this.#stop.abort(), { once: true });
    if (page.signal.aborted) this.#stop.abort();
  }

  /** Decides, and again when the catalogue has grown to another size; what was taken stays. */
  async consider() {
    if (this.#isUnderWay || this.#hasFailed || this.#taken || this.#stop.signal.aborted) return;
    this.#isUnderWay = true;
    try {
      const { num_items } = JSON.parse(await this.#page.withCpu((cpu) => cpu.status()));
      const bucket = sizeBucket(num_items);
      if (bucket === this.#bucket) return;
      this.#bucket = bucket;
      const reason = await this.#decide(bucket);
      if (!this.#stop.signal.aborted) this.#page.explain(reason);
    } catch (error) {
      this.#failed(error);
    } finally {
      this.#isUnderWay = false;
    }
  }

  /** Whether the engine that was taken failed with its device. */
  async hasLostDevice() {
    return (await this.#taken?.device.isLost()) ?? false;
  }

  /** Ends what is tried, and frees what was taken after its engine has been. */
  end() {
    this.#stop.abort();
    this.#taken?.device.end();
  }

  /** @returns {Promise<string>} why the backend is used that is used now */
  async #decide(bucket) {
    const { config, withCpu } = this.#page;
    const isForced = config.backend === 'webgpu';
    const request = await withCpu(typicalRequest);
    const cpuMillis = isForced ? undefined : await medianMillis(withCpu, request);
    const byCpu = choiceByCpu(cpuMillis);
    if (byCpu) return byCpu.reason;
    for (;;) {
      const { adapter, reason } = await findAdapter(isForced);
      if (!adapter) return reason;
      const known = this.#recalled(adapter, bucket);
      const choice = isForced ? WANTED : known;
      if (choice?.backend === 'cpu') return choice.reason;
      const outcome = await this.#try(adapter, { request, choice, cpuMillis, bucket });
      if (outcome !== 'lost') return outcome;
    }
  }

  /** @returns {import('./choice.js').Choice | undefined} */
  #recalled(adapter, bucket) {
    const device = `${nameOf(adapter)} ${this.#page.runtime.integrity}`;
    if (this.#remembered.device !== device) this.#remember({ device, failure: undefined, measured: {} });
    return recalled(this.#remembered, device, bucket, Date.now());
  }

  #remember(part) {
    this.#remembered = { ...this.#remembered, ...part };
    this.#page.emit('remember', part);
  }

  /** @returns {Promise<string>} the reason, or `lost` where the device was lost and another may be tried */
  async #try(adapter, plan) {
    const { config, runtime, open, onLateFailure } = this.#page;
    const opened = new WebGpuEngine(adapter);
    try {
      await opened.load({ runtime, assets: config.assets, open, onLateFailure });
      await this.#test(opened, plan.request);
      const choice = plan.choice ?? (await this.#measure(opened, plan));
      if (choice.backend === 'cpu') return choice.reason;
      await this.#swap(opened);
      if (opened.isTaken) this.#taken = opened;
      if (opened.isTaken && this.#stop.signal.aborted) opened.device.end(); // in the very moment
      return choice.reason;
    } catch (error) {
      const isLost = !this.#stop.signal.aborted && (await opened.device.isLost());
      if (!isLost) throw error;
      this.#lost(error);
      return 'lost';
    } finally {
      if (!opened.isTaken) opened.end();
    }
  }

  async #test(opened, request) {
    const { version, expected } = await this.#page.withCpu(async (cpu) => {
      const expected = await expectedScores(cpu, request);
      return { version: liveVersion(cpu), expected };
    });
    await opened.withEngine((webgpu) => {
      webgpu.restore(version.manifest, version.snapshot);
      return assertAgreement(webgpu, expected);
    });
    await warmUp(opened.withEngine, request);
  }

  /** @returns {Promise<import('./choice.js').Choice>} */
  async #measure(opened, { request, cpuMillis, bucket }) {
    const webGpuMillis = await medianMillis(opened.withEngine, request);
    const measured = { cpuMillis, webGpuMillis, atMillis: Date.now() };
    this.#remember({ measured: { ...this.#remembered.measured, [bucket]: measured } });
    return choiceByTimes(measured);
  }

  /**
   * Swaps once the new engine holds the version that may rank. It hears of no versions, so it catches up once; what the
   * CPU takes meanwhile is copied.
   */
  async #swap(opened) {
    const { swap, catchUp, whenFree, explain } = this.#page;
    const { signal } = this.#stop;
    let isCopied = false;
    for (;;) {
      const outcome = await swap(opened, { isCopied, signal });
      if (outcome === 'taken' || outcome === 'ended') return;
      if (outcome === 'ahead') {
        explain('WebGPU is ready, and waits until this page is not pinned any more.');
        await whenFree(signal);
      } else {
        await catchUp(opened.withEngine);
        isCopied = true;
      }
    }
  }

  #lost(error) {
    this.#numLosses += 1;
    const { message } = toFreshetError(error);
    this.#page.emit('device_lost', { code: 'device_lost', message });
    if (this.#numLosses > DEVICE_LOSSES_MAX) throw new FreshetError('device_lost', message);
  }

  #failed(error) {
    this.#hasFailed = true;
    if (this.#stop.signal.aborted) return;
    const { code, message } = toFreshetError(error);
    this.#page.explain(message);
    this.#page.emit('webgpu_failed', { code, message });
  }
}

/** A second engine, which does not rank until it is taken. */
export class WebGpuEngine {
  #engine;
  #fail = (_error) => {};
  /** A call that panics never settles, so each is raced against the failure. @type {Promise<never>} */
  #failure = new Promise((_, reject) => (this.#fail = reject));
  isTaken = false;

  constructor(adapter) {
    this.device = new GpuDevice(adapter);
    this.#failure.catch(() => {}); // there is not always a call under way
  }

  get engine() {
    return this.#engine;
  }

  /** @param {Pick<Page, 'runtime' | 'open' | 'onLateFailure'> & {assets?: string}} options */
  async load({ runtime, assets, open, onLateFailure }) {
    const failed = (code, message) => {
      const error = new FreshetError(code, message);
      if (this.isTaken) onLateFailure(error);
      else this.#fail(error);
    };
    void this.device.lost.then((message) => failed('device_lost', `The graphics device was lost: ${message}`));
    const module = await loadModule(runtime, assets, (message) => failed('panic', `The WebGPU module stopped: ${message}`));
    this.#engine = await this.device.openWith(() => Promise.race([this.#failure, open(module)]));
  }

  /** @type {WithEngine<any>} */
  withEngine = (body) => Promise.race([this.#failure, (async () => body(this.#engine))()]);

  /** Takes over the version of `cpu`, whose own failure is thrown at once. @returns {Promise<void>} */
  copy(cpu) {
    const { manifest, snapshot } = liveVersion(cpu);
    return this.withEngine((webgpu) => webgpu.restore(manifest, snapshot));
  }

  /** From now on a failure is the new owner's to handle. */
  take() {
    this.isTaken = true;
    return this.#engine;
  }

  end() {
    try {
      this.#engine?.free();
    } catch {
      // it panicked, or is still at work: its instance is dropped
    }
    this.device.end();
  }
}
