// Live loop: what comes in, how far behind the newest version is, what it costs in bytes.

import { request } from './api.js';
import { lines } from './charts.js';
import { bytes, card, duration, make, number, tiles } from './elements.js';

const RESOLUTIONS = { '1s': 'last quarter of an hour', '30s': 'last day' };

/** @param {HTMLElement} page */
export async function live(page) {
  let resolution = '1s';
  const choice = make('select', { 'aria-label': 'Time shown', onchange: () => ((resolution = choice.value), refresh()) }, ...Object.entries(RESOLUTIONS).map(([value, name]) => make('option', { value }, name)));
  const shown = make('div');
  page.append(make('div.row', {}, choice), shown);

  async function refresh() {
    const [status, { samples, resolution_millis: stretch }] = await Promise.all([request('/v1/status'), request(`/v1/series?resolution=${resolution}`)]);
    const at = samples.map((sample) => sample.at);
    const perSecond = (name) => samples.map((sample) => (1000 * sample[name]) / stretch);
    const last = samples.slice(-Math.round(60_000 / stretch));
    const sum = (name) => last.reduce((total, sample) => total + sample[name], 0);
    const seconds = (last.length * stretch) / 1000;
    const fresh = last.map((sample) => sample.freshness_millis).filter((millis) => millis !== null);
    const lag = status.log_offset - (status.learned_through ?? 0);
    shown.replaceChildren(
      tiles([
        ['Events per second', number(seconds ? sum('accepted') / seconds : 0, 1), 'mean of the last minute'],
        ['Freshness', fresh.length ? duration(Math.max(...fresh)) : '–', 'longest of the last minute'],
        ['Behind', number(lag), 'records no version has learned from'],
        ['Version', status.version ?? '–', status.kind ?? 'none yet'],
        ['Delta bytes', bytes(sum('delta_bytes')), 'in the last minute'],
        ['Items', number(status.num_items)],
        ['Disk', bytes(status.store.used_bytes), `of ${bytes(status.store.disk_bytes_max)} for versions`],
      ]),
      make(
        'div.cards',
        {},
        card('Events per second', lines({ label: 'Events per second', at, format: (value) => number(value, value < 10 ? 1 : 0), series: [{ name: 'accepted', values: perSecond('accepted') }, { name: 'duplicates', values: perSecond('duplicates') }, { name: 'rejected', values: perSecond('rejected') }] })),
        card('Freshness', lines({ label: 'Freshness', at, format: duration, series: [{ name: 'from the sync of an event to the version that learned from it, longest', values: samples.map((sample) => sample.freshness_millis) }] })),
        card('Behind', lines({ label: 'Records behind', at, format: (value) => number(value), series: [{ name: 'records that no version has learned from', values: samples.map((sample) => sample.lag) }] })),
        card('Bytes of deltas per second', lines({ label: 'Bytes per second', at, format: bytes, series: [{ name: 'published', values: perSecond('delta_bytes') }] })),
      ),
    );
  }
  await refresh();
  return refresh;
}
