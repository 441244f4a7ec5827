// To be tried: items that the model is least certain about, for whoever fills a shelf by hand.

import { request, titlesOf } from './api.js';
import { card, make, number, percent, table } from './elements.js';

/** @param {HTMLElement} page */
export async function uncertain(page) {
  const { items, model_version: version } = await request('/v1/explore?k=100');
  const titles = await titlesOf(items.map((item) => item.item_id));
  page.append(
    make('p.intro', {}, `Items that are believed to be wanted and have hardly been tried, by version ${version}. Showing them teaches most. The list is also at /v1/explore?format=tsv.`),
    card('Least certain', table([['Item'], ['Id'], ['Share wanted', true], ['Events', true], ['May be off by', true]], items.map((item) => [titles.get(item.item_id) ?? '–', item.item_id, percent(item.share, 3), number(item.num_events, 1), percent(item.uncertainty, 3)]))),
  );
}
