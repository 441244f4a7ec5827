//! The options of a connection, checked, with what is left out filled in.

import { FreshetError, invalid } from './errors.js';
import { ID, isId } from './ids.js';
import { isBetween } from './numbers.js';

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
  if (!isBetween(timeoutMillis, 0, Number.POSITIVE_INFINITY)) throw invalid('timeoutMillis', 'a number from 0', timeoutMillis);
  checkTrusted(options);
  const { worker = true, cache = true, waitForModel = true, personal = false, consent = 'auto' } = options;
  const { userId, visitTokens = false } = options;
  checkFlag('personal', personal);
  checkFlag('visitTokens', visitTokens);
  if (options.key !== undefined && !isIngestKey(options.key)) throw invalid('key', 'an ingest key', typeof options.key);
  if (userId !== undefined && !isId(userId)) throw invalid('userId', ID, userId);
  const assets = absoluteFolder(options.assets, base);
  const filled = { url: absolute, model, backend, worker, assets, cache, waitForModel, personal, visitTokens, consent, timeoutMillis };
  return { ...options, ...filled };
}

/** @param {string} field @param {unknown} value */
export function checkFlag(field, value) {
  if (typeof value !== 'boolean') throw invalid(field, 'true or false', value);
}

/** As the server wants them, and safe in a URL. What was given instead may be another secret, and is not told. */
function isIngestKey(key) {
  return typeof key === 'string' && /^[\w.~-]{16,512}$/.test(key);
}

/** What is given as a key and is none must not be taken for no key, which would trust the server's. */
function checkTrusted({ rootKey, publicKey }) {
  const isKey = (key) => typeof key === 'string' && key !== '';
  if (rootKey !== undefined && !isKey(rootKey)) throw invalid('rootKey', 'a key in base64', rootKey);
  if (publicKey === undefined) return;
  const keys = [publicKey].flat();
  if (keys.length === 0 || !keys.every(isKey)) throw invalid('publicKey', 'a key in base64, or a list of them', publicKey);
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
