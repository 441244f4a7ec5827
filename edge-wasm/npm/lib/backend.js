//! The two wasm modules: loading them, and the question whether WebGPU is worth using here.

import { FreshetError } from './errors.js';

/** Adapters that compute on the CPU: correct, but slower than the CPU module. */
const SOFTWARE_ADAPTER = /swiftshader|llvmpipe|lavapipe|basic render|software/i;
/** Scores of the two backends may differ by rounding, not by more. */
const PARITY_TOLERANCE = 2e-3;
const PARITY_ITEMS = 10;

/**
 * Asks the browser for a WebGPU adapter.
 * @returns {Promise<{isUsable: boolean, isSoftware: boolean, reason: string}>}
 */
export async function probeWebGpu() {
  const no = (reason) => ({ isUsable: false, isSoftware: false, reason });
  if (typeof navigator === 'undefined' || !navigator.gpu) return no('This browser has no WebGPU.');
  let adapter;
  try {
    adapter = await navigator.gpu.requestAdapter();
  } catch (error) {
    return no(`The browser refused a WebGPU adapter: ${error}`);
  }
  if (!adapter) return no('This device has no graphics adapter for WebGPU.');
  // Without it the compute runtime cannot create its queue.
  if (!adapter.features.has('timestamp-query')) return no('The graphics adapter has no timestamp queries.');
  const about = adapter.info ?? {};
  const words = [about.vendor, about.architecture, about.device, about.description].join(' ');
  const isSoftware = Boolean(about.isFallbackAdapter ?? adapter.isFallbackAdapter) || SOFTWARE_ADAPTER.test(words);
  const reason = isSoftware ? 'The graphics adapter is computed in software.' : 'WebGPU is available.';
  return { isUsable: true, isSoftware, reason };
}

/**
 * @typedef {object} Runtime one wasm module
 * @property {'cpu' | 'webgpu'} name
 * @property {string} file its name
 * @property {string} integrity its hash, as `fetch` takes it
 * @property {() => URL} url where the package keeps it
 * @property {() => Promise<any>} create a fresh instance of its glue
 * @property {() => Promise<{default: string}>} [inlined] its bytes in base64, where they cannot be fetched
 *
 * @typedef {{cpu: Runtime, webgpu?: Runtime}} Runtimes
 */

/**
 * Loads and starts a fresh instance of a wasm module. A panic poisons an instance, so it is reported through `onPanic`.
 * @param {Runtime} runtime
 * @param {string | undefined} assets address of a copy of the package, where the bundler makes none
 * @param {(message: string) => void} onPanic
 */
export async function loadModule(runtime, assets, onPanic) {
  try {
    const module = await runtime.create();
    await module.init({ module_or_path: await bytesOf(runtime, assets) });
    module.on_panic(onPanic);
    return module;
  } catch (error) {
    const message = `The ${runtime.name} module could not be loaded: ${error?.message ?? error}`;
    throw new FreshetError('module_load_failed', message, { cause: error });
  }
}

/** A response, so that compiling begins while bytes arrive; the bytes themselves where there is no file to fetch. */
async function bytesOf({ file, url, integrity, inlined }, assets) {
  const address = assets ? new URL(`dist/${file}`, assets) : url();
  try {
    const response = await fetch(address, { integrity, credentials: 'same-origin' });
    if (!response.ok) throw new Error(`${address} answered ${response.status}`);
    return response;
  } catch (error) {
    if (!inlined) throw error;
    const text = atob((await inlined()).default);
    return Uint8Array.from(text, (character) => character.charCodeAt(0));
  }
}

/**
 * @typedef {object} WebGpuEngine
 * @property {any} [engine] missing where there is no adapter worth using
 * @property {string} reason a sentence for the visitor
 * @property {(expected: Expected) => Promise<void>} assertAgreement throws if it scores otherwise than the CPU
 * @property {<T>(body: (engine: any) => T | Promise<T>) => Promise<T>} withEngine rejects if the module panics
 * @property {() => void} take from now on a panic is the new owner's to handle
 *
 * @typedef {object} Expected a version with the scores that the CPU gives its best items
 * @property {Uint8Array} manifest
 * @property {Uint8Array} snapshot
 * @property {object} request
 * @property {{item_id: string, score: number}[]} items
 */

/**
 * Opens an engine on the graphics adapter, if there is one worth using.
 * @param {object} options
 * @param {Runtime} options.runtime
 * @param {string} [options.assets]
 * @param {boolean} options.isSoftwareAllowed
 * @param {(module: any) => Promise<any>} options.open
 * @param {(message: string) => void} options.onLatePanic
 * @returns {Promise<WebGpuEngine>}
 * @throws {FreshetError} the adapter is there but fails
 */
export async function openWebGpu({ runtime, assets, isSoftwareAllowed, open, onLatePanic }) {
  const probe = await probeWebGpu();
  if (!probe.isUsable) return { reason: probe.reason };
  if (probe.isSoftware && !isSoftwareAllowed) return { reason: probe.reason };

  // A call that panics never settles, so each is raced against the panic.
  let isTaken = false;
  let fail = () => {};
  const panic = new Promise((_, reject) => (fail = reject));
  panic.catch(() => {}); // there is not always a call under way
  const onPanic = (message) => {
    if (isTaken) onLatePanic(message);
    else fail(new FreshetError('panic', `The WebGPU module stopped: ${message}`));
  };
  const module = await loadModule(runtime, assets, onPanic);
  const engine = await Promise.race([panic, open(module)]);
  const withEngine = (body) => Promise.race([panic, (async () => body(engine))()]);
  return {
    engine,
    reason: 'WebGPU agrees with the CPU.',
    assertAgreement: (expected) => withEngine((webgpu) => assertAgreement(webgpu, expected)),
    withEngine,
    take: () => (isTaken = true),
  };
}

/**
 * The live version of `cpu` and its best items.
 * @returns {Promise<Expected>}
 */
export async function expectedScores(cpu, { history, nowMillis }) {
  const request = { history, k: PARITY_ITEMS, excludeSeen: false, nowMillis };
  const { items } = JSON.parse(await cpu.rank(JSON.stringify(request)));
  return { manifest: cpu.signed_manifest(), snapshot: cpu.export_snapshot(), request, items };
}

async function assertAgreement(webgpu, { manifest, snapshot, request, items }) {
  webgpu.restore(manifest, snapshot);
  const candidates = items.map((item) => item.item_id);
  const actual = JSON.parse(await webgpu.rank(JSON.stringify({ ...request, candidates }))).items;
  const scoreOf = new Map(actual.map((item) => [item.item_id, item.score]));
  for (const { item_id, score } of items) {
    const other = scoreOf.get(item_id);
    const tolerance = PARITY_TOLERANCE * Math.max(1, Math.abs(score));
    if (other === undefined || !(Math.abs(other - score) <= tolerance)) {
      const message = `WebGPU scored ${item_id} as ${other}, the CPU as ${score}; staying on the CPU.`;
      throw new FreshetError('self_test_failed', message);
    }
  }
}
