import type { ReactElement, ReactNode } from 'react';
import type { BindingOptions, ListOptions, ListState, Refresh, SimilarItem, SimilarListOptions } from './binding.js';
import type { Freshet } from './index.js';
import type { RankedItem } from './types.js';

export type { BindingOptions, ListOptions, ListState, Refresh, SimilarItem, SimilarListOptions };

/** A list and how to rank it again. */
export type List<Item = RankedItem> = ListState<Item> & { readonly refresh: Refresh };

/**
 * Opens one Freshet for all components below, once the first of them is there, and ends it with the last.
 * On a server nothing is opened; lists are empty and loading there.
 *
 * @example
 * <FreshetProvider url="https://shop.example">
 *   <Shelf />
 * </FreshetProvider>
 */
export declare function FreshetProvider(props: BindingOptions & { children?: ReactNode }): ReactElement;

/**
 * The shared Freshet; `null` while rendering on a server and before it is opened.
 * @example
 * const freshet = useFreshet();
 * useEffect(() => freshet?.on('error', ({ code }) => report(code)), [freshet]);
 */
export declare function useFreshet(): Freshet | null;

/**
 * `feedback` of the shared Freshet, for handlers and effects; always the same function.
 * What is given before a model has come is kept.
 * @example
 * const feedback = useFeedback();
 * <button onClick={() => feedback('add_to_cart', itemId)}>Add</button>
 */
export declare function useFeedback(): Freshet['feedback'];

/**
 * The best items for this visitor. Ranked again when options change (by their JSON; for another `filter` call `refresh`).
 * @example
 * const { items, isLoading, error, refresh } = useRecommendations({ k: 12 });
 */
export declare function useRecommendations(options?: ListOptions): List;

/** As `useRecommendations`, by `rank`: items of the history stay unless `excludeSeen`. */
export declare function useRanking(options?: ListOptions): List;

/**
 * The items that are most like one, or several.
 * @example
 * const { items } = useSimilar(itemId, { k: 6 });
 */
export declare function useSimilar(itemIds: string | string[], options?: SimilarListOptions): List<SimilarItem>;
