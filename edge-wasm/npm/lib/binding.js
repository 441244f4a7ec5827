//! What the bindings for frameworks share: a Freshet that is opened when first wanted, and lists that are ranked again.
//!
//! Nothing here runs while a page is rendered, on a server or in the browser: bindings call it from what runs afterwards.

/** A busy stream brings several versions a second; nobody wants to see a list change so often. */
const LIVE_MILLIS = 1000;
const NOTHING_YET = Object.freeze({ items: [], modelVersion: null, missing: [], error: null, isLoading: true });

export const isInBrowser = () => typeof window !== 'undefined';

/** One Freshet for all components below. */
export class Shared {
  #open;
  #freshet = null;
  /** What became of consent: the next one is opened with that, whatever the page's options say. */
  #changed = {};
  #numHolders = 0;
  #listeners = new Set();

  /** @param {(changed: {consent?: 'granted' | 'denied'}) => import('../index.d.ts').Freshet} open */
  constructor(open) {
    this.#open = open;
  }

  /** The Freshet where it was opened, else `null`: for what only looks. */
  current = () => this.#freshet;

  /** @param {() => void} listener called when `current` has changed */
  subscribe = (listener) => {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  };

  /** Opens it where it is not open. Throws what `Freshet.open` throws. */
  get() {
    if (this.#freshet === null) {
      this.#freshet = this.#open(this.#changed);
      this.#freshet.on('consent', (changed) => (this.#changed = changed));
      // Effects of children come before that of their provider; what comes after it has gone must not stay open.
      if (this.#numHolders === 0) this.#disposeUnheldSoon();
      this.#tell();
    }
    return this.#freshet;
  }

  /** Opens it for whoever holds it; the answer lets go of it. */
  retain() {
    this.#numHolders += 1;
    try {
      if (isInBrowser()) this.get();
    } catch {
      // Who asks for a list or gives feedback is told.
    }
    let isHeld = true;
    return () => {
      if (!isHeld) return;
      isHeld = false;
      this.#numHolders -= 1;
      this.#disposeUnheldSoon();
    };
  }

  /** A holder that comes at once, or comes back as React's strict mode wants it, finds it open. */
  #disposeUnheldSoon() {
    setTimeout(() => {
      if (this.#numHolders > 0 || this.#freshet === null) return;
      void this.#freshet.dispose();
      this.#freshet = null;
      this.#tell();
    });
  }

  #tell() {
    for (const listener of [...this.#listeners]) listener();
  }
}

/** A list that is ranked when it starts, when it is asked to, and, if it is live, when versions come. */
export class RankedList {
  #shared;
  #rank;
  #snapshot = NOTHING_YET;
  #listeners = new Set();
  #isLive = false;
  #abort = new AbortController();
  #timer;
  #stopListening = () => {};

  /**
   * @param {Shared} shared
   * @param {(freshet: import('../index.d.ts').Freshet, signal: AbortSignal) => Promise<object>} rank
   */
  constructor(shared, rank) {
    this.#shared = shared;
    this.#rank = rank;
  }

  /** What is to be shown; another object whenever it changes. */
  snapshot = () => this.#snapshot;

  /** @param {() => void} listener */
  subscribe = (listener) => {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  };

  /** @param {boolean} [isLive] whether it follows new versions */
  start(isLive = false) {
    if (!isInBrowser()) return;
    this.stop();
    this.#isLive = isLive;
    void this.refresh();
    try {
      const freshet = this.#shared.get();
      const stops = [
        freshet.on('update', () => this.#updated(this.#isLive)),
        freshet.on('moderation', () => this.#updated(true)), // what is blocked must go from any list
      ];
      this.#stopListening = () => stops.forEach((stop) => stop());
    } catch {
      // The refresh has told it.
    }
  }

  stop() {
    this.#abort.abort();
    this.#stopListening();
    this.#stopListening = () => {};
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  /** Ranks again. Resolves when the new list is there, or why not; never rejects. */
  refresh = async () => {
    this.#abort.abort();
    const abort = new AbortController();
    this.#abort = abort;
    this.#show({ isLoading: true });
    try {
      const ranked = await this.#rank(this.#shared.get(), abort.signal);
      if (!abort.signal.aborted) this.#show({ ...ranked, error: null, isLoading: false });
    } catch (error) {
      if (!abort.signal.aborted) this.#show({ error, isLoading: false });
    }
  };

  #updated(isToFollow) {
    const isWanted = isToFollow || this.#snapshot.error !== null;
    if (!isWanted || this.#timer !== undefined) return;
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      void this.refresh();
    }, LIVE_MILLIS);
  }

  #show(change) {
    this.#snapshot = Object.freeze({ ...this.#snapshot, ...change });
    for (const listener of [...this.#listeners]) listener();
  }
}

/** Equal for options that ask for the same; functions and signals are not looked at. */
export function keyOf(options) {
  return JSON.stringify(options ?? null, (name, value) => (name === 'signal' ? undefined : value));
}

/** How each list is ranked. `options` may hold `live`, which is the binding's. */
export const RANKED_BY = {
  recommend: (freshet, { live, ...options }, signal) => freshet.recommend({ ...options, signal }),
  rank: (freshet, { live, ...options }, signal) => freshet.rank({ ...options, signal }),
  similar: (freshet, itemIds, { live, ...options }, signal) => freshet.similar(itemIds, { ...options, signal }),
};
