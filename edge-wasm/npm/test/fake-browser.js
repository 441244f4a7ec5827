//! Stand-ins for what browsers have and node lacks: storage that tabs share, and Web Locks.

/** As they are where a test makes up the clock. */
const { setTimeout: trueSetTimeout } = globalThis;

/** Stands for IndexedDB. */
export class MemoryStore {
  events = new Map();
  async listEvents(prefix, limit) {
    const records = [...this.events.values()].filter(({ key }) => key.startsWith(prefix));
    return records.sort((a, b) => (a.key < b.key ? -1 : 1)).slice(0, limit);
  }
  async putEvents(records) {
    for (const record of records) this.events.set(record.key, structuredClone(record));
  }
  async remove(_store, keys) {
    for (const key of keys) this.events.delete(key);
  }
  async close() {}
  async clearEvents(prefix) {
    for (const key of this.events.keys()) if (key.startsWith(prefix)) this.events.delete(key);
  }
  /** Ids of the stored events. */
  get ids() {
    return [...this.events.values()].map(({ event }) => event.event_id);
  }
}

/** `navigator.locks` with one lock. A lock whose holder says so is never released, as that of a frozen tab. */
export class FakeLocks {
  #holder;
  #waiting = [];

  request(_name, { signal, steal = false }, hold) {
    return new Promise((resolve, reject) => {
      const asked = { hold, resolve, reject };
      signal?.addEventListener('abort', () => {
        this.#waiting = this.#waiting.filter((other) => other !== asked);
        if (this.#holder !== asked) reject(signal.reason);
      });
      if (steal) {
        this.#holder?.reject(new DOMException('stolen', 'AbortError'));
        this.#holder = undefined;
        this.#waiting.unshift(asked);
      } else {
        this.#waiting.push(asked);
      }
      this.#grant();
    });
  }

  async #grant() {
    if (this.#holder) return;
    const next = (this.#holder = this.#waiting.shift());
    if (!next) return;
    next.resolve(await next.hold());
    if (this.#holder !== next) return; // stolen
    this.#holder = undefined;
    this.#grant();
  }
}

/** Gives this process a `navigator` until the test ends. */
export function withNavigator(t, navigator) {
  const saved = Object.getOwnPropertyDescriptor(globalThis, 'navigator');
  Object.defineProperty(globalThis, 'navigator', { value: navigator, configurable: true });
  t.after(() => {
    if (saved) Object.defineProperty(globalThis, 'navigator', saved);
    else delete globalThis.navigator;
  });
}

/** Local storage until the test ends, with `entries` in it. @param {[string, string][]} [entries] @returns {Map<string, string>} */
export function withLocalStorage(t, entries = []) {
  const stored = new Map(entries);
  globalThis.localStorage = {
    getItem: (key) => stored.get(key) ?? null,
    setItem: (key, text) => stored.set(key, text),
    removeItem: (key) => stored.delete(key),
  };
  t.after(() => delete globalThis.localStorage);
  return stored;
}

/** Waits until `holds`, at most for ten seconds. */
export async function until(holds) {
  const before = Date.now() + 10_000;
  while (!holds()) {
    if (Date.now() > before) throw new Error(`never came true: ${holds}`);
    await new Promise((resolve) => trueSetTimeout(resolve, 2));
  }
}

/** Lets a made-up clock run for so long, and all that follows from it happen. */
export async function passMillis(t, millis) {
  for (let step = 0; step < 10; step += 1) {
    t.mock.timers.tick(millis / 10);
    await new Promise(setImmediate);
  }
}
