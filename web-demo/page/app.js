//! The shop page. It sees the built package and HTTP, nothing else of Freshet.

import { Freshet } from './freshet/index.js';
import { patternDefinitions, pictureOf } from './art.js';
import { cardOf } from './cards.js';
import { Catalogue, priceOf, titleOf } from './catalogue.js';
import { LiveStrip } from './live.js';
import { Shelf } from './shelf.js';
import { WhyPanel } from './why.js';

const SHELF_LENGTH = 12;
/** Items that are shown behind those that hold the words searched for. */
const ALIKE_LENGTH = 12;
const PAGE_LENGTH = 24;
/** The shelf follows new versions calmly. */
const RERANK_MILLIS = 700;

const byId = (id) => document.getElementById(id);
const live = new LiveStrip();
/** @type {Freshet | undefined} */
let freshet;
let catalogue;
let shelf;
let basketCount = 0;
const browsing = { category: '', query: '', sort: 'you', shown: PAGE_LENGTH, request: 0 };
/** `?explore=0.5` draws the shelf by chance at this temperature; off unless asked for. */
const exploreTemperature = Number(new URLSearchParams(location.search).get('explore'));
const exploration = exploreTemperature > 0 ? { temperature: exploreTemperature } : undefined;
/** Impressions of the shelf by item, so that a click can name the one it answers. */
const impressions = new Map();

async function main() {
  document.body.insertAdjacentHTML('beforeend', patternDefinitions());
  try {
    catalogue = await Catalogue.load('items.json');
  } catch (error) {
    live.failed(`the catalogue cannot be loaded: ${error.message}`);
    return;
  }
  const why = new WhyPanel(byId('why-dialog'), catalogue, explain);
  shelf = new Shelf(byId('shelf'), catalogue, act, (item) => why.open(item));
  listen();
  showCategories();
  shelf.show(catalogue.items.slice(0, SHELF_LENGTH).map((item) => item.item_id));
  await showGoods();
  await connect();
}

async function connect() {
  const query = new URLSearchParams(location.search);
  try {
    freshet = await Freshet.connect({
      url: location.origin,
      backend: query.get('backend') ?? 'auto',
      waitForModel: false,
    });
  } catch (error) {
    live.failed(`${error.message} The shop shows its catalogue order.`);
    return;
  }
  showConsent(freshet.status());
  freshet.on('consent', showConsent);
  const rerank = throttled(showShelf, RERANK_MILLIS);
  let isFirst = true;
  const onUpdate = (status) => {
    live.updated(status);
    rerank();
    if (isFirst && status.version !== null) {
      isFirst = false;
      showGoods();
    }
  };
  freshet.on('update', onUpdate);
  freshet.on('backend', (status) => live.updated(status));
  freshet.on('online', () => live.updated(freshet.status()));
  freshet.on('error', ({ code, message }) => console.info(`freshet: ${code}: ${message}`));
  onUpdate(freshet.status());
}

function showConsent({ consent }) {
  byId('consent').checked = consent === 'granted';
}

/** Why an item stands on the shelf; before the first version there is nothing to say. */
function explain(itemId) {
  if (!freshet) return Promise.reject(new Error('there is no model yet'));
  return freshet.explain(itemId);
}

/** What a press on a card means. */
function act(kind, item, card) {
  if (kind === 'add_to_cart' || kind === 'purchase') byId('basket-count').textContent = String(++basketCount);
  if (kind === 'click') openItem(item);
  report(kind, item, card);
}

function report(kind, item, card) {
  if (!freshet) return;
  const clickedAt = performance.now();
  const impression = card.closest('#shelf') ? impressions.get(item.item_id) : undefined;
  const { delivered } = freshet.feedback(kind, item.item_id, impression ?? {});
  delivered.then(({ status, offset }) => {
    if (status === 'accepted') live.delivered(offset, clickedAt);
  });
  showShelf();
}

let isRanking = false;
let isRankingWanted = false;

/** Re-ranks the shelf; calls while one is under way are folded into one more. */
async function showShelf() {
  if (!freshet || freshet.status().version === null) return;
  isRankingWanted = true;
  if (isRanking) return;
  isRanking = true;
  try {
    while (isRankingWanted) {
      isRankingWanted = false;
      const startedAt = performance.now();
      const { items } = await freshet.recommend({ k: SHELF_LENGTH, exploration });
      live.rankedIn(performance.now() - startedAt);
      const fresh = shelf.show(items.map((item) => item.itemId));
      reportImpressions(fresh, items);
      const hasHistory = freshet.history.read().length > 0;
      byId('shelf-title').textContent = hasHistory ? 'For you' : 'Popular right now';
      byId('forget').hidden = !hasHistory;
    }
  } catch (error) {
    console.info(`freshet: ${error.code}: ${error.message}`);
  } finally {
    isRanking = false;
  }
}

/** The propensity goes along, with the answer too, so that the server knows what chance had chosen. */
function reportImpressions(fresh, items) {
  if (document.visibilityState !== 'visible') return;
  const propensities = new Map(items.map((item) => [item.itemId, item.propensity]));
  for (const { itemId, position } of fresh) {
    const propensity = propensities.get(itemId);
    const { eventId } = freshet.feedback('impression', itemId, { position, propensity });
    impressions.set(itemId, { impressionId: eventId, position, propensity });
  }
}

