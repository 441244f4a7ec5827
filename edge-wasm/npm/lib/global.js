//! The script-tag build: a global `Freshet`, with `Freshet.Error`, and calls that came before it.
//!
//! A page may put functions into a list `FreshetQueue` before this script has come; each is called with `Freshet`, and
//! so is what is pushed later.

import { Freshet as Base } from '../index.js';
import { FreshetError } from './errors.js';

class Freshet extends Base {
  static Error = FreshetError;
}

globalThis.Freshet = Freshet;
const early = Array.isArray(globalThis.FreshetQueue) ? globalThis.FreshetQueue : [];
const run = (callback) => {
  try {
    callback(Freshet);
  } catch (error) {
    reportError(error); // of the page, and the next one is still to be called
  }
};
globalThis.FreshetQueue = { push: (...callbacks) => callbacks.forEach(run) };
early.forEach(run);
