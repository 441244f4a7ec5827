//! The one error type of the package: a stable `code` for programs, a sentence for people.

const SHOWN_CHARS_MAX = 60;

/** An error with a stable `code`; see `FreshetErrorCode` in `index.d.ts`. */
export class FreshetError extends Error {
  /**
   * @param {string} code stable identifier
   * @param {string} message one sentence that a person understands
   * @param {{cause?: unknown, fault?: string, version?: number}} [options] `fault`: what the server is to be told of
   *   `version`
   */
  constructor(code, message, options) {
    super(message, options?.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'FreshetError';
    this.code = code;
    if (options?.fault === undefined) return;
    this.fault = options.fault;
    this.version = options.version;
  }
}

/**
 * Turns anything thrown into a `FreshetError`, keeping its code where it has one.
 * @param {unknown} thrown
 * @param {string} [code] used where `thrown` has none
 */
export function toFreshetError(thrown, code = 'internal') {
  if (thrown instanceof FreshetError) return thrown;
  const message = thrown instanceof Error ? thrown.message : String(thrown);
  const ownCode = typeof thrown?.code === 'string' ? thrown.code : code;
  return new FreshetError(ownCode, message, { cause: thrown, fault: thrown?.fault, version: thrown?.version });
}

/** An option that cannot be taken. @param {string} field @param {string} expected @param {unknown} actual */
export function invalid(field, expected, actual) {
  return new FreshetError('invalid_option', `The option "${field}" has to be ${expected}; it is ${shown(actual)}.`);
}

/** A value of any kind and length, in a few words. */
function shown(value) {
  if (Array.isArray(value)) return `a list of ${value.length}`;
  if (typeof value === 'function' || (typeof value === 'object' && value !== null)) return `of type ${typeof value}`;
  const text = typeof value === 'string' ? JSON.stringify(value) : String(value);
  return text.length <= SHOWN_CHARS_MAX ? text : `${text.slice(0, SHOWN_CHARS_MAX)}… of ${String(value).length} characters`;
}

/** Throws if `signal` was aborted. @param {AbortSignal | undefined} signal */
export function throwIfAborted(signal) {
  if (signal?.aborted) throw abortError(signal);
}

/** @param {AbortSignal} signal */
export function abortError(signal) {
  return new FreshetError('aborted', 'The call was aborted.', { cause: signal.reason });
}

/** For whoever asks a Freshet that was disposed, or waits for it then. */
export function disposedError() {
  return new FreshetError('disposed', 'This Freshet was disposed.');
}

/**
 * Waits for `promise` until `signal` is aborted. What the promise stands for goes on; only the waiting ends.
 * @template T
 * @param {Promise<T>} promise
 * @param {AbortSignal | undefined} signal
 * @returns {Promise<T>}
 */
export function abortable(promise, signal) {
  if (!signal) return promise;
  return new Promise((resolve, reject) => {
    if (signal.aborted) reject(abortError(signal));
    const onAbort = () => reject(abortError(signal));
    signal.addEventListener('abort', onAbort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', onAbort));
  });
}
