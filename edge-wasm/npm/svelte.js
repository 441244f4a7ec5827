//! `freshet/svelte`: a context and stores over `freshet`.

import { Freshet } from './index.js';
import { provideOf } from './lib/svelte.js';

export { feedback, freshet, ranking, recommendations, similar } from './lib/svelte.js';

export const provideFreshet = provideOf(Freshet);
