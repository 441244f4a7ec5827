/** The worker script itself, for `connect({ worker: () => new Worker(new URL('freshet/worker', import.meta.url), { type: 'module' }) })`. */
export {};
