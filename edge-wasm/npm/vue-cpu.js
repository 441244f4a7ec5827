//! `freshet/vue-cpu`: a plugin and composables over `freshet/cpu`; nothing of WebGPU comes into the bundle.

import { Freshet } from './cpu.js';
import { pluginOf } from './lib/vue.js';

export { useFeedback, useFreshet, useRanking, useRecommendations, useSimilar } from './lib/vue.js';

export const createFreshet = pluginOf(Freshet);
