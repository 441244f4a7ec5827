//! Whether feedback may leave the device, and under which pseudonymous id.
//!
//! Denied means: nothing is sent, no id exists, and nothing about the visitor is written to storage.

import { invalid } from './errors.js';

const USER_KEY = 'freshet:user';
/** Since when consent is given, written when a page is left. */
const GRANTED_KEY = 'freshet:granted';

/**
 * @param {unknown} asked
 * @returns {'granted' | 'denied'} `auto` follows Global Privacy Control
 */
export function resolveConsent(asked) {
  if (asked === 'granted' || asked === 'denied') return asked;
  if (asked !== 'auto') throw invalid('consent', "'granted', 'denied' or 'auto'", asked); // no misspelt word is a yes
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

/**
 * For a page that is left with consent, and may come back as it was without having heard of other tabs.
 * @returns {string | null} for `isStillGranted`
 */
export function markGranted() {
  if (readLocal(GRANTED_KEY) === null) writeLocal(GRANTED_KEY, String(Date.now()));
  return readLocal(GRANTED_KEY);
}

/** Whether consent was not withdrawn since `mark` was made. Nobody knows where storage is forbidden. @param {string | null} mark */
export function isStillGranted(mark) {
  return mark === null || readLocal(GRANTED_KEY) === mark;
}

/** What is kept of a consent that is no more. */
export function forgetConsent() {
  writeLocal(USER_KEY, null);
  writeLocal(GRANTED_KEY, null);
}
