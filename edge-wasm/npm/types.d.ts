// What goes in and comes out; the class itself is in `index.d.ts`.

/** How a page is connected to a server. */
export interface ConnectOptions {
  /** Base address of the server, absolute or relative to the page. */
  url: string;
  /** Name of the model. Default `'main'`. */
  model?: string;
  /**
   * `'auto'` (default) starts on the CPU and moves to WebGPU where that scores the same and is clearly faster, as
   * measured here and remembered for a week; where the CPU is quick anyway, WebGPU is not loaded.
   * `'cpu'` never loads it. `'webgpu'` takes it without measuring, also on a software adapter.
   */
  backend?: 'auto' | Backend;
  /**
   * Runs in a module worker, so that the page stays smooth. Default `true`; falls back to the page.
   * A function opens the worker of `freshet/worker` (`freshet/worker-cpu` for `freshet/cpu`) in a way of its own.
   */
  worker?: boolean | (() => Worker);
  /**
   * Address of a copy of this package, from which worker and modules are loaded: for bundlers that copy no files.
   * Default: where the bundler has put them.
   */
  assets?: string;
  /**
   * The server's ed25519 key or keys in base64. With it, only models signed by them are taken, wherever the bytes
   * come from. Without it, the keys that the server names are trusted, so then https is what protects.
   */
  publicKey?: string | string[];
  /**
   * The server's root key in base64, as `freshet keys new-root` prints it. With it, only models signed by keys that
   * this root has signed are taken, keys can be replaced and revoked without a new page, and nothing older than what
   * this page has seen is taken after a reload. `publicKey` is not looked at then.
   */
  rootKey?: string;
  /**
   * The server's publishable ingest key, where it asks for one: feedback and reports are sent with it. It stands in the
   * URL of the requests, since a beacon has no headers, and opens nothing that could be read.
   */
  key?: string;
  /** Keeps the verified model in IndexedDB. Default `true`. */
  cache?: boolean;
  /** Whether feedback may be sent. Default `'auto'`: yes, unless the browser sends Global Privacy Control. */
  consent?: Consent;
  /** Pseudonymous id of the visitor, at most 128 bytes of UTF-8. Default: a random one, made on first use. */
  userId?: string;
  /**
   * Puts a visit token beside every event, the server's word that it handed out the user id. For servers whose
   * `influence.without_token` asks for them; feedback never waits longer than a moment for one. Default `false`.
   */
  visitTokens?: boolean;
  /**
   * Ranks with a small model of this visitor beside the server's: learned on this device from the kept history, anew for
   * every version and event, and never sent. It moves items of the history only. Default `false`.
   */
  personal?: boolean;
  /** Waits for a first version before resolving. Default `true`. */
  waitForModel?: boolean;
  /** How long to wait until this page can rank, loading the engine included. Default 30 000; `Infinity` for no limit. */
  timeoutMillis?: number;
  /** Aborts connecting; what it does after `ready` has settled is not looked at. */
  signal?: AbortSignal;
  /** One total for everything downloaded of the model; only rises. */
  onProgress?: (progress: Progress) => void;
}

/** What to rank, for whom, and by which rules. */
export interface RankOptions {
  /** Events of the visitor, oldest first, at most 10,000. Default: the kept history. */
  history?: HistoryEvent[];
  /** Ids of the items to rank; unknown and unavailable ones are left out. Default: the whole catalogue. */
  candidates?: string[];
  /** How many to return. Default 10. */
  k?: number;
  /**
   * Whether an item may be shown, asked of every candidate at every call; also of required items.
   * It runs in the page, so it may look at whatever the page knows of an item.
   */
  filter?: (itemId: string) => boolean;
  /** Leaves out items of the history. Default `false`; `true` for `recommend`. */
  excludeSeen?: boolean;
  /** What the shop says, whatever the model thinks. */
  rules?: Rules;
  /** Items unlike each other. Default: by score alone. */
  diversity?: Diversity;
  /** Draws places by chance. Default: best first. */
  exploration?: Exploration;
  /**
   * Where the list is shown, 1 to 48 letters, digits, or `-_.`. Where an experiment runs there and this visitor has one of
   * its arms, that decides on `exploration`, and the items carry the arm for their impressions. Default: no experiment.
   */
  place?: string;
  /** As in `ConnectOptions`, whose value is the default. */
  personal?: boolean;
  /** The moment of ranking, whole milliseconds since 1970. Default: now. */
  nowMillis?: number;
  signal?: AbortSignal;
}

