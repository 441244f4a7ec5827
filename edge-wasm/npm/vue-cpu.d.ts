/** As `freshet/vue`, over `freshet/cpu`: nothing of WebGPU comes into the bundle. */
export * from './vue.js';
