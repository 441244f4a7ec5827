//! What `freshet/cpu` brings: the CPU module alone.

/** @type {import('./link.js').Entry} */
export const CPU_ENTRY = {
  backends: ['cpu'],
  backend: 'cpu',
  workerFile: 'worker-cpu.js',
  openWorker: () => new Worker(new URL('../worker-cpu.js', import.meta.url), { type: 'module', name: 'freshet' }),
  loadHost: () => import('./page-host-cpu.js'),
  inlined: () => import('../dist/freshet_cpu_inline.js'),
};
