// Moderation: what is proposed and why, what it would change, who approved what, and what came before.

import { post, request, titlesOf } from './api.js';
import { card, make, moment, number, table } from './elements.js';

const HISTORY_SHOWN = 20;

/** @param {HTMLElement} page */
export async function moderation(page) {
  /** @type {Map<string, string>} */
  const titles = new Map();
  const title = (id) => titles.get(id) ?? id;
  const said = make('p.note', { role: 'status' });
  const by = make('input', { type: 'text', maxlength: 64, required: true, placeholder: 'your name, kept with the rule', 'aria-label': 'Your name' });
  const preview = make('div');
  const [waiting, active, past] = [make('div'), make('div'), make('div')];
  let shown = '';

  async function act(path, body, question) {
    if (by.value.trim() === '') {
      by.focus();
      tell('bad', 'Your name is wanted: it is kept with the rule.');
      return;
    }
    if (question && !confirm(question)) return;
    try {
      const rule = await post(path, { ...body, by: by.value });
      tell('good', `Rule ${rule.id} is ${rule.state}.`);
      preview.replaceChildren();
      await refresh();
    } catch (error) {
      tell('bad', error.message);
    }
  }

  function tell(tone, text) {
    said.className = tone;
    said.textContent = text;
  }

  const decide = (rule, decision, question) => act(`/v1/rules/${rule.id}`, { decision }, question);
  const button = (name, onclick) => make('button', { onclick }, name);

  /** What the lists of the users seen last would be. */
  async function show(rule) {
    preview.replaceChildren(make('p.note', {}, `Ranking for the users seen last, with rule ${rule.id} and without …`));
    try {
      const found = await request(`/v1/rules/${rule.id}/preview`);
      const ids = [...(found.sample?.before ?? []), ...(found.sample?.after ?? [])];
      for (const [id, name] of await titlesOf(ids.filter((id) => !titles.has(id)))) titles.set(id, name);
      const effect = rule.state === 'active' ? 'Withdrawing' : 'Approving';
      preview.replaceChildren(
        card(
          `${effect} rule ${rule.id}`,
          make('p', {}, `The lists of ${number(found.num_changed)} of ${number(found.num_users)} users seen last would change.`),
          found.sample ? sample(found.sample) : null,
        ),
      );
    } catch (error) {
      preview.replaceChildren(make('p.bad', {}, error.message));
    }
  }

  function sample({ before, after }) {
    const places = Array.from({ length: Math.max(before.length, after.length) }, (_, place) => place);
    const cell = (ids, others, place) => (ids[place] === undefined ? null : make(others.includes(ids[place]) ? 'span' : 'strong', {}, title(ids[place])));
    return table([['Place', true], ['Now'], ['Then']], places.map((place) => [place + 1, cell(before, after, place), cell(after, before, place)]));
  }

  const why = (rule) => make('span', {}, rule.reason, rule.evidence ? make('small.note', {}, ` ${rule.evidence}`) : null);
  const who = (acts) => acts.map((act) => `${act.by}, ${moment(act.at)}`).join('; ') || null;
  const until = (rule) => (rule.expires_at ? moment(rule.expires_at) : null);

  function proposals(rules) {
    const row = (rule) => [
      rule.id,
      wordsOf(rule, title),
      why(rule),
      who([{ by: rule.source === 'operator' ? rule.by : 'the server', at: rule.proposed_at }, ...rule.approvals]),
      until(rule),
      make('span.row', {}, button('Preview', () => show(rule)), button('Approve', () => decide(rule, 'approve')), button('Reject', () => decide(rule, 'reject'))),
    ];
    return table([['Rule', true], ['What'], ['Why'], ['Who'], ['Until'], ['']], rules.map(row));
  }

  function actives(rules) {
    const row = (rule) => [
      rule.id,
      wordsOf(rule, title),
      why(rule),
      who(rule.approvals),
      until(rule),
      make('span.row', {}, button('Preview', () => show(rule)), button('Withdraw', () => decide(rule, 'withdraw', `End rule ${rule.id}?`))),
    ];
    return table([['Rule', true], ['What'], ['Why'], ['Approved by'], ['Until'], ['']], rules.map(row));
  }

  const ended = (rules) => table([['Rule', true], ['What'], ['Why'], ['Became'], ['By']], rules.map((rule) => [rule.id, wordsOf(rule, title), why(rule), rule.state, who([rule.ended])]));
  const orNothing = (rules, shown, nothing) => (rules.length ? shown(rules) : make('p.note', {}, nothing));

  async function refresh() {
    const listed = await request('/v1/rules');
    if (JSON.stringify(listed) === shown) return; // buttons stay where they are
    shown = JSON.stringify(listed);
    const rules = [...listed.rules, ...listed.history.slice(0, HISTORY_SHOWN)];
    const ids = rules.flatMap((rule) => rule.item_ids ?? []).filter((id) => !titles.has(id));
    for (const [id, name] of await titlesOf(ids.slice(0, 500))) titles.set(id, name);
    const of = (state) => listed.rules.filter((rule) => rule.state === state);
    waiting.replaceChildren(card('Waiting for approval', orNothing(of('proposed'), proposals, 'Nothing is proposed.')));
    active.replaceChildren(
      card(
        'Active rules',
        orNothing(of('active'), actives, 'No rule holds.'),
        listed.num_left_out ? make('p.bad', {}, `${number(listed.num_left_out)} items have no room in what pages are told.`) : null,
      ),
    );
    past.replaceChildren(card('History', orNothing(listed.history.slice(0, HISTORY_SHOWN), ended, 'No rule has ended.')));
  }

  page.classList.add('stack');
  page.append(
    make('p.intro', {}, 'Rules over every list, on the server and in open pages within seconds. A proposal holds once somebody has approved it.'),
    make('div.row', {}, by),
    said,
    card('Propose', form((draft) => act('/v1/rules', draft))),
    waiting,
    preview,
    active,
    past,
  );
  await refresh();
  return refresh;
}

