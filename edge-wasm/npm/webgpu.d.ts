/** As `freshet`, with `backend: 'webgpu'` as the default: a software adapter is taken too. */
export * from './index.js';
