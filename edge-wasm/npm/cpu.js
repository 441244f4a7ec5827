//! `freshet/cpu`: the CPU module alone; nothing of WebGPU comes into the bundle.

import { CPU_ENTRY } from './lib/entry-cpu.js';
import { Freshet as Base } from './lib/freshet.js';

export { FreshetError } from './lib/errors.js';

export class Freshet extends Base {
  static entry = CPU_ENTRY;
}
