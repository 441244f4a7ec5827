// Bias and coverage: what lists hold beside what people do.

import { request, titlesOf } from './api.js';
import { bars } from './charts.js';
import { card, make, number, percent, table, tiles } from './elements.js';

/** @param {HTMLElement} page */
export async function bias(page) {
  const report = await request('/v1/coverage');
  const titles = await titlesOf(report.most_exposed.map((item) => item.item_id));
  const tenths = report.tenths;
  const amplified = tenths[0].exposure - tenths[0].events;
  page.append(
    make('p.intro', {}, `The lists of ten that version ${report.model_version} makes for the ${number(report.num_users)} users seen last, without what they have had. Exposure discounts places as DCG does; events are decayed counts at the longest half-life.`),
    tiles([
      ['Catalogue coverage', percent(report.coverage), `${number(report.num_listed)} of ${number(report.num_items)} items are in a list`],
      ['Gini of exposure', number(report.gini_exposure, 3), '0 even, 1 one item has all'],
      ['Gini of events', number(report.gini_events, 3)],
      ['Most popular tenth', `${amplified < 0 ? '' : '+'}${percent(amplified)}`, 'exposure beyond its events'],
      ['New items', percent(report.exposure_without_events), 'exposure of items without events'],
    ]),
    make(
      'div.cards',
      {},
      card('By popularity', bars({ label: 'Shares by tenth of popularity', names: tenths.map((_, place) => `${place + 1}`), format: (value) => percent(value, 0), series: [{ name: 'exposure', values: tenths.map((tenth) => tenth.exposure) }, { name: 'events', values: tenths.map((tenth) => tenth.events) }] }), make('p.note', {}, 'Tenths of the items, most popular first. Where the first bar of exposure is much higher than that of events, the model makes popular items more popular: train.popularity_correction takes that out.')),
      card('Most exposed', table([['Item'], ['Exposure', true], ['Events', true], ['Ratio', true]], report.most_exposed.map((item) => [titles.get(item.item_id) ?? item.item_id, percent(item.exposure, 2), percent(item.events, 2), item.events ? number(item.exposure / item.events, 1) : '–']))),
    ),
  );
}
