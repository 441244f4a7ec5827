// What the bindings have in common. Not an entry of its own.

import type { Freshet, FreshetError } from './index.js';
import type { ConnectOptions, RankOptions, RankedItem, SimilarOptions } from './types.js';

/** The class of an entry of the package. */
export interface Opens {
  open(options: ConnectOptions): Freshet;
}

/**
 * How the shared Freshet is opened. Read once: a page with another server needs another provider, and consent is changed by
 * `setConsent`, which holds for one that is opened later too.
 */
export interface BindingOptions extends ConnectOptions {
  /** The class to open. Default: that of `freshet`, or of `freshet/cpu` where the binding's name ends with `-cpu`. */
  Freshet?: Opens;
}

/** How a list follows new versions. */
export interface Live {
  /**
   * Whether the list is ranked again when versions come, once a second at most. Default `false`: what someone is
   * about to tap does not move.
   */
  live?: boolean;
}

/** Options of `rank` and `recommend` for a list; its signal is the binding's own. */
export type ListOptions = Omit<RankOptions, 'signal'> & Live;
/** Options of `similar` for a list; its signal is the binding's own. */
export type SimilarListOptions = Omit<SimilarOptions, 'signal'> & Live;

/** One state of a list. Items stay while it is ranked again, and after an error. */
export interface ListState<Item = RankedItem> {
  readonly items: readonly Item[];
  /** Version that ranked; `null` before the first list. */
  readonly modelVersion: number | null;
  /** Required items that are not among them. */
  readonly missing: readonly string[];
  /** Why there is no newer list. It is ranked again when the next version comes. */
  readonly error: FreshetError | null;
  readonly isLoading: boolean;
}

/** An item and how much it is like those asked about. */
export interface SimilarItem {
  itemId: string;
  /** Mean cosine with the items asked about, −1 to 1. */
  similarity: number;
}

/** Ranks again; resolves when that is done, and never rejects. */
export type Refresh = () => Promise<void>;
