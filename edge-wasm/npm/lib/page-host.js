//! What ranks in the page itself, where workers are refused: both modules.

import { EngineHost } from './host.js';
import { CPU } from './runtime-cpu.js';
import { WEBGPU } from './runtime-webgpu.js';

/** @type {import('./link.js').OpenHost} */
export function openHost(config, emit, inlined) {
  return new EngineHost(config, { cpu: { ...CPU, inlined }, webgpu: WEBGPU }, emit);
}
