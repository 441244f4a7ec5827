//! `freshet`: starts on the CPU, and moves to WebGPU where that is worth it.

import { ENTRY } from './lib/entry.js';
import { Freshet as Base } from './lib/freshet.js';

export { FreshetError } from './lib/errors.js';

export class Freshet extends Base {
  static entry = ENTRY;
}