function showCategories() {
  const chip = (category, label) => {
    const entry = document.createElement('li');
    const button = document.createElement('button');
    button.type = 'button';
    button.textContent = label;
    button.setAttribute('aria-pressed', String(category === browsing.category));
    button.addEventListener('click', () => {
      Object.assign(browsing, { category, shown: PAGE_LENGTH });
      showCategories();
      showGoods();
    });
    entry.append(button);
    return entry;
  };
  byId('categories').replaceChildren(chip('', 'Everything'), ...catalogue.categories.map((name) => chip(name, name)));
}

/** What holds the words comes at once; what is like them may have to wait for the encoder, and is added then. */
async function showGoods() {
  const request = ++browsing.request;
  const isOvertaken = () => request !== browsing.request;
  const found = catalogue.find(browsing.category, browsing.query.trim());
  const searching = alikeGoods(found);
  const sorted = await sortedGoods(found);
  if (isOvertaken()) return;
  byId('goods-title').textContent = browsing.category || 'All goods';
  byId('grid').replaceChildren();
  const count = found.length === 1 ? '1 item' : `${found.length} items`;
  addGoods(sorted, count);
  const alike = await searching;
  if (isOvertaken() || alike.length === 0) return;
  addGoods(alike, `${count}, and ${alike.length} like that`);
}

/** Shows more goods behind those in the grid, as far as the page goes. */
function addGoods(items, count) {
  const room = browsing.shown - byId('grid').children.length;
  byId('grid').append(...items.slice(0, room).map((item) => cardOf(item, act)));
  byId('goods-count').textContent = count;
  byId('more').hidden = items.length <= room;
}

async function sortedGoods(found) {
  if (browsing.sort === 'cheap') return [...found].sort((a, b) => a.price - b.price);
  if (browsing.sort === 'name') return [...found].sort((a, b) => a.title.localeCompare(b.title));
  if (!freshet || freshet.status().version === null || found.length === 0) return found;
  try {
    const candidates = found.map((item) => item.item_id);
    const { items } = await freshet.rank({ candidates, k: candidates.length });
    const ranked = items.map((item) => catalogue.byId.get(item.itemId));
    const isRanked = new Set(ranked);
    return [...ranked, ...found.filter((item) => !isRanked.has(item))];
  } catch {
    return found; // the engine is restarting; catalogue order is good enough for once
  }
}

/** What the typed words mean to the text encoder, in this visitor's order, beside the items that hold them. */
async function alikeGoods(found) {
  const query = browsing.query.trim();
  if (query === '' || !freshet || freshet.status().version === null) return [];
  const isFound = new Set(found.map((item) => item.item_id));
  const filter = (itemId) => !isFound.has(itemId) && isBrowsed(catalogue.byId.get(itemId));
  try {
    const { items } = await freshet.search(query, { k: ALIKE_LENGTH, taste: 0.3, filter });
    return items.filter(({ similarity }) => similarity > 0).map(({ itemId }) => catalogue.byId.get(itemId));
  } catch (error) {
    console.info(`freshet: ${error.code}: ${error.message}`);
    return [];
  }
}

function isBrowsed(item) {
  return item !== undefined && (browsing.category === '' || item.category === browsing.category);
}

/** The item large, with what goes with it. */
async function openItem(item) {
  const body = byId('item-body');
  body.innerHTML = `<div class="large">${pictureOf(item)}</div><div class="about"><h2 id="item-title"></h2><p class="facts"></p><p class="price">${priceOf(item)}</p><h3>Goes with it</h3><ul class="row small"></ul></div>`;
  body.querySelector('h2').textContent = titleOf(item);
  body.querySelector('.facts').textContent = [item.category, item.style].filter(Boolean).join(' · ');
  const dialog = byId('item-dialog');
  if (!dialog.open) dialog.showModal();
  if (!freshet || freshet.status().version === null) return;
  const history = [{ itemId: item.item_id, kind: 'click', occurredAt: Date.now() }];
  try {
    const { items } = await freshet.rank({ history, k: 4, excludeSeen: true });
    const related = items.map(({ itemId }) => catalogue.byId.get(itemId)).filter(Boolean);
    body.querySelector('.row')?.replaceChildren(...related.map((other) => cardOf(other, act)));
  } catch (error) {
    console.info(`freshet: ${error.code}: ${error.message}`);
  }
}

function listen() {
  const search = throttled(() => showGoods(), 150);
  byId('search').addEventListener('input', (event) => {
    Object.assign(browsing, { query: event.target.value, shown: PAGE_LENGTH });
    search();
  });
  byId('search').addEventListener('focus', () => freshet?.prepareSearch().catch(() => {})); // searching says why
  byId('search-form').addEventListener('submit', (event) => event.preventDefault());
  byId('sort').addEventListener('change', (event) => {
    browsing.sort = event.target.value;
    showGoods();
  });
  byId('more').addEventListener('click', () => {
    browsing.shown += PAGE_LENGTH;
    showGoods();
  });
  byId('forget').addEventListener('click', () => {
    freshet?.history.clear();
    showShelf();
  });
  byId('consent').addEventListener('change', (event) => {
    freshet?.setConsent(event.target.checked ? 'granted' : 'denied');
  });
  const dialog = byId('item-dialog');
  dialog.addEventListener('click', (event) => {
    if (event.target === dialog) dialog.close();
  });
}

/** Runs `body` now, and then once more after `millis` for all calls in between. */
function throttled(body, millis) {
  let timer;
  let isWanted = false;
  return function call() {
    if (timer !== undefined) {
      isWanted = true;
      return;
    }
    body();
    timer = setTimeout(() => {
      timer = undefined;
      if (isWanted) {
        isWanted = false;
        call();
      }
    }, millis);
  };
}

main();
