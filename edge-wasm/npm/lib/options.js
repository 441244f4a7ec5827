//! The options of a connection, checked, with what is left out filled in.

import { FreshetError, invalid } from './errors.js';

const CONNECT_TIMEOUT_MILLIS = 30_000;

/**
 * @param {import('../index.d.ts').ConnectOptions} options
 * @param {import('./link.js').Entry} entry
 */
export function checkedOptions(options, entry) {
  const { url, model = 'main', backend = entry.backend, timeoutMillis = CONNECT_TIMEOUT_MILLIS } = options ?? {};
  if (typeof window === 'undefined' && typeof self === 'undefined') {
    throw new FreshetError('unsupported', 'Freshet.connect works in a browser only.');
  }
  if (typeof WebAssembly === 'undefined') throw new FreshetError('unsupported', 'This browser has no WebAssembly.');
  if (typeof url !== 'string') throw invalid('url', 'the address of a Freshet server', url);
  if (typeof model !== 'string' || model === '') throw invalid('model', 'the name of a model', model);
  if (!entry.backends.includes(backend)) throw invalid('backend', `one of ${entry.backends.join(', ')}`, backend);
  const base = globalThis.location?.href;
  const absolute = absoluteAddress(url, base)?.replace(/\/+$/, '');
  if (absolute === undefined) throw invalid('url', 'the address of a Freshet server', url);
  const { worker = true, cache = true, waitForModel = true, personal = false, consent = 'auto' } = options;
  checkPersonal(personal);
  const assets = absoluteFolder(options.assets, base);
  return { ...options, url: absolute, model, backend, worker, assets, cache, waitForModel, personal, consent, timeoutMillis };
}

/** @param {any} personal */
export function checkPersonal(personal) {
  if (typeof personal !== 'boolean') throw invalid('personal', 'true or false', personal);
}

/** The address of a folder, with a slash at its end; nothing for nothing. */
function absoluteFolder(folder, base) {
  if (folder === undefined) return undefined;
  const address = typeof folder === 'string' ? absoluteAddress(folder.endsWith('/') ? folder : `${folder}/`, base) : undefined;
  if (address === undefined) throw invalid('assets', 'the address of a folder', folder);
  return address;
}

/** Nothing for what is no address. */
function absoluteAddress(address, base) {
  try {
    return new URL(address, base).href;
  } catch {
    return undefined;
  }
}
