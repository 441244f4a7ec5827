//! The text modules, one for plain and one for relaxed SIMD; glue and bytes are fetched when they are wanted.

import { text as plainIntegrity, text_relaxed as relaxedIntegrity } from '../dist/integrity.js';
import { isRelaxedFaster } from './simd.js';

/** @type {import('./backend.js').Runtime} */
const PLAIN = {
  name: 'text',
  file: 'freshet_text_bg.wasm',
  integrity: plainIntegrity,
  url: () => new URL('../dist/freshet_text_bg.wasm', import.meta.url),
  create: async () => (await import('../dist/freshet_text.js')).default(),
};

/** @type {import('./backend.js').Runtime} */
const RELAXED = {
  name: 'text',
  file: 'freshet_text_relaxed_bg.wasm',
  integrity: relaxedIntegrity,
  url: () => new URL('../dist/freshet_text_relaxed_bg.wasm', import.meta.url),
  create: async () => (await import('../dist/freshet_text_relaxed.js')).default(),
};

/** The faster one of those that run here; a build for tests may lack the other. */
export function textRuntime() {
  return relaxedIntegrity && isRelaxedFaster() ? RELAXED : PLAIN;
}
