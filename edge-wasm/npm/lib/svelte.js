//! What `freshet/svelte` and `freshet/svelte-cpu` share: a context, and stores that rank once something in the browser
//! shows them.

import { getContext, onMount, setContext } from 'svelte';
import { derived, get, readable, toStore } from 'svelte/store';

import { RANKED_BY, RankedList, Shared, keyOf } from './binding.js';

const KEY = Symbol('freshet');

/**
 * @param {import('../binding.d.ts').Opens} Default the class that is opened where the page names none
 * @returns {typeof import('../svelte.d.ts').provideFreshet}
 */
export function provideOf(Default) {
  return function provideFreshet({ Freshet = Default, ...options }) {
    const shared = new Shared((changed) => Freshet.open({ ...options, ...changed }));
    setContext(KEY, shared);
    onMount(() => shared.retain());
  };
}

function contextShared() {
  const shared = getContext(KEY);
  if (!shared) throw new Error('freshet/svelte: no component around this one has called provideFreshet().');
  return shared;
}

/** @type {typeof import('../svelte.d.ts').freshet} */
export function freshet() {
  const shared = contextShared();
  return readable(null, (set) => {
    set(shared.current());
    return shared.subscribe(() => set(shared.current()));
  });
}

/** @type {typeof import('../svelte.d.ts').feedback} */
export function feedback() {
  const shared = contextShared();
  return (...event) => shared.get().feedback(...event);
}

/** @type {typeof import('../svelte.d.ts').recommendations} */
export function recommendations(options = {}) {
  return list('recommend', options);
}

/** @type {typeof import('../svelte.d.ts').ranking} */
export function ranking(options = {}) {
  return list('rank', options);
}

/** @type {typeof import('../svelte.d.ts').similar} */
export function similar(itemIds, options = {}) {
  return list('similar', itemIds, options);
}

/** What was given as a store: a function says what to ask for now, and is followed as Svelte follows what it reads. */
function storeOf(given) {
  if (typeof given === 'function') return toStore(given);
  return typeof given?.subscribe === 'function' ? given : readable(given);
}

/** What is to be asked for now. */
function valueOf(given) {
  return typeof given === 'function' ? given() : get(storeOf(given));
}

/** A list that is ranked while something shows it, and again when what it is `given` comes to something else. */
function list(name, ...given) {
  const rank = (freshet, signal) => RANKED_BY[name](freshet, ...given.map(valueOf), signal);
  const ranked = new RankedList(contextShared(), rank);
  const wishes = derived(given.map(storeOf), (values) => values);
  const { subscribe } = readable(ranked.snapshot(), (set) => {
    const stopShowing = ranked.subscribe(() => set(ranked.snapshot()));
    let key;
    const stopFollowing = wishes.subscribe((values) => {
      if (key === keyOf(values)) return;
      key = keyOf(values);
      ranked.start(values.at(-1).live);
    });
    return () => {
      stopFollowing();
      stopShowing();
      ranked.stop();
    };
  });
  return { subscribe, refresh: ranked.refresh };
}
