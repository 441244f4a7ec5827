//! The playground: a form that makes a call of the package, what the call answers, and the lines that do it.
//!
//! It sees the built package and HTTP, nothing else of Freshet.

import { Freshet } from './freshet/index.js';
import { Catalogue, titleOf } from './catalogue.js';
import { callOf, idsOf, snippetOf } from './playground-calls.js';
import { Results, element } from './playground-results.js';

const EVENTS_SHOWN = 30;
const HISTORY_SHOWN = 12;
/** The server of this very page. */
const SERVER_URL = '/';
/** Versions come several times a second; the list follows calmly. */
const RERANK_MILLIS = 700;

const byId = (id) => document.getElementById(id);
const form = byId('form');
/** @type {Freshet} */
let freshet;
let catalogue = new Catalogue([]);
const nameOf = (itemId) => (catalogue.byId.has(itemId) ? titleOf(catalogue.byId.get(itemId)) : itemId);
const results = new Results(byId('results'), nameOf, { feedback, fill, ask });
/** The method whose answer stands in the list. */
let shownCall = '';
let isRunning = false;
let isWanted = false;
let rerankTimer;

async function main() {
  showControls();
  listen();
  try {
    catalogue = await Catalogue.load('items.json');
    byId('items').append(...catalogue.items.map(({ item_id }) => element('option', { value: item_id, label: nameOf(item_id) })));
    form.elements.similarTo.value = form.elements.explained.value = catalogue.items[0].item_id;
    freshet = Freshet.open({ url: SERVER_URL, backend: new URLSearchParams(location.search).get('backend') ?? 'auto' });
  } catch (error) {
    showError(error);
    return;
  }
  follow();
  showHistory();
  await run();
}

/** Makes the call of the form; calls while one is under way are folded into one more. */
async function run() {
  showControls();
  isWanted = true;
  if (!freshet || isRunning) return;
  isRunning = true;
  while (isWanted) {
    isWanted = false;
    await runOnce();
  }
  isRunning = false;
}

async function runOnce() {
  if (![...form.elements].filter(isShown).every((field) => field.checkValidity())) {
    showError(new Error('A number is missing or out of its range; its field is marked.'));
    return;
  }
  const call = callOf(Object.fromEntries(new FormData(form)), nameOf);
  byId('code').textContent = snippetOf(call, SERVER_URL);
  const startedAt = performance.now();
  try {
    const answer = await freshet[call.name](...call.args);
    showMillis(performance.now() - startedAt);
    showAnswer(call, answer);
  } catch (error) {
    results.clear();
    showError(error);
  }
}

function showAnswer({ name, args }, answer) {
  byId('error').hidden = true;
  if (name === 'explain') results.showExplanation(answer);
  else if (name === 'rankNew') results.showItems(answer.items.map((item) => ({ ...item, text: textOf(item, args[0]) })), false);
  else results.showItems(answer.items, name === shownCall);
  shownCall = name;
  const missing = answer.missing ?? [];
  byId('missing').hidden = missing.length === 0;
  byId('missing').textContent = `Required and missing: ${missing.join(', ')}`;
}

/** What a new item was given as. */
function textOf({ itemId }, newItems) {
  return newItems.find((item) => item.itemId === itemId).text;
}

function showError({ code, message }) {
  byId('error').textContent = code ? `${code}: ${message}` : message;
  byId('error').hidden = false;
}

/** Fields that the chosen method does not take are put away, and left out of the call by `callOf`. */
function showControls() {
  const { value: call } = form.elements.call;
  for (const part of form.querySelectorAll('[data-for]')) part.hidden = !part.dataset.for.split(' ').includes(call);
  for (const slider of form.querySelectorAll('.slider')) {
    slider.querySelector('output').textContent = slider.querySelector('input').value;
  }
}

function isShown(field) {
  return field.closest('[hidden]') === null;
}

/** What happens to the model and to feedback. */
function follow() {
  freshet.on('update', (status) => {
    showStatus();
    note(`version ${status.version} ranks now`);
    rerank();
  });
  freshet.on('backend', ({ backendReason }) => {
    showStatus();
    note(`backend: ${backendReason}`);
  });
  freshet.on('online', ({ isOnline, reason }) => {
    showStatus();
    note(isOnline ? 'the stream is open' : `the stream broke: ${reason}`);
  });
  freshet.on('error', ({ code, message }) => note(`error ${code}: ${message}`));
  freshet.on('rejected', ({ kind, itemId, code }) => note(`${kind} ${itemId} is given up: ${code}`));
  freshet.on('restart', ({ message }) => note(`the engine starts again: ${message}`));
  freshet.on('progress', showStatus);
  showStatus();
  freshet.on('consent', showConsent);
  showConsent(freshet.status());
}

