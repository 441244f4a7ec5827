/** As `freshet/react`, over `freshet/cpu`: nothing of WebGPU comes into the bundle. */
export * from './react.js';
