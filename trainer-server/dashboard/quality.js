// Data quality: what was refused and why, repeats and bursts, and whether the stream has changed.

import { request } from './api.js';
import { lines } from './charts.js';
import { bar, card, make, number, percent, tiles } from './elements.js';

const REASONS = {
  malformed: 'a field is missing or of the wrong type',
  unknown_item: 'the item is not in the catalogue',
  time_in_future: 'occurred_at is too far in the future',
  invalid_value: 'value is no finite number',
  invalid_propensity: 'propensity is not in (0, 1]',
  too_large: 'a text or vector is too long',
  catalogue_full: 'the catalogue is full',
};

const TEACHES_NOTHING = {
  noise: 'double clicks, and bursts by the bound of [labels]',
  client: 'the client has taught many times what a usual one does',
  burst: 'the same within a short time',
  repeat: 'the client has taught the same about the item',
  newcomers: 'new clients have had their share of the item',
  eager: 'clients that do more than usual have had their share of the item',
  few_clients: 'too few clients have acted on the item',
  no_token: 'it came without a valid visit token',
};

/** @param {HTMLElement} page */
export async function quality(page) {
  page.append(make('p.intro', {}, 'Events are judged one by one: a bad one is refused with its reason, and the rest of its batch is kept. Repeats of an id count once. What is beyond the influence of one client, or of new ones together, is kept in the log, but teaches nothing.'));
  const shown = make('div');
  page.append(shown);

  async function refresh() {
    const [{ ingest, trainer }, { samples }] = await Promise.all([request('/v1/status'), request('/v1/series?resolution=30s')]);
    const rejected = Object.entries(ingest.rejected);
    const numRejected = rejected.reduce((sum, [, count]) => sum + count, 0);
    const all = ingest.accepted + ingest.duplicates + numRejected;
    const at = samples.map((sample) => sample.at);
    const share = (name) => samples.map((sample) => {
      const total = sample.accepted + sample.duplicates + sample.rejected;
      return total ? sample[name] / total : null;
    });
    // Events are set aside when the trainer reads them, which may be long after they were received.
    const setAsideShare = samples.map((sample, place) => {
      const behindBefore = samples[place - 1]?.lag ?? sample.lag;
      const read = Math.max(sample.set_aside, behindBefore + sample.accepted - sample.lag);
      return read ? sample.set_aside / read : null;
    });
    shown.replaceChildren(
      tiles([
        ['Received', number(all), 'since start'],
        ['Accepted', percent(all ? ingest.accepted / all : null)],
        ['Repeats', percent(all ? ingest.duplicates / all : null), 'ids seen before'],
        ['Refused', percent(all ? numRejected / all : null)],
        ['Set aside', number(trainer.events_set_aside), 'events that teach nothing'],
        ['Turned away', number(ingest.backpressure), 'requests while the queue was full'],
      ]),
      make(
        'div.cards',
        {},
        card('Refused, by reason', ...(numRejected ? rejected.filter(([, count]) => count > 0).sort((a, b) => b[1] - a[1]).map(([code, count]) => bar(`${code}: ${REASONS[code] ?? ''}`, count / numRejected, number(count))) : [make('p.note', {}, 'Nothing was refused since start.')])),
        card('Set aside, by reason', ...setAside(trainer)),
        card('Shares over the last day', lines({ label: 'Shares', at, format: (value) => percent(value), series: [{ name: 'refused', values: share('rejected') }, { name: 'repeats', values: share('duplicates') }, { name: 'set aside, of what was read', values: setAsideShare }] })),
        card('Drift', ...drift(trainer)),
      ),
    );
  }
  await refresh();
  return refresh;
}

function setAside({ set_aside: counts, events_set_aside: all, crowd }) {
  const reasons = Object.entries(counts).sort((a, b) => b[1] - a[1]);
  return [
    ...reasons.map(([reason, count]) => bar(`${reason}: ${TEACHES_NOTHING[reason] ?? ''}`, count / all, number(count))),
    reasons.length ? null : make('p.note', {}, 'Every event since start could teach.'),
    make('p.note', {}, `A usual client has taught ${number(crowd.events_per_client, 1)} events; there are ${number(crowd.clients)} of late. Newcomers make up ${percent(crowd.newcomer_share)}.`),
  ].filter(Boolean);
}

function drift({ watch, last_alarm: alarm }) {
  if (!watch) return [make('p.note', {}, 'There is no earlier version to compare with yet.')];
  return [
    make('p', watch.is_worse ? { class: 'bad' } : {}, watch.is_worse ? 'The newest version is worse than an earlier one on the events of late.' : 'The newest version is not known to be worse than an earlier one on the events of late.'),
    make('p.note', {}, `Mean difference of log loss ${number(watch.mean, 4)} nats over ${number(watch.num_events)} events, at least ${number(watch.lower, 4)}.`),
    alarm ? make('p.bad', {}, alarm) : null,
  ].filter(Boolean);
}
