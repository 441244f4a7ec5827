//! What ranks in the page itself, where workers are refused: the CPU module alone.

import { EngineHost } from './host.js';
import { CPU } from './runtime-cpu.js';

/** @type {import('./link.js').OpenHost} */
export function openHost(config, emit, inlined) {
  return new EngineHost(config, { cpu: { ...CPU, inlined } }, emit);
}
