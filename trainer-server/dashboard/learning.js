// Learning: prequential figures of the live version beside popularity, and what the trainer did.

import { request } from './api.js';
import { lines } from './charts.js';
import { card, duration, make, number, percent, table, tiles } from './elements.js';

/** @param {HTMLElement} page */
export async function learning(page) {
  page.append(make('p.intro', {}, 'Each event is scored by the version that pages have, before it is learned from. Figures are smoothed over the last hundred or so steps; popularity ranks by the decayed counts that the same version holds.'));
  const shown = make('div');
  page.append(shown);

  async function refresh() {
    const [{ trainer }, { samples: coarse }, { samples: seconds }] = await Promise.all([request('/v1/status'), request('/v1/series?resolution=30s'), request('/v1/series?resolution=1s')]);
    const samples = coarse.length > 30 ? coarse : seconds;
    const at = samples.map((sample) => sample.at);
    const values = (name) => samples.map((sample) => sample[name]);
    const { hit_rate_at_10: own, popularity_hit_rate_at_10: popular } = trainer;
    const times = own !== null && popular ? own / popular : null;
    shown.replaceChildren(
      tiles([
        ['Hit rate at 10', percent(own, 2)],
        ['Popularity alone', percent(popular, 2), times === null ? undefined : `the model has ${number(times, 2)} times as many`],
        ['Log loss', number(trainer.log_loss, 3), 'nats per event'],
        ['Learned from', number(trainer.events_trained), 'events since start'],
        ['Last round', duration(trainer.round_millis)],
      ]),
      make(
        'div.cards',
        {},
        card('Hit rate at 10', lines({ label: 'Hit rate at 10', at, format: (value) => percent(value, 0), series: [{ name: 'live version', values: values('hit_rate_at_10') }, { name: 'popularity', values: values('popularity_hit_rate_at_10') }] })),
        card('Log loss', lines({ label: 'Log loss', at, format: (value) => number(value, 2), series: [{ name: 'live version', values: values('log_loss') }] })),
        card('Against the version of before', ...watched(trainer)),
        card(
          'What the trainer did since start',
          table(
            [['What'], ['How often', true]],
            [
              ['fast steps', number(trainer.fast_steps)],
              ['steps refused', number(trainer.steps_refused)],
              ['versions refused by the gate', number(trainer.versions_refused)],
              ['events skipped, as they were too many', number(trainer.events_skipped)],
              ['releases', number(trainer.releases)],
              ['canaries promoted', number(trainer.canaries_promoted)],
              ['canaries taken back', number(trainer.canaries_taken_back)],
              ['returns to an earlier version', number(trainer.rollbacks)],
              ['alarms', number(trainer.alarms)],
            ],
          ),
          trainer.last_refusal ? make('p.note', {}, `Last refusal: ${trainer.last_refusal}`) : null,
          trainer.last_alarm ? make('p.bad', {}, `Last alarm: ${trainer.last_alarm}`) : null,
        ),
      ),
    );
  }
  await refresh();
  return refresh;
}

/** The drift watch: the newest version against an anchor. */
function watched({ watch }) {
  if (!watch) return [make('p.note', {}, 'There is no earlier version to compare with yet.')];
  return [
    table(
      [['Figure'], ['Value', true]],
      [
        ['events that both were asked about', number(watch.num_events)],
        ['mean of what it adds to the log loss, in nats', number(watch.mean, 4)],
        ['the least that may be', number(watch.lower, 4)],
      ],
    ),
    make(watch.is_worse ? 'p.bad' : 'p.note', {}, watch.is_worse ? 'It is worse.' : 'It is not known to be worse.'),
  ];
}
