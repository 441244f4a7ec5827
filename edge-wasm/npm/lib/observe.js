//! Which elements show which items, for impressions; what watches them is loaded when the first one is given.

import { invalid } from './errors.js';
import { ID_OF_ITEM, isId } from './ids.js';

export class Observed {
  #report;
  #emit;
  /** @type {Promise<import('./impressions.js').Impressions> | undefined} */
  #impressions;

  /**
   * @param {(event: object) => {eventId: string}} report
   * @param {(name: string, detail: object) => void} emit
   */
  constructor(report, emit) {
    this.#report = report;
    this.#emit = emit;
  }

  /** As in `index.d.ts`. */
  observe(element, item, options = {}) {
    // As the Media Rating Council counts a display impression.
    const { visibleShare = 0.5, visibleMillis = 1000, onImpression, ...shown } = options;
    const itemId = item?.itemId ?? item;
    if (element?.nodeType !== 1) throw invalid('element', 'an element of this page', element);
    if (!isId(itemId)) throw invalid('item', `an item of a ranking, or ${ID_OF_ITEM}`, itemId);
    if (!(visibleShare > 0 && visibleShare <= 1)) throw invalid('visibleShare', 'a number above 0, at most 1', visibleShare);
    if (!(visibleMillis >= 0 && visibleMillis <= 60_000)) throw invalid('visibleMillis', 'a number from 0 to 60000', visibleMillis);
    const log = () => {
      const { eventId } = this.#report({ propensity: item.propensity, ...shown, kind: 'impression', itemId });
      onImpression?.(eventId);
    };
    return this.#watch({ element, item, share: visibleShare, millis: visibleMillis, log });
  }

  /** As in `index.d.ts`. */
  observeList(container, { modelVersion, items }, options) {
    const children = [...container.children].slice(0, items.length);
    const stops = children.map((element, position) =>
      this.observe(element, items[position], { modelVersion, ...options, position }),
    );
    return () => stops.forEach((stop) => stop());
  }

  dispose() {
    this.#impressions?.then((impressions) => impressions.dispose(), () => {}); // a failure was told
  }

  /** Once the script is there; it is tried again with the next element where it cannot be fetched now. */
  #watch(asked) {
    let stop;
    let isWanted = true;
    this.#impressions ??= import('./impressions.js').then(({ Impressions }) => new Impressions());
    this.#impressions.then(
      (impressions) => {
        if (isWanted) stop = impressions.observe(asked);
      },
      ({ message }) => {
        this.#impressions = undefined;
        this.#emit('error', { code: 'module_load_failed', message: `Impressions are not logged. ${message}` });
      },
    );
    return () => {
      isWanted = false;
      stop?.();
    };
  }
}