/**
 * Applied in this order: `exclude`, `require`, then `boost` and `bury` on the scores of all others.
 * Ids that the live version does not hold are passed over.
 */
export interface Rules {
  /** Points for items. All rules that name an item add up, to at most 100 either way. At most 1,000 rules. */
  boost?: PointRule[];
  /** Points against items. */
  bury?: PointRule[];
  /**
   * Items at places of their own, whether they are candidates, seen, boosted or buried or not; unless they are excluded
   * or not available. Those that could not be placed are named in `missing`. At most 300.
   */
  require?: Requirement[];
  /** Items that are never shown. At most 100,000 ids here and in points together. */
  exclude?: string[];
}

/** Points for some items, or against them. */
export interface PointRule {
  itemIds: string[];
  /**
   * Above 0, at most 100, in units of score: `p` points multiply an item's odds against any other by e^p,
   * so 0.7 doubles them, and 100 puts it before, or behind, everything without points.
   */
  points: number;
}

/** An item and its place. */
export interface Requirement {
  itemId: string;
  /** Zero-based; no two items may have the same. From `k` on the item is missing; where items run out it moves up. */
  position: number;
}

/**
 * Maximal marginal relevance (Carbonell and Goldstein 1998) over the best items: at every place
 * `lambda · relevance − (1 − lambda) · largest cosine to what stands before`, relevance from 0 to 1 in the pool.
 */
export interface Diversity {
  /** 1 is the order of scores, 0 looks at unlikeness alone. */
  lambda: number;
  /** How many of the best items take part; those behind follow in order. Default 100, at most 1000. */
  pool?: number;
}

/** What may be found, and how much the visitor's taste has a say. */
export interface SearchOptions {
  /**
   * Weight of the visitor's taste among the 200 items most like the text, 0 to 1: both are put on one scale and mixed.
   * Default 0: by likeness alone.
   */
  taste?: number;
  /** Ids of items that may be found; unknown and unavailable ones are left out. Default: the whole catalogue. */
  candidates?: string[];
  /** How many to find. Default 10. */
  k?: number;
  /** Whether an item may be shown, asked of every candidate at every call. */
  filter?: (itemId: string) => boolean;
  /** Leaves out items of the history. Default `false`. */
  excludeSeen?: boolean;
  /** Events of the visitor, oldest first. Default: the kept history. */
  history?: HistoryEvent[];
  /** The moment of ranking, whole milliseconds since 1970. Default: now. */
  nowMillis?: number;
  signal?: AbortSignal;
}

/** What a search has found. */
export interface Found {
  modelVersion: number;
  /** Best first. `similarity` is the cosine of both texts, from −1 to 1; `score` is the same unless `taste` is given. */
  items: { itemId: string; score: number; similarity: number }[];
}

/** An item that the server has never seen. */
export interface NewItem {
  /** Any id that tells it from the others; it is only given back. */
  itemId: string;
  /** Title and text, as the server would be given them. */
  text: string;
}

/** For whom new items are ranked. */
export interface RankNewOptions {
  /** Events of the visitor, oldest first. Default: the kept history. */
  history?: HistoryEvent[];
  /** The moment of ranking, whole milliseconds since 1970. Default: now. */
  nowMillis?: number;
  signal?: AbortSignal;
}

/** New items in their order. */
export interface NewRanking {
  modelVersion: number;
  /** Best first. */
  items: { itemId: string; score: number }[];
}

