import type {
  ConnectOptions,
  Consent,
  EventKind,
  ExplainOptions,
  Explanation,
  ExportedHistory,
  Found,
  FeedbackEvent,
  FeedbackReceipt,
  FreshetErrorCode,
  FreshetEvents,
  FreshetStatus,
  HistoryEvent,
  NewItem,
  NewRanking,
  RankNewOptions,
  ObserveOptions,
  RankOptions,
  Ranking,
  SearchOptions,
  Shown,
  Similar,
  SimilarOptions,
} from './types.js';

export type * from './types.js';

/**
 * Freshet in the page: rank on the visitor's own device with a model that keeps learning on a server.
 *
 * @example
 * import { Freshet } from 'freshet';
 *
 * const freshet = await Freshet.connect({ url: 'https://shop.example' });
 * freshet.feedback('click', 'item-17');
 * const { items } = await freshet.recommend({ k: 12 });
 */
export declare class Freshet {
  /**
   * Connects to a Freshet server. Resolves when this page can rank: from the verified cache at once,
   * otherwise after the first download.
   *
   * @throws {FreshetError} `unreachable`, `server_error`, `no_model`, `module_load_failed`, `engine_stopped`, `aborted`,
   *   `unsupported`, `invalid_option`, or why what the server sent was refused
   * @example
   * const freshet = await Freshet.connect({
   *   url: location.origin,
   *   onProgress: ({ bytesReceived, bytesTotal }) => bar.set(bytesReceived / bytesTotal),
   *   signal: AbortSignal.timeout(10_000),
   * });
   */
  static connect(options: ConnectOptions): Promise<Freshet>;

  /**
   * As `connect`, without waiting for anything: `feedback`, `history` and `on` work at once, so nothing that the visitor
   * does before the model has come is lost. What ranks, searches, explains or pins waits for `ready`.
   * If it does not get ready, feedback goes on, and so do attempts to reach the server. Aborting `signal` before `ready` has
   * settled disposes it.
   *
   * @throws {FreshetError} `unsupported`, `invalid_option`, at once
   * @example
   * const freshet = Freshet.open({ url: 'https://shop.example' });
   * freshet.feedback('view', 'item-17');
   * const { items } = await freshet.recommend({ k: 12 });
   */
  static open(options: ConnectOptions): Freshet;

  /**
   * Resolves with this Freshet once this page can rank; rejects as `connect` does.
   * @example
   * Freshet.open({ url: '/' }).ready.catch(({ code, message }) => console.warn(code, message));
   */
  readonly ready: Promise<Freshet>;

  private constructor();

  /**
   * Ranks for a history, by default the one kept on this device. Uploads nothing.
   *
   * @throws {FreshetError} `no_model`, `aborted`, `disposed`, `invalid_option`, `engine_stopped`
   * @example
   * const { items } = await freshet.rank({ candidates: ['a', 'b', 'c'], k: 3 });
   * @example
   * const { items, missing } = await freshet.rank({
   *   k: 12,
   *   filter: (itemId) => catalogue.get(itemId)?.isForAdults !== true,
   *   rules: {
   *     require: [{ itemId: 'deal-of-the-day', position: 0 }],
   *     boost: [{ itemIds: newArrivals, points: 0.7 }], // doubles their odds
   *     exclude: ['recalled'],
   *   },
   *   diversity: { lambda: 0.7 },
   * });
   */
  rank(options?: RankOptions): Promise<Ranking>;

  /**
   * The best items for this visitor, without those already in the kept history.
   * @example
   * const { items, modelVersion } = await freshet.recommend({ k: 12 });
   */
  recommend(options?: RankOptions): Promise<Ranking>;

  /**
   * The items that are most like an item, or like several taken together, by the vectors that the model ranks with:
   * text, the operator's features, and what was learned of the item itself. Nothing is asked of a server.
   * What people have together with an item, or want much, is not like it for that.
   *
   * @throws {FreshetError} `unknown_item` (where none of them is known), `no_model`, `aborted`, `disposed`,
   *   `invalid_option`, `engine_stopped`
   * @example
   * const { items } = await freshet.similar('item-17', { k: 6 });
   * const likeTheCart = await freshet.similar(['item-17', 'item-4'], { excludeSeen: true });
   */
  similar(itemIds: string | string[], options?: SimilarOptions): Promise<Similar>;

  /**
   * The items whose texts are most like a text. It is embedded on this device, as the server embeds items; the first call
   * loads the encoder (up to 8 MB with MiniLM, a few hundred kilobytes with the small one), later ones take milliseconds.
   *
   * @throws {FreshetError} `no_text_encoder`, `no_texts`, `text_failed`, `module_load_failed`, `no_model`, `unreachable`,
   *   `server_error`, `aborted`, `disposed`, `invalid_option` (for an empty text too), `engine_stopped`
   * @example
   * searchBox.onfocus = () => freshet.prepareSearch().catch(() => {}); // searching says why
   * const { items } = await freshet.search('a warm lamp for the bedroom', { k: 12, taste: 0.3 });
   */
  search(text: string, options?: SearchOptions): Promise<Found>;

  /**
   * Ranks items that the server has never seen, by their texts and this visitor's taste. Best first; scores are on the
   * scale of `rank`, as those of an item that was put a moment ago. At most 1,000 items.
   *
   * @throws {FreshetError} as `search`
   * @example
   * const { items } = await freshet.rankNew([{ itemId: 'draft-1', text: 'Blue enamel teapot' }]);
   */
  rankNew(items: NewItem[], options?: RankNewOptions): Promise<NewRanking>;