function showConsent({ consent }) {
  byId('consent').checked = consent === 'granted';
}

function rerank() {
  if (!byId('live').checked || rerankTimer !== undefined) return;
  rerankTimer = setTimeout(() => {
    rerankTimer = undefined;
    run();
  }, RERANK_MILLIS);
}

function showStatus() {
  const { version, backend, backendReason, runsIn, isOnline, numItems, bytesReceived } = freshet.status();
  byId('status').dataset.state = isOnline ? 'live' : 'offline';
  byId('status-version').textContent = version ?? '–';
  byId('status-backend').textContent = backend ? `${backend}, in a ${runsIn}`.replace('a page', 'the page') : '–';
  byId('status-backend').title = backendReason;
  byId('status-online').textContent = isOnline ? 'live' : 'not open';
  byId('status-items').textContent = numItems.toLocaleString('en');
  byId('status-bytes').textContent = bytesReceived.toLocaleString('en');
}

function showMillis(millis) {
  byId('status-millis').textContent = `${millis < 100 ? millis.toFixed(1) : Math.round(millis)} ms`;
}

function feedback(kind, itemId) {
  const startedAt = performance.now();
  const { delivered } = freshet.feedback(kind, itemId);
  delivered.then(({ status, offset, code }) => {
    const millis = Math.round(performance.now() - startedAt);
    const where = offset === undefined ? '' : ` before offset ${offset}`;
    note(`${kind} ${itemId}: ${status}${where}${code ? ` (${code})` : ''}, ${millis} ms`);
  });
  showHistory();
  run();
}

/** Puts an item into a rule. */
function fill(rule, itemId) {
  const field = form.elements[rule];
  field.value = idsOf(`${field.value} ${itemId}`).join(', ');
  run();
}

/** Changes to the call that is about an item. */
function ask(field, itemId) {
  form.elements[field].value = itemId;
  form.elements.call.value = field === 'explained' ? 'explain' : 'similar';
  byId('results').focus();
  run();
}

function showHistory() {
  const events = freshet.history.read();
  byId('history-count').textContent = events.length === 1 ? '1 event' : `${events.length} events`;
  const rows = events.slice(-HISTORY_SHOWN).reverse();
  byId('history').replaceChildren(...rows.map(({ kind, itemId }) => element('li', { textContent: `${kind} · ${nameOf(itemId)}` })));
}

function importHistory() {
  try {
    const numAdded = freshet.history.import(JSON.parse(byId('exported').value));
    note(`history: ${numAdded} events imported`);
  } catch (error) {
    note(`history: ${error.code ?? 'not JSON'}: ${error.message}`);
  }
}

function note(text) {
  const time = new Date().toLocaleTimeString('en-GB');
  byId('events').prepend(element('li', {}, element('time', { textContent: time }), ` ${text}`));
  byId('events').children[EVENTS_SHOWN]?.remove();
}

function listen() {
  form.addEventListener('input', run);
  form.addEventListener('submit', (event) => event.preventDefault());
  byId('copy').addEventListener('click', copy);
  const onHistory = (id, change) =>
    byId(id).addEventListener('click', () => {
      if (!freshet) return;
      change();
      showHistory();
      run();
    });
  onHistory('history-export', () => (byId('exported').value = JSON.stringify(freshet.history.export())));
  onHistory('history-import', importHistory);
  onHistory('history-clear', () => freshet.history.clear());
  byId('consent').addEventListener('change', ({ target }) => freshet?.setConsent(target.checked ? 'granted' : 'denied'));
}

async function copy() {
  try {
    await navigator.clipboard.writeText(byId('code').textContent);
    byId('copy').textContent = 'Copied';
  } catch {
    getSelection().selectAllChildren(byId('code')); // no clipboard outside of https: marked, to be copied by hand
    byId('copy').textContent = 'Marked';
  }
  setTimeout(() => (byId('copy').textContent = 'Copy'), 1500);
}

main();
