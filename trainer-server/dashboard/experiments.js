// Experiments: what is tried where, what it has shown so far, and orders to begin and end one.

import { post, request } from './api.js';
import { intervals } from './charts.js';
import { card, make, moment, number, table, tiles } from './elements.js';

/** @param {HTMLElement} page */
export async function experiments(page) {
  const said = make('p.note', { role: 'status' });
  const listed = make('div.card');
  const shown = make('div');

  async function order(change) {
    try {
      const { name } = await change();
      said.className = 'good';
      said.textContent = `Done: ${name}`;
      await list();
      await show(name);
    } catch (error) {
      said.className = 'bad';
      said.textContent = error.message;
    }
  }

  const stop = (name) =>
    confirm(`End ${name}? Nobody enters it any more; its results stay.`) &&
    order(() => request(`/v1/experiments/${encodeURIComponent(name)}`, { method: 'PATCH', json: { stop: true } }));

  async function show(name) {
    shown.replaceChildren(make('p.note', {}, `Reading the log for ${name} …`));
    try {
      shown.replaceChildren(...described(await request(`/v1/experiments/${encodeURIComponent(name)}`)));
    } catch (error) {
      shown.replaceChildren(make('p.bad', {}, error.message));
    }
  }

  async function list() {
    const { experiments: all } = await request('/v1/experiments');
    const row = ({ name, place, design, arms, phases, stopped }) => [
      name,
      place,
      design,
      arms.map((arm) => (design === 'split' ? `${arm.name} ${arm.share} %` : arm.name)).join(', '),
      moment(phases[0].since),
      stopped ? moment(stopped.at) : 'runs',
      make('span.row', {}, make('button', { onclick: () => show(name) }, 'Results'), stopped ? null : make('button', { onclick: () => stop(name) }, 'End')),
    ];
    const columns = [['Name'], ['Place'], ['Design'], ['Arms'], ['Since'], ['Until'], ['']];
    listed.replaceChildren(all.length ? table(columns, all.map(row).reverse()) : make('p.note', {}, 'Nothing was tried yet.'));
    return all;
  }

  page.append(
    make('p.intro', {}, 'Strategies beside each other on users. The bounds hold however often one looks, so an experiment may be ended once they say enough.'),
    form((asked) => order(() => post('/v1/experiments', asked))),
    said,
    listed,
    shown,
  );
  const newest = (await list()).at(-1);
  if (newest) await show(newest.name);
}

const STRATEGIES = {
  model: ['the model', () => 'model'],
  popularity: ['popularity', () => 'popularity'],
  temperature: ['drawn, temperature', (value) => ({ exploration: { temperature: value } })],
  epsilon: ['drawn, epsilon', (value) => ({ exploration: { epsilon: value } })],
  version: ['version', (value) => ({ version: value })],
};

/** Two arms, as most experiments have; more take the command line. @param {(asked: object) => void} begin */
function form(begin) {
  const text = (label) => make('input', { type: 'text', maxlength: 48, placeholder: label, 'aria-label': label, required: true });
  const digits = (label, value) => make('input', { type: 'number', min: 0, step: 'any', value, 'aria-label': label });
  const [name, place] = [text('Name'), text('Place')];
  const arms = ['control', 'arm'].map((arm, idx) => {
    const options = Object.entries(STRATEGIES).map(([id, [words]]) => make('option', { value: id, selected: id === ['model', 'popularity'][idx] }, words));
    return { name: arm, strategy: make('select', { 'aria-label': `Strategy of ${arm}` }, ...options), value: digits(`Value of ${arm}`, 0.5), share: digits(`Percent of ${arm}`, 50) };
  });
  const isInterleaved = make('input', { type: 'checkbox' });
  const asked = () => ({
    name: name.value,
    place: place.value,
    design: isInterleaved.checked ? 'interleave' : 'split',
    arms: arms.map((arm) => ({ name: arm.name, share: Number(arm.share.value), strategy: STRATEGIES[arm.strategy.value][1](Number(arm.value.value)) })),
  });
  const submit = (event) => {
    event.preventDefault();
    begin(asked());
  };
  const fields = arms.map((arm) => make('span.row', {}, `${arm.name}:`, arm.strategy, arm.value, arm.share, '%'));
  return make('details', {}, make('summary', {}, 'Begin an experiment'), make('form.row', { onsubmit: submit }, name, place, ...fields, make('label', {}, isInterleaved, ' interleave'), make('button.main', {}, 'Begin')));
}

/** An experiment with its report. */
function described({ name, design, metric, report }) {
  const { arms, comparisons, verdict } = report;
  const isShare = design === 'split' && metric.count_max === 1;
  const words = (value) => (isShare ? `${number(100 * value, 2)} %` : number(value, 3));
  const what = `${metric.kinds.join(', ')} within ${number(metric.window_secs / 3600, 1)} h of the first impression`;
  const tone = report.are_shares_sound ? 'p' : 'p.bad';
  return [
    card(
      name,
      ...verdict.map((sentence, idx) => make(idx === 0 ? tone : 'p', {}, sentence)),
      tiles([
        ['Days', number(report.days, 1)],
        ['Users', number(arms.reduce((sum, arm) => sum + arm.num_users, 0))],
        ['Shares', report.are_shares_sound ? 'as promised' : 'wrong', `evidence ${number(report.share_evidence, 1)} of 100`],
        ['Impressions of another arm', number(report.num_misassigned)],
      ]),
    ),
    make(
      'div.cards',
      {},
      card('Arms', table([['Arm'], ['Users', true], ['Counted', true], ['Outcome', true]], arms.map((arm) => [arm.name, number(arm.num_users), number(arm.num_counted), arm.mean === null ? null : words(arm.mean)])), make('p.note', {}, what)),
      card(
        design === 'split' ? 'Difference to the first arm' : 'Preference to the first arm',
        intervals({ label: 'Differences with bounds', rows: comparisons.map(({ arm, difference, lower, upper }) => ({ name: arm, value: difference, lower, upper })), format: words }),
      ),
    ),
  ];
}
