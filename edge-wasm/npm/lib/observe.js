//! Which elements show which items, for impressions; what watches them is loaded when the first one is given.

import { invalid } from './errors.js';
import { ID_OF_ITEM, isId } from './ids.js';
import { checkReport } from './wire.js';

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
    checkElement('element', element);
    if (!isId(itemId)) throw invalid('item', `an item of a ranking, or ${ID_OF_ITEM}`, itemId);
    if (!(visibleShare > 0 && visibleShare <= 1)) throw invalid('visibleShare', 'a number above 0, at most 1', visibleShare);
    if (!(visibleMillis >= 0 && visibleMillis <= 60_000)) throw invalid('visibleMillis', 'a number from 0 to 60000', visibleMillis);
    const impression = { propensity: item.propensity, arm: item.arm, ...shown, kind: 'impression', itemId };
    checkReport(impression);
    const log = () => {
      const { eventId } = this.#report(impression);
      onImpression?.(eventId);
    };
    return this.#watch({ element, item, share: visibleShare, millis: visibleMillis, log });
  }

  /** As in `index.d.ts`. */
  observeList(container, ranking, options) {
    checkElement('container', container);
    const { modelVersion, items } = ranking ?? {};
    if (!Array.isArray(items)) throw invalid('ranking', 'what `recommend`, `rank` or `similar` has answered', ranking);
    const children = [...container.children].slice(0, items.length);
    const stops = children.map((element, position) =>
      this.observe(element, items[position], { modelVersion, ...options, position }),
    );
    return () => stops.forEach((stop) => stop());
  }

  dispose() {
    this.#impressions?.then((impressions) => impressions.dispose(), () => {}); // a failure was told
  }

  /** Once the script is there. */
  #watch(asked) {
    let stop;
    let isWanted = true;
    this.#impressions ??= this.#load();
    const start = (impressions) => {
      if (isWanted) stop = impressions.observe(asked);
    };
    this.#impressions.then(start, () => {}); // a failure was told
    return () => {
      isWanted = false;
      stop?.();
    };
  }

  /** Where the script cannot be fetched now, that is told once, and it is tried again with the next element. */
  #load() {
    const loading = import('./impressions.js').then(({ Impressions }) => new Impressions());
    loading.catch(({ message }) => {
      this.#impressions = undefined;
      this.#emit('error', { code: 'module_load_failed', message: `Impressions are not logged. ${message}` });
    });
    return loading;
  }
}

function checkElement(field, element) {
  if (element?.nodeType !== 1) throw invalid(field, 'an element of this page', element);
}
