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
 * What to ask for: as it is, or a function or a store of it. Those are followed: what a function reads of `$state` and
 * `$props`, and what a store holds.
 */
export type Wish<Options> = Options | (() => Options) | Readable<Options>;

/**
 * The best items for this visitor, ranked while something shows them.
 * Ranked again when the options come to something else (by their JSON; for another `filter` call `refresh`).
 * @example
 * let { numItems } = $props();
 * const shelf = recommendations(() => ({ k: numItems }));
 * {#each $shelf.items as { itemId } (itemId)} … {/each}
 */
export declare function recommendations(options?: Wish<ListOptions>): List;

/** As `recommendations`, by `rank`: items of the history stay unless `excludeSeen`. */
export declare function ranking(options?: Wish<ListOptions>): List;

/**
 * The items that are most like one, or several.
 * @example
 * const alike = similar(() => itemId, { k: 6 });
 */
export declare function similar(
  itemIds: Wish<string | string[]>,
  options?: Wish<SimilarListOptions>,
): List<SimilarItem>;
