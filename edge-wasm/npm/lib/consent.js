//! Whether feedback may leave the device, and under which pseudonymous id.
//!
//! Denied means: nothing is sent, no id exists, and nothing about the visitor is written to storage.

const USER_KEY = 'freshet:user';

/**
 * @param {'granted' | 'denied' | 'auto' | undefined} asked
 * @returns {'granted' | 'denied'} `auto` follows Global Privacy Control
 */
export function resolveConsent(asked) {
  if (asked === 'granted' || asked === 'denied') return asked;
  const isOptedOut = typeof navigator !== 'undefined' && navigator.globalPrivacyControl === true;
  return isOptedOut ? 'denied' : 'granted';
}

/** A random id, also where `crypto.randomUUID` is missing because the page is not served over https. */
export function randomId() {
  if (typeof crypto.randomUUID === 'function') return crypto.randomUUID();
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
}

/** Reads `key` from local storage; `null` where storage is forbidden or empty. */
export function readLocal(key) {
  try {
    return localStorage.getItem(key);
  } catch {
    return null; // storage is forbidden here
  }
}

/** Writes `key`, or removes it for `null`; does nothing where storage is forbidden or full. Answers whether it did. */
export function writeLocal(key, text) {
  try {
    if (text === null) localStorage.removeItem(key);
    else localStorage.setItem(key, text);
    return true;
  } catch {
    return false; // storage is only an optimisation: the page goes on with what it has in memory
  }
}

/** The pseudonymous id of this browser, made on first use. */
export function userId() {
  const known = readLocal(USER_KEY);
  if (known) return known;
  const made = randomId();
  writeLocal(USER_KEY, made);
  return made;
}

export function forgetUserId() {
  writeLocal(USER_KEY, null);
}