/** What may be answered as similar. */
export interface SimilarOptions {
  /** Ids of items that may be answered; unknown and unavailable ones are left out. Default: the whole catalogue. */
  candidates?: string[];
  /** Whether an item may be answered; see `RankOptions`. */
  filter?: (itemId: string) => boolean;
  /** How many to return. Default 10. */
  k?: number;
  /** Leaves out items of the history. Default `false`. */
  excludeSeen?: boolean;
  /** What `excludeSeen` looks at. Default: the kept history. */
  history?: HistoryEvent[];
  signal?: AbortSignal;
}

/** Items that are like those asked about. */
export interface Similar {
  /** Version whose vectors were compared. */
  modelVersion: number;
  /** Most alike first, without the items asked about. */
  items: {
    itemId: string;
    /** Mean cosine with the items asked about, −1 to 1. */
    similarity: number;
  }[];
}

/** How places are drawn; exactly one of `temperature` and `epsilon`. */
export interface Exploration {
  /** Each place goes to an item in proportion to e^(score / temperature) among those not placed yet. 0.001 to 1000. */
  temperature?: number;
  /** Share of places that go to any item not placed yet, the others to the best of them. 0 to 1. */
  epsilon?: number;
  /** How many of the best items take part; those behind follow in order. Default 100, at most 1000. */
  pool?: number;
  /** The same seed draws the same list. Default: a random one for every call. */
  seed?: number;
}

/** For whom a score is explained, and at which length. */
export interface ExplainOptions {
  /** Events of the visitor, oldest first. Default: the kept history. */
  history?: HistoryEvent[];
  /** How many events to name at most. Default 10. */
  k?: number;
  /** The moment of ranking, whole milliseconds since 1970. Default: now. */
  nowMillis?: number;
  signal?: AbortSignal;
}

/** Why an item has its score. */
export interface Explanation {
  /** Version that scored. */
  modelVersion: number;
  itemId: string;
  /** The sum of `parts`. */
  score: number;
  parts: {
    /** How well the item's text goes with the history. */
    text: number;
    /** The same of the operator's features. */
    features: number;
    /** The same of what was learned about this very item beyond text and features. */
    idRow: number;
    /** How much the item was wanted lately, by everybody. */
    prior: number;
    /** How often it was had together with items of the history. */
    neighbours: number;
    /** What was learned about it whatever the history. */
    bias: number;
  };
  /** Means over all items for this history: hold the parts against these. `taste` is that of text, features and id row. */
  average: { taste: number; prior: number; neighbours: number; bias: number };
  /** The score minus the score of the same item without its text. */
  textEffect: number;
  /** Events that the model reads, largest effect first, whether it raised or lowered the score. */
  events: EventEffect[];
}

/** An event of the history, and what it did to the score. */
export interface EventEffect extends HistoryEvent {
  /** The score minus the score without this event: `taste + neighbours`. */
  effect: number;
  /** What of it went through the attention over the history. */
  taste: number;
  /** What of it went through the table of items that go together. */
  neighbours: number;
}

/** Items in their order. */
export interface Ranking {
  /** Version that scored. */
  modelVersion: number;
  /** Best first, or as drawn, or as rules and diversity want it. */
  items: RankedItem[];
  /** Required items that are not among them: unknown, not available, excluded, filtered, or behind the end. */
  missing: string[];
  /** Whether the personal model had a say: it was wanted, and has foretold this history better than the version. */
  isPersonal: boolean;
}

/** An item and why it has its place. */
export interface RankedItem {
  itemId: string;
  /** The model's own, which `explain` explains. Higher is better; comparable within one ranking only. */
  score: number;
  /** What rules and the personal model added to the score, or took from it. */
  points: number;
  /** Whether a rule gave it this place. */
  isRequired: boolean;
  /**
   * Probability of standing at this place, given the places before and the rules; 1 without exploration, and for
   * required items.
   * Pass it on with the impression, so that the server knows what was chosen by chance.
   */
  propensity: number;
  /** Arm of an experiment that the list is of, as `experiment/arm`. Pass it on with the impression. */
  arm?: string;
}

