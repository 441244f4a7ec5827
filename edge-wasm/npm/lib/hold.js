//! Whether this page is held at the version that ranks, and what it would have taken meanwhile.
//!
//! Not here: the engine, which the host asks for nothing and tells nothing while it is held.

export class Hold {
  #isPinned;
  #hasVersion = false;
  /** Newest announcement that was not passed on. @type {string | undefined} */
  #missed;
  #waiting = [];

  /** @param {boolean} isPinned from the start: then the first version is taken and held */
  constructor(isPinned) {
    this.#isPinned = isPinned;
  }

  get isPinned() {
    return this.#isPinned;
  }

  /** Nothing is held where nothing ranks: a page without a version needs one. */
  get isHeld() {
    return this.#isPinned && this.#hasVersion;
  }

  /** @param {boolean} hasVersion whether something ranks */
  ranks(hasVersion) {
    this.#hasVersion = hasVersion;
  }

  pin() {
    this.#isPinned = true;
  }

  /** @param {string} announcement kept in the place of an older one, since the newest says it all */
  miss(announcement) {
    this.#missed = announcement;
  }

  /** @returns {string | undefined} the newest announcement that was missed */
  release() {
    const missed = this.#missed;
    this.#isPinned = false;
    this.#missed = undefined;
    for (const resolve of this.#waiting.splice(0)) resolve();
    return missed;
  }

  /** Resolves when nothing is held, or `signal` is aborted. @param {AbortSignal} signal */
  async whenFree(signal) {
    if (!this.isHeld || signal.aborted) return;
    await new Promise((resolve) => {
      this.#waiting.push(resolve);
      signal.addEventListener('abort', resolve, { once: true });
    });
  }
}
