//! What `freshet/react` and `freshet/react-cpu` share: a provider, and hooks that rank after the page has been rendered.
'use client';

import { createContext, createElement, useCallback, useContext, useEffect, useMemo, useRef, useState, useSyncExternalStore } from 'react';

import { RANKED_BY, RankedList, Shared, keyOf } from './binding.js';

const Context = createContext(null);

/**
 * @param {import('../binding.d.ts').Opens} Default the class that is opened where the page names none
 * @returns {typeof import('../react.d.ts').FreshetProvider}
 */
export function providerOf(Default) {
  return function FreshetProvider({ children, Freshet = Default, ...options }) {
    const [shared] = useState(() => new Shared((changed) => Freshet.open({ ...options, ...changed })));
    useEffect(() => shared.retain(), [shared]);
    return createElement(Context.Provider, { value: shared }, children);
  };
}

function useShared() {
  const shared = useContext(Context);
  if (!shared) throw new Error('freshet/react: there is no FreshetProvider around this component.');
  return shared;
}

/** @type {typeof import('../react.d.ts').useFreshet} */
export function useFreshet() {
  const shared = useShared();
  return useSyncExternalStore(shared.subscribe, shared.current, () => null);
}

/** @type {typeof import('../react.d.ts').useFeedback} */
export function useFeedback() {
  const shared = useShared();
  return useCallback((...event) => shared.get().feedback(...event), [shared]);
}

/** @type {typeof import('../react.d.ts').useRecommendations} */
export function useRecommendations(options = {}) {
  return useList((freshet, signal) => RANKED_BY.recommend(freshet, options, signal), options);
}

/** @type {typeof import('../react.d.ts').useRanking} */
export function useRanking(options = {}) {
  return useList((freshet, signal) => RANKED_BY.rank(freshet, options, signal), options);
}

/** @type {typeof import('../react.d.ts').useSimilar} */
export function useSimilar(itemIds, options = {}) {
  return useList((freshet, signal) => RANKED_BY.similar(freshet, itemIds, options, signal), { ...options, itemIds });
}

function useList(rank, { live = false, ...asked }) {
  const shared = useShared();
  const latest = useRef(rank);
  useEffect(() => {
    latest.current = rank; // before the effect below: functions in the options are the newest whenever it ranks
  });
  const list = useMemo(() => new RankedList(shared, (...call) => latest.current(...call)), [shared]);
  const key = keyOf(asked);
  useEffect(() => {
    list.start(live);
    return () => list.stop();
  }, [list, live, key]);
  const snapshot = useSyncExternalStore(list.subscribe, list.snapshot, list.snapshot);
  return useMemo(() => ({ ...snapshot, refresh: list.refresh }), [snapshot, list]);
}
