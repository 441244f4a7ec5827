//! Whether a worker still lives. One that the browser ends says nothing, but its locks are let go, and the page hears that.
//!
//! Where there are no Web Locks, a worker that was ended is found out when a call has waited too long.

import { randomId } from './consent.js';

/** In a worker: holds a lock for as long as it lives. @param {(lock: string) => void} onHeld told the name of the lock */
export function holdLife(onHeld) {
  const lock = `freshet worker ${randomId()}`;
  const hold = () => {
    onHeld(lock);
    return new Promise(() => {});
  };
  requestLock(lock, hold);
}

/** In the page. @param {string} lock of a worker @param {() => void} onEnd called once that worker has ended */
export function whenEnded(lock, onEnd) {
  requestLock(lock, onEnd);
}

async function requestLock(lock, callback) {
  try {
    await navigator.locks.request(lock, callback);
  } catch {
    // Missing, or refused here.
  }
}
