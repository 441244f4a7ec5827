//! IndexedDB behind promises. Three stores: `versions` (the verified cache), `events` (the feedback queue), and `drawn`
//! (what is drawn by chance once and kept).
//!
//! Storage is only an optimisation: it can be missing, full or evicted at any time.
//! So every failure here means "not stored" and is answered with the fallback, never thrown.

const DATABASE = 'freshet';
const SCHEMA_VERSION = 2;
/** Storage that says nothing for so long is done without until it answers: some browsers leave requests unanswered for good. */
const ANSWER_MILLIS_MAX = 500;
/** A model has some megabytes; but a page that starts waits for them. */
const READ_VERSION_MILLIS_MAX = 600;
const WRITE_VERSION_MILLIS_MAX = 10_000;

/** @returns {Promise<IDBDatabase | undefined>} */
function openDatabase() {
  return new Promise((resolve) => {
    let request;
    try {
      request = indexedDB.open(DATABASE, SCHEMA_VERSION);
    } catch {
      resolve(undefined); // storage is forbidden here
      return;
    }
    request.onupgradeneeded = () => {
      const database = request.result;
      for (const name of ['versions', 'drawn']) {
        if (!database.objectStoreNames.contains(name)) database.createObjectStore(name);
      }
      if (!database.objectStoreNames.contains('events')) {
        database.createObjectStore('events', { keyPath: 'key' });
      }
    };
    request.onsuccess = () => {
      const database = request.result;
      database.onversionchange = () => database.close(); // a page of a later release must not wait for this one
      resolve(database);
    };
    request.onerror = () => resolve(undefined);
  });
}

/**
 * Runs `body` in one transaction and answers with the result of the request that it returns, however late.
 * @template T
 * @param {Promise<IDBDatabase | undefined>} opening
 * @param {Asked<T>} asked
 * @returns {Promise<T>}
 */
async function run(opening, { storeName, mode, body, fallback }) {
  const database = await opening;
  if (!database) return fallback;
  return new Promise((resolve) => {
    try {
      const transaction = database.transaction(storeName, mode);
      const request = body(transaction.objectStore(storeName));
      transaction.oncomplete = () => resolve(request ? request.result : fallback);
      transaction.onabort = () => resolve(fallback); // for example: the quota is exceeded
      transaction.onerror = () => resolve(fallback);
    } catch {
      resolve(fallback); // the connection was closed by the browser
    }
  });
}

/**
 * @template T
 * @typedef {object} Asked of storage
 * @property {'versions' | 'events' | 'drawn'} storeName
 * @property {IDBTransactionMode} mode
 * @property {(store: IDBObjectStore) => IDBRequest<T> | void} body
 * @property {T} [fallback]
 * @property {number} [millisMax] how long an answer is waited for
 */

export class Store {
  /** @type {Promise<IDBDatabase | undefined> | undefined} */
  #database;
  /** Requests that were not answered in time. */
  #numLate = 0;

  /** Whether there is storage here that answers. */
  async isThere() {
    if (this.#numLate > 0) return false;
    const opened = this.#open().then(Boolean);
    return this.#inTime(opened, false, ANSWER_MILLIS_MAX);
  }

  /** @param {'versions' | 'events'} storeName @param {string} key */
  get(storeName, key) {
    const millisMax = storeName === 'versions' ? READ_VERSION_MILLIS_MAX : ANSWER_MILLIS_MAX;
    return this.#run({ storeName, mode: 'readonly', body: (store) => store.get(key), millisMax });
  }

  /**
   * Answers whether it is stored now.
   * @param {string} key
   * @param {object} version
   */
  async putVersion(key, version) {
    const body = (store) => store.put(version, key);
    const storedAs = await this.#run({ storeName: 'versions', mode: 'readwrite', body, millisMax: WRITE_VERSION_MILLIS_MAX });
    return storedAs !== undefined;
  }

  /**
   * What was drawn for `key` before, or `value`, which it has from now on. Whoever asks at the same time, in another tab,
   * gets the same.
   * @template T
   * @param {string} key
   * @param {T} value
   * @returns {Promise<T>}
   */
  async drawnOnce(key, value) {
    const body = (store) => {
      const found = store.get(key);
      found.onsuccess = () => {
        if (found.result === undefined) store.put(value, key);
      };
      return found;
    };
    return (await this.#run({ storeName: 'drawn', mode: 'readwrite', body })) ?? value;
  }

  /** @param {string} prefix of keys @param {number} limit @returns {Promise<object[]>} in the order of keys */
  listEvents(prefix, limit) {
    const body = (store) => store.getAll(keysFrom(prefix), limit);
    return this.#run({ storeName: 'events', mode: 'readonly', body, fallback: [] });
  }

  /** @param {object[]} records each with its `key` */
  putEvents(records) {
    const body = (store) => {
      for (const record of records) store.put(record);
      store.transaction.commit(); // at once: a tab that dies before it would have done so leaves nothing behind
    };
    return this.#run({ storeName: 'events', mode: 'readwrite', body });
  }

  /** @param {'versions' | 'events'} storeName @param {string[]} keys */
  remove(storeName, keys) {
    const body = (store) => {
      for (const key of keys) store.delete(key);
      store.transaction.commit(); // at once: the worker of a version that makes it panic is ended
    };
    return this.#run({ storeName, mode: 'readwrite', body });
  }

  /** @param {string} prefix of keys */
  clearEvents(prefix) {
    const asked = { storeName: 'events', mode: 'readwrite', body: (store) => void store.delete(keysFrom(prefix)) };
    // Storage that is silent now forgets too, once it speaks.
    return this.#inTime(run(this.#open(), asked), undefined, ANSWER_MILLIS_MAX);
  }

  /** Also what is still being opened. */
  close() {
    const closed = this.#database?.then((database) => database?.close());
    this.#database = undefined;
    return this.#inTime(Promise.resolve(closed), undefined, ANSWER_MILLIS_MAX);
  }

  #open() {
    this.#database ??= openDatabase();
    return this.#database;
  }

  /**
   * @template T
   * @param {Asked<T>} asked
   * @returns {Promise<T>}
   */
  async #run(asked) {
    const { fallback, millisMax = ANSWER_MILLIS_MAX } = asked;
    if (this.#numLate > 0) return fallback; // nothing else is answered before
    return this.#inTime(run(this.#open(), asked), fallback, millisMax);
  }

  /**
   * What `answer` resolves to, or `fallback` where that takes too long.
   * @template T
   * @param {Promise<T>} answer
   * @param {T} fallback
   * @param {number} millisMax
   * @returns {Promise<T>}
   */
  #inTime(answer, fallback, millisMax) {
    return new Promise((resolve) => {
      const late = () => {
        this.#numLate += 1;
        void answer.then(() => (this.#numLate -= 1));
        resolve(fallback);
      };
      const timer = setTimeout(late, this.#numLate > 0 ? 0 : millisMax);
      void answer.then((value) => {
        clearTimeout(timer);
        resolve(value);
      });
    });
  }
}

/** All keys that begin with `prefix`. */
function keysFrom(prefix) {
  return IDBKeyRange.bound(prefix, `${prefix}\uffff`);
}