/** What a visitor did, or was shown. */
export type EventKind =
  | 'impression'
  | 'view'
  | 'click'
  | 'add_to_cart'
  | 'purchase'
  | 'like'
  | 'dislike'
  | 'rating'
  | 'skip'
  | 'watch';

/** Something that the visitor did. */
export interface HistoryEvent {
  itemId: string;
  kind: EventKind;
  /** Whole milliseconds since 1970. */
  occurredAt: number;
}

/** What `history.export` gives and `history.import` takes: plain JSON. */
export interface ExportedHistory {
  format: 'freshet-history';
  formatVersion: 1;
  /** Name of the model; not looked at on import, since ids that a model does not hold are passed over anyway. */
  model: string;
  /** Oldest first. */
  events: HistoryEvent[];
}

/** Something to be reported. What is left out is filled in. */
export interface FeedbackEvent {
  kind: EventKind;
  /** At most 128 bytes of UTF-8, without control characters. */
  itemId: string;
  /** Milliseconds since 1970, rounded. Default: now. */
  occurredAt?: number;
  /** Grade, share watched or amount. */
  value?: number;
  /** Default: a random id. The server learns from each id once. */
  eventId?: string;
  /** The impression that this event answers. */
  impressionId?: string;
  /** Zero-based position at which the item was shown. */
  position?: number;
  /** Probability with which it was shown there. */
  propensity?: number;
  /** Arm of an experiment that the list was of. */
  arm?: string;
  /** Version that ranked the item. Default: the live one. */
  modelVersion?: number;
}

/** When an item counts as seen, and what is said of its place. */
export interface ObserveOptions {
  /** Zero-based position at which the item is shown. */
  position?: number;
  /** Probability with which it is shown there. Default: that of the ranked item. */
  propensity?: number;
  /** Arm of an experiment that the list is of. Default: that of the ranked item. */
  arm?: string;
  /** Version that ranked the item. Default: the live one; for a list, that of its ranking. */
  modelVersion?: number;
  /**
   * How much of the element has to be visible, above 0 to 1. Default 0.5. An element that fills that much of the screen
   * counts too.
   */
  visibleShare?: number;
  /** For how long without a break, up to 60 000 milliseconds. Default 1000. A hidden page stops the clock. */
  visibleMillis?: number;
  /** Called with the id of the impression, for `impressionId` of the events that answer it. */
  onImpression?: (eventId: string) => void;
}

/** What `observeList` takes: what a call has answered, or the list of a binding. */
export interface Shown {
  /** Version that ranked; `null` for the live one. */
  readonly modelVersion: number | null;
  readonly items: readonly { readonly itemId: string; readonly propensity?: number; readonly arm?: string }[];
}

/** What `feedback` answers at once. */
export interface FeedbackReceipt {
  eventId: string;
  /** Settles when the server has answered for the event; never rejects. */
  delivered: Promise<Delivery>;
}

/** What has become of an event. */
export interface Delivery {
  /**
   * `accepted`: stored on disk by the server, at `offset` or before.
   * `rejected`: refused, see `code`. `withheld`: consent is denied. `dropped`: the queue was full.
   * `queued`: this Freshet was disposed before an answer came; another tab or the next page sends it.
   */
  status: 'accepted' | 'rejected' | 'withheld' | 'dropped' | 'queued';
  /** End of the server's log after this event; learned once `learnedThrough` has reached it. */
  offset?: number;
  code?: string;
  detail?: string;
}

/** Where scores are computed. */
export type Backend = 'cpu' | 'webgpu';
/** Whether feedback may be sent: `'auto'` is yes, unless the browser sends Global Privacy Control. */
export type Consent = 'granted' | 'denied' | 'auto';

/** How much of the model has come. */
export interface Progress {
  bytesReceived: number;
  bytesTotal: number;
}

