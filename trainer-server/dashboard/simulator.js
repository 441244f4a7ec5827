// Catalogue and simulator: pick a history or name a user, see what would be recommended, and why.

import { post, request, titlesOf } from './api.js';
import { bar, card, make, number } from './elements.js';

const KINDS = ['view', 'click', 'add_to_cart', 'purchase', 'like', 'rating', 'watch', 'skip', 'dislike'];
const NUM_RECOMMENDED = 12;

/** @param {HTMLElement} page */
export async function simulator(page) {
  /** @type {{ item_id: string, kind: string, occurred_at: number }[]} */
  const history = [];
  /** @type {Map<string, string>} */
  const titles = new Map();
  const { event_time_millis: newest } = await request('/v1/status');
  const title = (id) => titles.get(id) ?? id;

  const found = make('ul.list');
  const kind = make('select', { 'aria-label': 'Kind of event' }, ...KINDS.map((name) => make('option', { value: name }, name.replaceAll('_', ' '))));
  const search = make('input', { type: 'search', placeholder: 'words of a title, or an id', 'aria-label': 'Search the catalogue', oninput: () => find() });
  const user = make('input', { type: 'text', placeholder: 'id of a user', 'aria-label': 'User', onchange: () => recommend() });
  const [past, list, why, count] = [make('ul.list'), make('ul.list'), make('div'), make('p.note')];

  async function find() {
    const { items, num_matching: numMatching } = await request(`/v1/catalogue?limit=12&query=${encodeURIComponent(search.value)}`);
    count.textContent = `${number(numMatching)} items match`;
    for (const item of items) titles.set(item.item_id, item.title);
    found.replaceChildren(...items.map((item) => entry(item.item_id, make('button', { onclick: () => add(item.item_id) }, 'Add'))));
  }

  function entry(id, ...actions) {
    return make('li', {}, make('span.title', {}, title(id)), make('span.id', {}, id), ...actions);
  }

  function add(id) {
    user.value = '';
    // A minute apart, up to the newest event that the model knows.
    history.push({ item_id: id, kind: kind.value, occurred_at: 0 });
    history.forEach((event, place) => (event.occurred_at = (newest ?? Date.now()) - 60_000 * (history.length - 1 - place)));
    recommend();
  }

  const wish = () => ({ ...(user.value ? { user_id: user.value } : { history }), ...(newest ? { now: newest } : {}) });

  async function recommend() {
    past.replaceChildren(...history.map((event, place) => entry(event.item_id, make('span.id', {}, event.kind.replaceAll('_', ' ')), make('button', { 'aria-label': `Remove ${title(event.item_id)}`, onclick: () => (history.splice(place, 1), recommend()) }, '×'))));
    why.replaceChildren();
    try {
      const answer = await post('/v1/recommend', { ...wish(), k: NUM_RECOMMENDED });
      await name(answer.items.map((item) => item.item_id));
      list.replaceChildren(...answer.items.map((item) => entry(item.item_id, make('span.id', {}, number(item.score, 2)), make('button', { onclick: () => explain(item.item_id) }, 'Why'))));
    } catch (error) {
      list.replaceChildren(make('li.bad', {}, error.message));
    }
  }

  /** Titles that are not known yet. */
  async function name(ids) {
    for (const [id, title] of await titlesOf(ids.filter((id) => !titles.has(id)))) titles.set(id, title);
  }

  async function explain(id) {
    const answer = await post('/v1/explain', { ...wish(), item_id: id, k: 5 });
    await name(answer.events.map((event) => event.item_id));
    const parts = Object.entries(answer.parts).filter(([, part]) => Math.abs(part) > 0.001);
    const most = Math.max(...parts.map(([, part]) => Math.abs(part)), 0.001);
    why.replaceChildren(
      card(
        `Why ${title(id)}`,
        make('p.note', {}, `Score ${number(answer.score, 2)} by version ${answer.model_version}; its parts, which add up to it:`),
        ...parts.map(([part, value]) => bar(PARTS[part] ?? part, Math.abs(value) / most, number(value, 2))),
        make('h3', {}, 'Events that speak for it'),
        answer.events.length ? make('ul.list', {}, ...answer.events.map((event) => entry(event.item_id, make('span.id', {}, `${event.effect >= 0 ? '+' : ''}${number(event.effect, 2)}`)))) : make('p.note', {}, 'None: the score comes from the item alone.'),
      ),
    );
  }

  page.append(
    make('p.intro', {}, 'What would this history see, and why? The server ranks with the version that pages have.'),
    make(
      'div.cards',
      {},
      card('Catalogue', make('div.row', {}, search, kind), count, found),
      card('History', make('div.row', {}, make('label', {}, 'or of '), user), past),
      card('Recommended', list),
      why,
    ),
  );
  await find();
  await recommend();
}

const PARTS = {
  text: 'text of the item',
  features: 'dense features',
  id_row: 'what was learned of the item',
  prior: 'popularity of late',
  neighbours: 'bought by the same people',
  bias: 'bias',
};
