//! Waiting with limits: a signal of the caller's, an end, and a time.

import { FreshetError, abortError } from './errors.js';

/** The longest that timers of browsers can take, 25 days; what is longer is for ever. */
const TIMER_MILLIS_MAX = 2 ** 31 - 1;

/**
 * Waits for `promise` until one of the limits is reached. What it stands for goes on.
 * @template T
 * @param {Promise<T>} promise
 * @param {object} limits
 * @param {AbortSignal} [limits.signal] of the caller
 * @param {AbortSignal} limits.end of whoever waits
 * @param {() => Error} limits.ended what to reject with at the end
 * @param {number} limits.timeoutMillis may be infinite
 * @param {() => Error} limits.late what to reject with when the time is up
 * @returns {Promise<T>}
 */
export function patiently(promise, { signal, end, ended, timeoutMillis, late }) {
  return new Promise((resolve, reject) => {
    const finish = (settle, value) => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', onAbort);
      end.removeEventListener('abort', onEnd);
      settle(value);
    };
    const onEnd = () => finish(reject, ended());
    const onAbort = () => finish(reject, abortError(signal));
    const onLate = () => finish(reject, late());
    const timer = timeoutMillis <= TIMER_MILLIS_MAX ? setTimeout(onLate, timeoutMillis) : undefined;
    signal?.addEventListener('abort', onAbort);
    end.addEventListener('abort', onEnd);
    promise.then(
      (value) => finish(resolve, value),
      (error) => finish(reject, error),
    );
  });
}

/**
 * Resolves at the next version; rejects where no engine is left that could take it.
 * @param {import('./emitter.js').Emitter} emitter
 * @returns {Promise<void>}
 */
export function nextVersion(emitter) {
  return new Promise((resolve, reject) => {
    const stops = [
      emitter.on('update', () => finish(resolve)),
      emitter.on('error', ({ code, message }) => {
        if (code === 'engine_stopped') finish(() => reject(new FreshetError(code, message)));
      }),
    ];
    const finish = (settle) => {
      for (const stop of stops) stop();
      settle();
    };
  });
}
