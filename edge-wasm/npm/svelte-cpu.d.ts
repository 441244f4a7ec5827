/** As `freshet/svelte`, over `freshet/cpu`: nothing of WebGPU comes into the bundle. */
export * from './svelte.js';
