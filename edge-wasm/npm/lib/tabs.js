//! One tab of an origin leads, and all of them hear each other over a `BroadcastChannel`.
//!
//! The holder of a Web Lock leads; when its tab dies, the browser hands the lock to the next. A leader that is frozen can be
//! replaced by `takeOver`. Where Web Locks or channels are missing or refused, every tab leads, alone.

import { openChannel } from './channel.js';

export class Tabs {
  #name;
  #onLead;
  #onLost;
  #onMessage;
  /** @type {BroadcastChannel | undefined} */
  #channel;
  #request = new AbortController();
  #release = () => {};
  #isLeader = false;
  #isAlone = false;

  /**
   * @param {string} name the same in all tabs
   * @param {object} on
   * @param {() => void} on.onLead
   * @param {() => void} on.onLost it leads no longer
   * @param {(message: any) => void} on.onMessage from another tab
   */
  constructor(name, { onLead, onLost, onMessage }) {
    this.#name = name;
    this.#onLead = onLead;
    this.#onLost = onLost;
    this.#onMessage = onMessage;
  }

  get isLeader() {
    return this.#isLeader;
  }

  /** Whether this tab knows nothing of others. */
  get isAlone() {
    return this.#isAlone;
  }

  /**
   * Leads at once where nobody does, else once all before it have gone. May be called again.
   * @returns {boolean} whether it has joined just now
   */
  join() {
    if (this.#channel || this.#isAlone) return false;
    this.#channel = globalThis.navigator?.locks && openChannel(this.#name);
    if (this.#channel) {
      this.#channel.onmessage = ({ data }) => this.#onMessage(data);
      this.#queueUp();
    } else {
      this.#leadAlone();
    }
    return true;
  }

  /** Tells all other tabs. */
  post(message) {
    this.#channel?.postMessage(message);
  }

  /** Leads in the place of whoever does. */
  takeOver() {
    if (this.#channel && !this.#isLeader) this.#queueUp(true);
  }

  /** Lets another tab lead, and hears no more. */
  leave() {
    this.#request.abort();
    this.#channel?.close();
    this.#channel = undefined;
    this.#isAlone = false;
    this.#release();
    this.#lost();
  }

  #queueUp(isTakingOver = false) {
    this.#request.abort(); // the place in the queue that it had before
    const request = new AbortController();
    this.#request = request;
    const hold = () =>
      new Promise((release) => {
        if (request.signal.aborted) return release(); // it left in the meantime
        this.#release = release;
        this.#lead();
      });
    const options = isTakingOver ? { steal: true } : { signal: request.signal };
    const held = async () => navigator.locks.request(this.#name, options, hold); // refused by throwing or by rejecting
    held().catch(() => {
      if (request.signal.aborted) return;
      if (this.#isLeader) {
        this.#lost(); // another tab took over
        this.#queueUp();
      } else {
        this.#leadAlone(); // refused here, as in a sandboxed frame
      }
    });
  }

  #leadAlone() {
    this.#channel?.close();
    this.#channel = undefined;
    this.#isAlone = true;
    this.#lead();
  }

  #lead() {
    this.#isLeader = true;
    this.#onLead();
  }

  #lost() {
    if (!this.#isLeader) return;
    this.#isLeader = false;
    this.#onLost();
  }
}
