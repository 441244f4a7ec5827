import type { App, ComputedRef, MaybeRefOrGetter, ShallowRef } from 'vue';
import type { BindingOptions, ListOptions, ListState, Refresh, SimilarItem, SimilarListOptions } from './binding.js';
import type { Freshet } from './index.js';
import type { RankedItem } from './types.js';

export type { BindingOptions, ListOptions, ListState, Refresh, SimilarItem, SimilarListOptions };

/** A list, each part of its state as a ref, and how to rank it again. */
export type List<Item = RankedItem> = {
  readonly [Part in keyof ListState<Item>]: ComputedRef<ListState<Item>[Part]>;
} & { readonly refresh: Refresh };

/**
 * Opens one Freshet for the app in the browser, and ends it with the app. On a server nothing is opened.
 * @example
 * createApp(Shop).use(createFreshet({ url: 'https://shop.example' })).mount('#shop');
 */
export declare function createFreshet(options: BindingOptions): {
  /** Called by `app.use`. */
  install(app: App): void;
};

/** The shared Freshet; `null` on a server and before the component is mounted. */
export declare function useFreshet(): Readonly<ShallowRef<Freshet | null>>;

/**
 * `feedback` of the shared Freshet, for handlers and hooks of the browser.
 * @example
 * const feedback = useFeedback();
 * onMounted(() => feedback('view', props.itemId));
 */
export declare function useFeedback(): Freshet['feedback'];

/**
 * The best items for this visitor. Ranked again when options change (by their JSON; for another `filter` call `refresh`).
 * @example
 * const { items, isLoading } = useRecommendations(() => ({ k: props.numItems }));
 */
export declare function useRecommendations(options?: MaybeRefOrGetter<ListOptions | undefined>): List;

/** As `useRecommendations`, by `rank`: items of the history stay unless `excludeSeen`. */
export declare function useRanking(options?: MaybeRefOrGetter<ListOptions | undefined>): List;

/**
 * The items that are most like one, or several.
 * @example
 * const { items } = useSimilar(() => props.itemId, { k: 6 });
 */
export declare function useSimilar(
  itemIds: MaybeRefOrGetter<string | string[]>,
  options?: MaybeRefOrGetter<SimilarListOptions | undefined>,
): List<SimilarItem>;
