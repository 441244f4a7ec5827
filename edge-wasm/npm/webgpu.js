//! `freshet/webgpu`: as `freshet`, but WebGPU is wanted: a software adapter is taken too.

import { Freshet as Base } from './index.js';

export { FreshetError } from './lib/errors.js';

export class Freshet extends Base {
  static entry = { ...Base.entry, backend: 'webgpu' };
}
