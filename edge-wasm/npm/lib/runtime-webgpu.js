//! The WebGPU module, whose glue is fetched when it is wanted, as is what moves a page to it.

import { webgpu as integrity } from '../dist/integrity.js';

/** @type {import('./backend.js').Runtime} */
export const WEBGPU = {
  name: 'webgpu',
  file: 'freshet_webgpu_bg.wasm',
  integrity,
  url: () => new URL('../dist/freshet_webgpu_bg.wasm', import.meta.url),
  create: async () => (await import('../dist/freshet_webgpu.js')).default(),
  loadUpgrade: () => import('./upgrade.js'),
};
