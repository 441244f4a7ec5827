//! The CPU module: glue, bytes and their hash. Whoever imports this file has the module in the bundle, and no other.

import createModule from '../dist/freshet_cpu.js';
import { cpu as integrity } from '../dist/integrity.js';

/** @type {import('./backend.js').Runtime} */
export const CPU = {
  name: 'cpu',
  file: 'freshet_cpu_bg.wasm',
  integrity,
  url: () => new URL('../dist/freshet_cpu_bg.wasm', import.meta.url),
  create: async () => createModule(),
};
