/** How a server is reached. */
export interface ClientOptions {
  /** `server.bind`. Default `http://127.0.0.1:7878`. */
  url?: string;
  /** Opens feedback. Default: the admin token. */
  ingestKey?: string;
  /** Opens ranking and status. Default: the admin token. */
  readKey?: string;
  /** `server.admin_bind`. Default `http://127.0.0.1:7879`. */
  adminUrl?: string;
  /** Opens everything. */
  adminToken?: string;
  /** For one try of one request. Default 10 000. */
  timeoutMillis?: number;
  /** How often what is safe to repeat is sent. Default 5. */
  triesMax?: number;
  /** Default: the global one. */
  fetch?: typeof fetch;
}

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

/** One thing that a user did or saw. */
export interface NewEvent {
  kind: EventKind;
  userId: string;
  itemId: string;
  /** Milliseconds since 1970-01-01 UTC. Default: now. */
  occurredAt?: number;
  /** Grade (a rating needs one), share watched or amount. */
  value?: number;
  impressionId?: string;
  position?: number;
  propensity?: number;
  modelVersion?: number;
  /** Of an impression: the arm that `recommend` answered, `experiment/arm`. */
  arm?: string;
  /** An event is stored once by its id. Default: a new one; give one to be able to send the event again. */
  eventId?: string;
}

/** An event with id and time. */
export type FeedbackEvent = NewEvent & { eventId: string; occurredAt: number };

/** A catalogue item. */
export interface Item {
  itemId: string;
  title: string;
  text?: string;
  attributes?: Record<string, unknown>;
  vectors?: Record<string, number[]>;
  available?: boolean;
}

/** Why one element was not taken. */
export interface Rejection {
  /** Position among what was sent. */
  index: number;
  code: string;
  /** JSON pointer into the body of the batch, such as `/events/2/item_id`. */
  pointer: string;
  detail: string;
}

/** What became of events or items. All that was not rejected is on the server's disk. */
export interface Receipt {
  accepted: number;
  /** Events that it had already, and items that were just so already. */
  duplicates: number;
  rejected: Rejection[];
  /** A version whose `learnedThrough` reaches it has learned from all of them. */
  offset: number;
}

export interface CallOptions {
  signal?: AbortSignal;
}

export interface SendOptions extends CallOptions {
  /** Keeps nothing, and says what would become of each. Default `false`. */
  dryRun?: boolean;
}

export interface HistoryEvent {
  itemId: string;
  kind: EventKind;
  /** Milliseconds since 1970-01-01 UTC. */
  occurredAt: number;
}

/** For whom: a user whose history the server keeps, or a history. */
export interface Question extends CallOptions {
  userId?: string;
  history?: HistoryEvent[];
  /** The moment to rank for, in milliseconds. Default: now. */
  now?: number;
}

export interface RecommendQuestion extends Question {
  /** Default 10. */
  k?: number;
  /** Default: all available items. */
  candidates?: string[];
  /** Default `true`. */
  excludeSeen?: boolean;
  /** Where the list is shown: with `userId`, the experiment that runs there decides how it is ranked. */
  place?: string;
  /** Draws places by chance. */
  exploration?: { temperature?: number; epsilon?: number; pool?: number; seed: number };
}

export interface ScoreQuestion extends Question {
  itemIds: string[];
}

export interface SearchQuestion extends Question {
  text: string;
  /** Default 10. */
  k?: number;
  /** How much the user's taste weighs, 0 to 1. Default 0. */
  taste?: number;
  candidates?: string[];
  /** Default `false`. */
  excludeSeen?: boolean;
}

export interface Ranking {
  modelVersion: number;
  /** Only in an experiment: the arm of the user. Send it along with the impressions. */
  arm?: string;
  /** Best first; `propensity` with exploration alone, `arm` where lists are interleaved. */
  items: { itemId: string; score: number; propensity?: number; arm?: string }[];
}

