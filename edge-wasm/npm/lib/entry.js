//! What `freshet` brings: both modules, and the worker that has them.
//!
//! Whatever names a file by its place stands in `lib`, a folder deep: the script-tag build lies as deep, in `dist`.

/** @type {import('./link.js').Entry} */
export const ENTRY = {
  backends: ['auto', 'cpu', 'webgpu'],
  backend: 'auto',
  workerFile: 'worker.js',
  openWorker: () => new Worker(new URL('../worker.js', import.meta.url), { type: 'module', name: 'freshet' }),
  loadHost: () => import('./page-host.js'),
  inlined: () => import('../dist/freshet_cpu_inline.js'),
};