  /** Loads what `search` and `rankNew` need ahead of their first call. */
  prepareSearch(options?: { signal?: AbortSignal }): Promise<void>;

  /**
   * Why an item has its score, computed on this device; nothing is asked of a server.
   * The parts are exact and add up. An event's effect is what the score would lose without it, so effects do not.
   *
   * @throws {FreshetError} `unknown_item`, `no_model`, `aborted`, `disposed`, `invalid_option`, `engine_stopped`
   * @example
   * const { events, parts, average } = await freshet.explain('item-17', { k: 3 });
   * const because = events.filter((event) => event.effect > 0).map((event) => event.itemId);
   * const isPopular = parts.prior > average.prior;
   */
  explain(itemId: string, options?: ExplainOptions): Promise<Explanation>;

  /**
   * Reports what the visitor did. The kept history has it at once; it is sent in the background if consent allows,
   * and survives reloads and outages.
   *
   * @example
   * freshet.feedback('add_to_cart', 'item-17');
   * freshet.feedback({ kind: 'rating', itemId: 'item-17', value: 4.5 });
   */
  feedback(kind: EventKind, itemId: string, more?: Partial<FeedbackEvent>): FeedbackReceipt;
  feedback(event: FeedbackEvent): FeedbackReceipt;

  /**
   * Logs an impression of `item` once half of `element` was visible for a second: one for each call, and one for each item
   * of a ranking, however often its element is made anew. Sent as all feedback is, if consent allows.
   *
   * @returns ends it
   * @throws {FreshetError} `disposed`, `invalid_option`
   * @example
   * const { items } = await freshet.recommend({ k: 12, exploration: { temperature: 0.3 } });
   * items.forEach((item, position) => freshet.observe(cards[position], item, { position }));
   */
  observe(element: Element, item: string | { itemId: string; propensity?: number; arm?: string }, options?: ObserveOptions): () => void;

  /**
   * As `observe`, for the children of `container`, which show the items of `ranking` in their order.
   * @throws {FreshetError} `disposed`, `invalid_option`
   * @example
   * const stop = freshet.observeList(shelf, await freshet.recommend({ k: 12 }));
   */
  observeList(
    container: Element,
    ranking: Shown,
    options?: Omit<ObserveOptions, 'position' | 'propensity' | 'arm'>,
  ): () => void;

  /**
   * The history of this visitor. It never leaves the device, unless the page takes it out by `export`.
   * @example
   * const file = JSON.stringify(freshet.history.export());
   * const numAdded = freshet.history.import(JSON.parse(file));
   */
  readonly history: {
    /** Oldest first. */
    read(): HistoryEvent[];
    /** Forgets all of it, in all tabs. */
    clear(): void;
    /** Everything kept, for JSON. */
    export(): ExportedHistory;
    /**
     * Adds what `export` gave, without what is there already. The newest 200 are kept; answers with how many of them
     * are new.
     * @throws {FreshetError} `invalid_option`, naming what is malformed; nothing is added then
     */
    import(exported: ExportedHistory): number;
  };

  /**
   * Holds this page at the version that ranks now, for example while someone pays or a test compares: nothing else is
   * fetched or taken until `unpin`. Other tabs are not held, and after a reload this page is not either.
   * An engine that is started again after a crash holds the version in the cache, which may be a newer one.
   * A page that is held does not take the server's rollbacks either. Who aborts `signal` before the answer is not held.
   *
   * @returns the version
   * @throws {FreshetError} `no_model`, `aborted`, `disposed`
   * @example
   * const version = await freshet.pin();
   * try { await checkout(); } finally { await freshet.unpin(); }
   */
  pin(options?: { signal?: AbortSignal }): Promise<number>;

  /** Takes the newest version, and all that follow. */
  unpin(options?: { signal?: AbortSignal }): Promise<void>;

  /** Calls `listener` at every occurrence of `name`; the answer removes it again. */
  on<Name extends keyof FreshetEvents>(name: Name, listener: (detail: FreshetEvents[Name]) => void): () => void;

  /** What this page ranks with now. */
  status(): FreshetStatus;

  /**
   * Changes consent. `'denied'` forgets the pseudonymous id and everything that was not sent yet, in all open tabs, which
   * tell it by `on('consent')`. `signal` ends the waiting; the consent is changed at once.
   * After `dispose()` consent can be withdrawn still, and not given.
   *
   * @throws {FreshetError} `aborted`, `invalid_option`
   */
  setConsent(consent: Consent, options?: { signal?: AbortSignal }): Promise<void>;

  /**
   * Sends waiting feedback now instead of a moment later; resolves when the server has answered for all of this page's.
   * `signal` ends the waiting only.
   */
  flush(options?: { signal?: AbortSignal }): Promise<void>;

  /** Ends the worker, the stream and all listeners. May be called again; connecting anew is possible afterwards. */
  dispose(): Promise<void>;
  /** As `dispose`, for `using`, without waiting. */
  [Symbol.dispose](): void;
  /** As `dispose`, for `await using`. */
  [Symbol.asyncDispose](): Promise<void>;
}

/** What every call throws and rejects with: a stable `code` for programs, a sentence for people in `message`. */
export declare class FreshetError extends Error {
  /** Stable; docs/guide/errors.md says what to do about each. */
  readonly code: FreshetErrorCode;
}
