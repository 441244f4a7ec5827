import type { Readable } from 'svelte/store';
import type { BindingOptions, ListOptions, ListState, Refresh, SimilarItem, SimilarListOptions } from './binding.js';
import type { Freshet } from './index.js';
import type { RankedItem } from './types.js';

export type { BindingOptions, ListOptions, ListState, Refresh, SimilarItem, SimilarListOptions };

/** A store of a list, and how to rank it again. */
export type List<Item = RankedItem> = Readable<ListState<Item>> & { readonly refresh: Refresh };

/**
 * Opens one Freshet for this component and all below, once it is mounted, and ends it with it; for a root layout.
 * On a server nothing is opened. Like everything here, to be called while a component is made.
 * @example
 * <script>
 *   import { provideFreshet } from 'freshet/svelte';
 *   provideFreshet({ url: 'https://shop.example' });
 * </script>
 */
export declare function provideFreshet(options: BindingOptions): void;

/** The shared Freshet as a store; `null` on a server and before it is opened. */
export declare function freshet(): Readable<Freshet | null>;

/**
 * `feedback` of the shared Freshet, for handlers.
 * @example
 * const give = feedback();
 * <button onclick={() => give('add_to_cart', itemId)}>Add</button>
 */
export declare function feedback(): Freshet['feedback'];

/**
 * The best items for this visitor, ranked while something shows them. A function as options is asked whenever it ranks.
 * @example
 * const shelf = recommendations({ k: 12 });
 * {#each $shelf.items as { itemId } (itemId)} … {/each}
 */
export declare function recommendations(options?: ListOptions | (() => ListOptions)): List;

/** As `recommendations`, by `rank`: items of the history stay unless `excludeSeen`. */
export declare function ranking(options?: ListOptions | (() => ListOptions)): List;

/**
 * The items that are most like one, or several.
 * @example
 * const alike = similar(() => itemId, { k: 6 });
 * $effect(() => { itemId; alike.refresh(); });
 */
export declare function similar(
  itemIds: string | string[] | (() => string | string[]),
  options?: SimilarListOptions | (() => SimilarListOptions),
): List<SimilarItem>;
