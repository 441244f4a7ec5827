//! `freshet/vue`: a plugin and composables over `freshet`.

import { Freshet } from './index.js';
import { pluginOf } from './lib/vue.js';

export { useFeedback, useFreshet, useRanking, useRecommendations, useSimilar } from './lib/vue.js';

export const createFreshet = pluginOf(Freshet);
