//! `freshet/react`: a provider and hooks over `freshet`.
'use client';

import { Freshet } from './index.js';
import { providerOf } from './lib/react.js';

export { useFeedback, useFreshet, useRanking, useRecommendations, useSimilar } from './lib/react.js';

export const FreshetProvider = providerOf(Freshet);
