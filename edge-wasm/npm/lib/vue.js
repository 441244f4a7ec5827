//! What `freshet/vue` and `freshet/vue-cpu` share: a plugin, and composables that rank once their component is mounted.

import { computed, inject, onMounted, onUnmounted, shallowRef, toValue, watch } from 'vue';

import { RANKED_BY, RankedList, Shared, keyOf } from './binding.js';

const KEY = Symbol('freshet');

/**
 * @param {import('../binding.d.ts').Opens} Default the class that is opened where the page names none
 * @returns {typeof import('../vue.d.ts').createFreshet}
 */
export function pluginOf(Default) {
  return function createFreshet({ Freshet = Default, ...options }) {
    const shared = new Shared((changed) => Freshet.open({ ...options, ...changed }));
    return {
      install(app) {
        app.provide(KEY, shared);
        app.onUnmount(shared.retain());
      },
    };
  };
}

function useShared() {
  const shared = inject(KEY, null);
  if (!shared) throw new Error('freshet/vue: the app does not use createFreshet().');
  return shared;
}

/** @type {typeof import('../vue.d.ts').useFreshet} */
export function useFreshet() {
  const shared = useShared();
  const freshet = shallowRef(null); // as the server renders it
  let stop = () => {};
  onMounted(() => {
    const tell = () => (freshet.value = shared.current());
    stop = shared.subscribe(tell);
    tell();
  });
  onUnmounted(() => stop());
  return freshet;
}

/** @type {typeof import('../vue.d.ts').useFeedback} */
export function useFeedback() {
  const shared = useShared();
  return (...event) => shared.get().feedback(...event);
}

/** @type {typeof import('../vue.d.ts').useRecommendations} */
export function useRecommendations(options) {
  const asked = () => toValue(options) ?? {};
  return useList((freshet, signal) => RANKED_BY.recommend(freshet, asked(), signal), asked);
}

/** @type {typeof import('../vue.d.ts').useRanking} */
export function useRanking(options) {
  const asked = () => toValue(options) ?? {};
  return useList((freshet, signal) => RANKED_BY.rank(freshet, asked(), signal), asked);
}

/** @type {typeof import('../vue.d.ts').useSimilar} */
export function useSimilar(itemIds, options) {
  const asked = () => toValue(options) ?? {};
  const rank = (freshet, signal) => RANKED_BY.similar(freshet, toValue(itemIds), asked(), signal);
  return useList(rank, () => ({ ...asked(), itemIds: toValue(itemIds) }));
}

function useList(rank, asked) {
  const list = new RankedList(useShared(), rank);
  const snapshot = shallowRef(list.snapshot());
  list.subscribe(() => (snapshot.value = list.snapshot()));
  onMounted(() => {
    watch(() => keyOf(asked()), () => list.start(asked().live), { immediate: true });
  });
  onUnmounted(() => list.stop());
  const field = (name) => computed(() => snapshot.value[name]);
  return {
    items: field('items'),
    modelVersion: field('modelVersion'),
    missing: field('missing'),
    error: field('error'),
    isLoading: field('isLoading'),
    refresh: list.refresh,
  };
}
