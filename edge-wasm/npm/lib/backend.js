//! What a wasm module of the package is, and how one is loaded. Whether WebGPU is worth having is asked in `upgrade.js`.

import { FreshetError } from './errors.js';

/**
 * @typedef {object} Runtime one wasm module
 * @property {'cpu' | 'webgpu' | 'text'} name
 * @property {string} file its name
 * @property {string} integrity its hash, as `fetch` takes it
 * @property {() => URL} url where the package keeps it
 * @property {() => Promise<any>} create a fresh instance of its glue
 * @property {() => Promise<{default: string}>} [inlined] its bytes in base64, where they cannot be fetched
 * @property {() => Promise<typeof import('./upgrade.js')>} [loadUpgrade] what moves the page to WebGPU
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
