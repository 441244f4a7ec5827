/** As `freshet`, with the CPU module alone: nothing of WebGPU comes into the bundle, and `backend` is `'cpu'`. */
export * from './index.js';
