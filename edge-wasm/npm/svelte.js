//! `freshet/svelte`: a context, and stores that rank once something in the browser shows them.

import { getContext, onMount, setContext } from 'svelte';
import { readable } from 'svelte/store';

import { Freshet as Default } from './index.js';
import { RANKED_BY, RankedList, Shared } from './lib/binding.js';

const KEY = Symbol('freshet');

/** @type {typeof import('./svelte.d.ts').provideFreshet} */
export function provideFreshet({ Freshet = Default, ...options }) {
  const shared = new Shared(() => Freshet.open(options));
  setContext(KEY, shared);
  onMount(() => shared.retain());
}

function contextShared() {
  const shared = getContext(KEY);
  if (!shared) throw new Error('freshet/svelte: no component around this one has called provideFreshet().');
  return shared;
}

/** @type {typeof import('./svelte.d.ts').freshet} */
export function freshet() {
  const shared = contextShared();
  return readable(null, (set) => {
    set(shared.current());
    return shared.subscribe(() => set(shared.current()));
  });
}

/** @type {typeof import('./svelte.d.ts').feedback} */
export function feedback() {
  const shared = contextShared();
  return (...event) => shared.get().feedback(...event);
}

const valueOf = (given) => (typeof given === 'function' ? given() : given);

/** @type {typeof import('./svelte.d.ts').recommendations} */
export function recommendations(options = {}) {
  return list((freshet, signal) => RANKED_BY.recommend(freshet, valueOf(options), signal), options);
}

/** @type {typeof import('./svelte.d.ts').ranking} */
export function ranking(options = {}) {
  return list((freshet, signal) => RANKED_BY.rank(freshet, valueOf(options), signal), options);
}

/** @type {typeof import('./svelte.d.ts').similar} */
export function similar(itemIds, options = {}) {
  const rank = (freshet, signal) => RANKED_BY.similar(freshet, valueOf(itemIds), valueOf(options), signal);
  return list(rank, options);
}

function list(rank, options) {
  const ranked = new RankedList(contextShared(), rank);
  const { subscribe } = readable(ranked.snapshot(), (set) => {
    const stop = ranked.subscribe(() => set(ranked.snapshot()));
    ranked.start(valueOf(options).live);
    return () => {
      stop();
      ranked.stop();
    };
  });
  return { subscribe, refresh: ranked.refresh };
}
