//! The shelf: the best items for this visitor, moved into place when the order changes.

import { cardOf } from './cards.js';

const calm = matchMedia('(prefers-reduced-motion: reduce)');

export class Shelf {
  #list;
  #catalogue;
  #onAct;
  #onWhy;
  /** Cards by item id, reused while an item stays on the shelf. */
  #cards = new Map();

  /**
   * @param {HTMLElement} list
   * @param {import('./catalogue.js').Catalogue} catalogue
   * @param {(kind: string, item: object, card: HTMLElement) => void} onAct
   * @param {(item: object) => void} onWhy
   */
  constructor(list, catalogue, onAct, onWhy) {
    this.#list = list;
    this.#catalogue = catalogue;
    this.#onAct = onAct;
    this.#onWhy = onWhy;
  }

  /**
   * Shows `itemIds` in this order; answers those that were not on the shelf before.
   * @param {string[]} itemIds
   * @returns {{itemId: string, position: number}[]}
   */
  show(itemIds) {
    const before = new Map([...this.#cards].map(([itemId, card]) => [itemId, card.getBoundingClientRect().left]));
    const focused = document.activeElement;
    const cards = new Map();
    const fresh = [];
    itemIds.forEach((itemId, position) => {
      const item = this.#catalogue.byId.get(itemId);
      if (!item) return;
      if (!this.#cards.has(itemId)) fresh.push({ itemId, position });
      cards.set(itemId, this.#cards.get(itemId) ?? cardOf(item, this.#onAct, this.#onWhy));
    });
    this.#cards = cards;
    const { scrollLeft } = this.#list;
    this.#list.replaceChildren(...cards.values());
    this.#list.scrollLeft = scrollLeft;
    if (focused instanceof HTMLElement && focused.isConnected) focused.focus({ preventScroll: true });
    if (!calm.matches && before.size > 0) this.#move(before);
    return fresh;
  }

  /** First-last-invert-play: each card slides from where it was. */
  #move(before) {
    for (const [itemId, card] of this.#cards) {
      const left = card.getBoundingClientRect().left;
      const from = before.get(itemId);
      const frames =
        from === undefined
          ? [{ opacity: 0, transform: 'translateY(14px) scale(.97)' }, { opacity: 1, transform: 'none' }]
          : [{ transform: `translateX(${from - left}px)` }, { transform: 'none' }];
      if (from !== left) card.animate(frames, { duration: 420, easing: 'cubic-bezier(.2,.8,.2,1)' });
    }
  }
}
