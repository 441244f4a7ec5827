//! `freshet/svelte-cpu`: a context and stores over `freshet/cpu`; nothing of WebGPU comes into the bundle.

import { Freshet } from './cpu.js';
import { provideOf } from './lib/svelte.js';

export { feedback, freshet, ranking, recommendations, similar } from './lib/svelte.js';

export const provideFreshet = provideOf(Freshet);
