// Versions: what came out and who let it out, what is different, and orders to go back, hold or go on.

import { post, request } from './api.js';
import { bytes, card, make, moment, number, table } from './elements.js';

/** @param {HTMLElement} page */
export async function versions(page) {
  const said = make('p.note', { role: 'status' });
  const by = make('input', { type: 'text', maxlength: 64, placeholder: 'your name, for the ledger', 'aria-label': 'Your name' });
  const shown = make('div.card');
  const difference = make('div');
  let before = null;

  async function order(order, question) {
    if (!confirm(question)) return;
    try {
      const obeyed = await post('/v1/rollout', { ...order, ...(by.value ? { by: by.value } : {}) });
      said.className = 'good';
      said.textContent = `Done: ${JSON.stringify(obeyed)}`;
      await refresh();
    } catch (error) {
      said.className = 'bad';
      said.textContent = error.message;
    }
  }

  const orders = make(
    'div.row',
    {},
    by,
    make('button', { onclick: () => order({ order: 'pin' }, 'Stop learning and publishing? Events are still taken in.') }, 'Pin'),
    make('button', { onclick: () => order({ order: 'unpin' }, 'Go on learning and publishing?') }, 'Unpin'),
    make('button', { onclick: () => order({ order: 'publish' }, 'Begin a release now?') }, 'Begin a release'),
    make('button', { onclick: () => order({ order: 'promote' }, 'Publish the release that is on trial to everyone?') }, 'Promote'),
  );

  async function compare(version) {
    difference.replaceChildren(make('p.note', {}, `Comparing version ${version} with ${version - 1} …`));
    try {
      const found = await request(`/v1/versions/${version}/changes?base=${version - 1}`);
      difference.replaceChildren(card(`From version ${version - 1} to ${version}`, ...described(found)));
    } catch (error) {
      difference.replaceChildren(make('p.bad', {}, error.message));
    }
  }

  function row(row) {
    if (row.row === 'refused') return ['–', moment(row.at), `${row.kind} refused`, row.reason, null, null, null];
    if (row.row === 'canary') return ['–', moment(row.at), `canary ${row.outcome}`, JSON.stringify(row.reason), null, null, row.by ?? null];
    const origin = typeof row.origin === 'string' ? row.origin : row.origin ? `back to ${row.origin.rollback?.restored}` : 'unknown';
    const moved = row.movement ? `${number(row.movement.num_rows)} rows` : '–';
    const actions = make(
      'span.row',
      {},
      make('button', { onclick: () => compare(row.version) }, 'Compare'),
      make('button', { onclick: () => order({ order: 'rollback', version: row.version }, `Return all pages to version ${row.version}, and set aside what was learned since?`) }, 'Return here'),
    );
    return [row.version, moment(row.created_at), `${row.kind}${row.channel === 'canary' ? ', canary' : ''}`, origin, bytes(row.delta_bytes ?? row.snapshot_bytes), moved, row.by ?? null, actions];
  }

  async function refresh() {
    const listed = await request(`/v1/versions?limit=25${before === null ? '' : `&before=${before}`}`);
    const older = make('button', { disabled: listed.next_before === null, onclick: () => ((before = listed.next_before), refresh()) }, 'Older');
    const newest = make('button', { disabled: before === null, onclick: () => ((before = null), refresh()) }, 'Newest');
    shown.replaceChildren(
      table([['Version', true], ['When'], ['Kind'], ['Let out by'], ['Bytes', true], ['Moved', true], ['Operator'], ['']], listed.rows.map(row)),
      make('div.row', {}, newest, older),
    );
  }

  page.append(make('p.intro', {}, 'Pages follow the newest version within a second. A return publishes the old codes as a new version, so pages that are offline come along too.'), orders, said, shown, difference);
  await refresh();
  return () => (before === null && !shown.contains(document.activeElement) ? refresh() : Promise.resolve());
}

/** The answer of the comparison. */
function described({ delta_bytes: deltaBytes, no_delta: noDelta, availability_flips: flips, tensors, movement }) {
  const changed = tensors.filter((tensor) => tensor.rows_changed + tensor.rows_new + tensor.rows_gone > 0);
  return [
    make('p', {}, noDelta ?? `A delta of ${bytes(deltaBytes)}. ${number(movement.num_rows)} rows of items moved, ${number(movement.num_new_items)} items are new, ${number(flips)} came or went.`),
    changed.length ? table([['Tensor'], ['Moves'], ['Rows changed', true], ['New', true], ['Codes changed', true]], changed.map((tensor) => [tensor.name, tensor.group, number(tensor.rows_changed), number(tensor.rows_new), number(tensor.codes_changed)])) : make('p.note', {}, 'The codes are the same.'),
    movement.moved_most.length ? make('h3', {}, 'Moved most') : null,
    movement.moved_most.length ? table([['Item'], ['Distance', true]], movement.moved_most.map((item) => [item.item_id, number(item.distance, 4)])) : null,
  ];
}
