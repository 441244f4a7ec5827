//! The version that a page keeps for its next visit: read at the start, and written when what ranks has been there a while.
//!
//! Not here: whether what was read may be believed (the engine), and storage itself (`store.js`).

/**
 * Writing the cache costs an encode of the whole model (0.3 s for 4,000 items with texts), so a busy stream writes it
 * this often at most, and when the page is hidden.
 */
const WRITE_INTERVAL_MILLIS = 300_000;
const FIRST_WRITE_MILLIS = 1_500;

/**
 * @typedef {object} Kept
 * @property {number} version
 * @property {Uint8Array} manifest
 * @property {Uint8Array} snapshot
 * @property {Uint8Array} [edgeState] what was seen under the pinned root
 * @property {string[]} keys that it was believed by
 */

export class VersionCache {
  #store;
  #key;
  #isWanted;
  #signal;
  #read;
  #onError;
  /** What is known to be stored. */
  #storedVersion = -1;
  #hasWritten = false;
  #timer;

  /**
   * @param {object} options
   * @param {import('./store.js').Store} options.store
   * @param {import('./host.js').HostConfig} options.config
   * @param {AbortSignal} options.signal of the host's end
   * @param {(stored: number) => Promise<Kept | undefined>} options.read what ranks, unless that is version `stored`
   * @param {(error: unknown) => void} options.onError
   */
  constructor({ store, config, signal, read, onError }) {
    this.#store = store;
    this.#key = `${config.url} ${config.model}`;
    this.#isWanted = config.cache;
    this.#signal = signal;
    this.#read = read;
    this.#onError = onError;
    signal.addEventListener('abort', () => clearTimeout(this.#timer), { once: true });
  }

  /** @returns {Promise<Kept | undefined>} what an earlier page left */
  async find() {
    return this.#isWanted ? this.#store.get('versions', this.#key) : undefined;
  }

  get #rulesKey() {
    return `rules ${this.#key}`;
  }

  /** What was found ranks now. @param {number} version */
  setStored(version) {
    this.#storedVersion = version;
    this.#hasWritten = true;
  }

  /** Another server, or a version that cannot be taken. */
  async forget() {
    this.#storedVersion = -1;
    this.#hasWritten = false;
    await this.#store.remove('versions', [this.#key, this.#rulesKey]);
  }

  /** @returns {Promise<Uint8Array | undefined>} the rules of operators that an earlier page left, signed */
  async findRules() {
    return this.#isWanted ? (await this.#store.get('versions', this.#rulesKey))?.note : undefined;
  }

  /** @param {Uint8Array} note */
  async keepRules(note) {
    if (this.#isWanted && !this.#signal.aborted) await this.#store.putVersion(this.#rulesKey, { note });
  }

  /** Writes what ranks now. */
  async write() {
    if (!this.#isWanted || this.#signal.aborted) return;
    if (!(await this.#store.isThere())) return; // encoding takes long
    this.#hasWritten = true;
    const kept = await this.#read(this.#storedVersion);
    if (!kept) return;
    const isStored = await this.#store.putVersion(this.#key, kept);
    if (isStored) this.#storedVersion = kept.version;
  }

  /** Writes what ranks in a while; what has come until then is written with it. */
  writeSoon() {
    if (!this.#isWanted || this.#timer !== undefined) return;
    const delay = this.#hasWritten ? WRITE_INTERVAL_MILLIS : FIRST_WRITE_MILLIS;
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      this.write().catch(this.#onError);
    }, delay);
  }

  /**
   * A number that this browser has drawn for this model once, or `drawn` from now on.
   * @param {string} name
   * @param {number} drawn
   */
  async drawnOnce(name, drawn) {
    return this.#isWanted ? this.#store.drawnOnce(`${name} ${this.#key}`, drawn) : drawn;
  }

  async close() {
    await this.#store.close();
  }
}
