//! The catalogue: loading, browsing by category, searching by substring.

/** @typedef {{item_id: string, title: string, price: number, category: string, style?: string, hex?: string}} Item */

export class Catalogue {
  /** @param {Item[]} items */
  constructor(items) {
    this.items = items;
    this.byId = new Map(items.map((item) => [item.item_id, item]));
    const isRest = (category) => (category === 'Other' ? 1 : 0);
    const categories = [...new Set(items.map((item) => item.category))];
    this.categories = categories.sort((a, b) => isRest(a) - isRest(b) || a.localeCompare(b));
  }

  static async load(url) {
    const response = await fetch(url);
    if (!response.ok) throw new Error(`the catalogue answered ${response.status}`);
    return new Catalogue(await response.json());
  }

  /** Items of a category (all for '') whose title has every word of `query`. */
  find(category, query) {
    const words = query.toLowerCase().split(/\s+/).filter(Boolean);
    return this.items.filter((item) => {
      if (category && item.category !== category) return false;
      const text = `${item.title} ${item.category} ${item.style ?? ''}`.toLowerCase();
      return words.every((word) => text.includes(word));
    });
  }
}

const money = new Intl.NumberFormat('en-GB', { style: 'currency', currency: 'GBP' });

/** @param {Item} item */
export function priceOf(item) {
  return item.price > 0 ? money.format(item.price) : '';
}

/** Real titles shout; these do not. */
export function titleOf(item) {
  if (item.title !== item.title.toUpperCase()) return item.title;
  const lower = item.title.toLowerCase();
  return lower.charAt(0).toUpperCase() + lower.slice(1);
}
