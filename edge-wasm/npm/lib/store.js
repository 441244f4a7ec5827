//! IndexedDB behind promises. Three stores: `versions` (the verified cache), `events` (the feedback queue), and `drawn`
//! (what is drawn by chance once and kept).
//!
//! Storage is only an optimisation: it can be missing, full or evicted at any time.
//! So every failure here means "not stored" and is answered with the fallback, never thrown.

const DATABASE = 'freshet';
const SCHEMA_VERSION = 2;
/** Storage that says nothing for so long is taken for missing: some browsers leave requests unanswered for good. */
const ANSWER_MILLIS_MAX = 500;

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
    request.onblocked = () => resolve(undefined);
  });
}

/**
 * What `promise` resolves to, or what `fallback` answers where that takes longer than `millis`.
 * @template T
 * @param {number} millis
 * @param {Promise<T>} promise
 * @param {() => T} fallback
 * @returns {Promise<T>}
 */
function orAfter(millis, promise, fallback) {
  return new Promise((resolve) => {
    const timer = setTimeout(() => resolve(fallback()), millis);
    void promise.then((value) => {
      clearTimeout(timer);
      resolve(value);
    });
  });
}

export class Store {
  /** @type {Promise<IDBDatabase | undefined> | undefined} */
  #database;

  /**
   * Runs `body` in one transaction and answers with the result of the request that it returns.
   * @template T
   * @param {'versions' | 'events' | 'drawn'} storeName
   * @param {IDBTransactionMode} mode
   * @param {(store: IDBObjectStore) => IDBRequest<T> | void} body
   * @param {T} fallback
   * @returns {Promise<T>}
   */
  async #run(storeName, mode, body, fallback) {
    this.#database ??= orAfter(ANSWER_MILLIS_MAX, openDatabase(), () => undefined);
    const database = await this.#database;
    if (!database) return fallback;
    const ran = new Promise((resolve) => {
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
    return orAfter(ANSWER_MILLIS_MAX, ran, () => {
      this.#database = Promise.resolve(undefined); // and nothing else is waited for
      return fallback;
    });
  }

  /** @param {'versions' | 'events'} storeName @param {string} key */
  get(storeName, key) {
    return this.#run(storeName, 'readonly', (store) => store.get(key), undefined);
  }

  /** @param {string} key @param {object} version */
  putVersion(key, version) {
    return this.#run('versions', 'readwrite', (store) => void store.put(version, key), undefined);
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
    return (await this.#run('drawn', 'readwrite', body, undefined)) ?? value;
  }

  /** @param {string} prefix of keys @param {number} limit @returns {Promise<object[]>} in the order of keys */
  listEvents(prefix, limit) {
    return this.#run('events', 'readonly', (store) => store.getAll(keysFrom(prefix), limit), []);
  }

  /** @param {object[]} records each with its `key` */
  putEvents(records) {
    const body = (store) => {
      for (const record of records) store.put(record);
      store.transaction.commit(); // at once: a tab that dies before it would have done so leaves nothing behind
    };
    return this.#run('events', 'readwrite', body, undefined);
  }

  /** @param {'versions' | 'events'} storeName @param {string[]} keys */
  remove(storeName, keys) {
    const body = (store) => keys.forEach((key) => store.delete(key));
    return this.#run(storeName, 'readwrite', body, undefined);
  }

  /** @param {string} prefix of keys */
  clearEvents(prefix) {
    return this.#run('events', 'readwrite', (store) => void store.delete(keysFrom(prefix)), undefined);
  }

  async close() {
    const database = await this.#database;
    this.#database = undefined;
    database?.close();
  }
}

/** All keys that begin with `prefix`. */
function keysFrom(prefix) {
  return IDBKeyRange.bound(prefix, `${prefix}\uffff`);
}