/** @param {(draft: object) => void} propose */
function form(propose) {
  const field = (name, properties) => make('input', { 'aria-label': name, placeholder: name, ...properties });
  const action = make('select', { 'aria-label': 'Action' }, ...['block', 'pin', 'boost', 'bury'].map((name) => make('option', {}, name)));
  const amount = field('points or place', { type: 'number', min: 0, max: 299, step: 'any' });
  const items = field('ids of items, or attribute=value', { type: 'text' });
  const reason = field('reason', { type: 'text', maxlength: 500 });
  const hours = field('hours, if it ends', { type: 'number', min: 0, step: 'any' });
  const submit = () => {
    const draft = { action: action.value, reason: reason.value };
    if (action.value === 'pin') draft.position = Number(amount.value);
    else if (action.value !== 'block') draft.points = Number(amount.value);
    const [name, ...value] = items.value.split('=');
    if (value.length) draft.attribute = { name: name.trim(), value: value.join('=').trim() };
    else draft.item_ids = items.value.split(/[\s,]+/).filter(Boolean);
    if (hours.value) draft.expires_at = Date.now() + Math.round(3_600_000 * Number(hours.value));
    propose(draft);
  };
  return make('div.row', {}, action, amount, items, reason, hours, make('button.main', { onclick: submit }, 'Propose'));
}

/** @param {any} rule @param {(id: string) => string} title */
function wordsOf(rule, title) {
  const target = rule.attribute ? `everything with ${rule.attribute.name} = ${rule.attribute.value}` : rule.item_ids.map(title).join(', ');
  if (rule.action === 'pin') return `pin ${target} to place ${rule.position + 1}`;
  return rule.action === 'block' ? `block ${target}` : `${rule.action} ${target} by ${rule.points}`;
}