/** What a page ranks with, and how it stands with the server. */
export interface FreshetStatus {
  model: string;
  /** Live version; `null` before the first. */
  version: number | null;
  backend: Backend | null;
  /** A sentence on why this backend is used. */
  backendReason: string;
  /** Where the engine runs; `page` where workers are refused or not wanted; `null` before it has started. */
  runsIn: 'worker' | 'page' | null;
  /** Whether the announcement stream is open (in this tab or in the one that holds it). */
  isOnline: boolean;
  /** Whether this page is held at its version by `pin`. */
  isPinned: boolean;
  /** Revision of the rules of the server's operators that lists follow; `null` where none are known. */
  moderationRevision: number | null;
  /** Events before this offset of the server's log are learned. */
  learnedThrough: number | null;
  /** BLAKE3 of the live codes, equal to the server's. */
  stateHash: string | null;
  numItems: number;
  /** When the live version was made, milliseconds since 1970. */
  createdAt: number | null;
  ageMillis: number | null;
  /** Bytes of model received by this page. */
  bytesReceived: number;
  /** Feedback of this page that is not acknowledged yet. */
  eventsWaiting: number;
  consent: 'granted' | 'denied';
  /** The personal model as of the last ranking that wanted it; `null` before. */
  personal: PersonalStatus | null;
}

/** What the personal model has learned of a visitor. */
export interface PersonalStatus {
  /** Whether it has a say: where `gain` is above 0. */
  isOn: boolean;
  /** Events of the history that it foretold and then learned from. */
  eventsLearned: number;
  /** Nats by which it foretold them better than the version, all together. */
  gain: number;
}

/** What `on` tells of, by name, each with what its listener is called with. */
export interface FreshetEvents {
  /** A new version ranks from now on, or other rules of the server's operators hold. */
  update: FreshetStatus;
  /** Other rules of the server's operators hold: a list that is shown may hold what they have blocked. */
  moderation: FreshetStatus;
  /** The backend changed, or was decided. */
  backend: FreshetStatus;
  /** Something went wrong and was dealt with; ranking goes on where a version is live. */
  error: { code: FreshetErrorCode; message: string; eventId?: string };
  progress: Progress;
  /** The announcement stream opened or broke. */
  online: { isOnline: boolean; reason: string };
  /** The server stored these events, of this page or left by one that has gone. */
  delivered: { eventIds: string[]; offset: number };
  /**
   * An event that is given up: refused by the server (`code` is the server's), too large for any request (`too_large`),
   * or one at which the server failed again and again while it took others (`http_500`).
   */
  rejected: { eventId: string; kind: EventKind; itemId: string; code: string; detail: string };
  /** Consent was changed, by this page or in another tab. */
  consent: { consent: 'granted' | 'denied' };
  /** The engine ended and a fresh one starts from the cache. */
  restart: { code: FreshetErrorCode; message: string; numRestarts: number };
}

/** Stable codes; others may be added. */
export type FreshetErrorCode =
  | 'unreachable'
  | 'server_error'
  | 'no_model'
  | 'aborted'
  | 'disposed'
  | 'unsupported'
  | 'invalid_option'
  | 'module_load_failed'
  | 'worker_refused'
  | 'worker_failed'
  | 'engine_stopped'
  | 'panic'
  | 'hung'
  | 'backend_failed'
  /** The browser took the graphics device away. */
  | 'device_lost'
  | 'self_test_failed'
  | 'unknown_item'
  | 'too_long'
  /** The server gives pages no text encoder, or the model has no texts. */
  | 'no_text_encoder'
  | 'no_texts'
  | 'text_failed'
  | 'identity_changed'
  | 'expired'
  /** The clock of this device is wrong; the last good model ranks on. */
  | 'clock_skew'
  | 'unknown_key'
  | 'bad_signature'
  | 'key_expired'
  | 'unknown_root'
  | 'no_key_set'
  | 'stale_key_set'
  | 'key_set_expired'
  | 'stale'
  | 'event_rejected'
  | 'queue_full'
  | (string & {});