export interface Scores {
  modelVersion: number;
  /** In the order that was asked for; `null` where the version does not hold the item. */
  items: { itemId: string; score: number | null }[];
}

export interface Found {
  modelVersion: number;
  /** Best first; `similarity` is the cosine of both texts. */
  items: { itemId: string; score: number; similarity: number }[];
}

export interface Status {
  logOffset: number;
  learnedThrough: number | null;
  version: number | null;
  device: string | null;
  /** The whole answer. */
  raw: Record<string, unknown>;
}

/** A page of what is held of a user, as on the wire. */
export interface UserExport {
  user_id: string;
  user_hash: string;
  events: { offset: number; received_at: number; event: Record<string, unknown> }[];
  next_from: number | null;
  derived: { history: Record<string, unknown>[] };
}

/**
 * A server. It keeps no connection, so it may be shared and needs no closing. Calls that are safe to repeat are sent up
 * to `triesMax` times, with waits that double and heed `Retry-After`.
 */
export class Client {
  constructor(options?: ClientOptions);

  /** A feedback event with an id and the time, ready to be kept and sent. */
  static event(event: NewEvent): FeedbackEvent;

  /**
   * Sends events in batches. Each is accepted, known already, or rejected with a reason. Where a batch cannot be sent
   * this throws, and batches before it are stored: send the same events of `Client.event` again.
   */
  sendEvents(events: Iterable<NewEvent> | AsyncIterable<NewEvent>, options?: SendOptions): Promise<Receipt>;

  /** Adds or replaces catalogue items. */
  putItems(items: Iterable<Item> | AsyncIterable<Item>, options?: SendOptions): Promise<Receipt>;

  /** Takes items out of the catalogue. */
  deleteItems(itemIds: Iterable<string> | AsyncIterable<string>, options?: SendOptions): Promise<Receipt>;

  /** The best `k` items. */
  recommend(question: RecommendQuestion): Promise<Ranking>;

  /** Scores of given items. */
  score(question: ScoreQuestion): Promise<Scores>;

  /** Items whose texts are like a text. */
  search(question: SearchQuestion): Promise<Found>;

  /** Where the loop stands. */
  status(options?: CallOptions): Promise<Status>;

  /** Waits for a version that has learned from everything before a log offset, such as a receipt's. */
  waitUntilLearned(offset: number, options?: CallOptions & { timeoutMillis?: number }): Promise<Status>;

  /** Everything that the server holds of a user, in as many documents as it takes. */
  exportUser(userId: string, options?: CallOptions): AsyncGenerator<UserExport>;

  /** Takes all events of a user out of the log for good; answers once they are off the disk. */
  eraseUser(
    userId: string,
    options?: CallOptions,
  ): Promise<{ user_hash: string; erased_at: number; log_offset: number }>;

  /** Rows of the ledger, newest first, and `next_before` for older ones. */
  versions(
    options?: CallOptions & { limit?: number; before?: number },
  ): Promise<{ rows: ({ number: number; row: 'published' | 'refused' } & Record<string, unknown>)[]; next_before: number | null }>;

  /** Returns everyone to an earlier version, under a new number, and sets aside what was learned since. */
  rollback(
    version: number,
    options?: CallOptions & { by?: string },
  ): Promise<{ version: number; is_pinned: boolean; set_aside?: Record<string, unknown> }>;
}

/** Anything that this package throws, but for an abort, which throws the signal's reason. */
export class FreshetError extends Error {}

/** The server could not be reached, or its answer could not be read. */
export class TransportError extends FreshetError {}

/** The server refused the whole request (RFC 9457). */
export class ProblemError extends FreshetError {
  readonly status: number;
  readonly type: string;
  readonly title: string;
  readonly detail: string;
  /** What is wrong, by JSON pointer into the body or name of a parameter. */
  readonly errors: { pointer: string; code: string; detail: string }[];
}

/** A UUID of version 7 (RFC 9562). */
export function newEventId(): string;
