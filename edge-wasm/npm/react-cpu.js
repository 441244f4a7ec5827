//! `freshet/react-cpu`: a provider and hooks over `freshet/cpu`; nothing of WebGPU comes into the bundle.
'use client';

import { Freshet } from './cpu.js';
import { providerOf } from './lib/react.js';

export { useFeedback, useFreshet, useRanking, useRecommendations, useSimilar } from './lib/react.js';

export const FreshetProvider = providerOf(Freshet);
