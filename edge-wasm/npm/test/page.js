//! The page that whole-system tests drive through WebDriver. Everything answers with plain JSON values.
//!
//! Query: `server`, `model`, `backend`, `worker=0`, `cache=0`, `publicKey`, `rootKey`, `consent`, `userId`, `timeout` (ms),
//! `wait=0` (do not wait for a first version), `connect=0` (a test calls `freshetTest.connect` itself).
//! `window.freshetReady` resolves to `{ok: true, status}` or `{ok: false, code, message}`; it never rejects.

import { Freshet } from '../index.js';

const LOG_LENGTH_MAX = 10_000;

const query = new URLSearchParams(location.search);
/** @type {Freshet | undefined} */
let freshet;
/** Everything that the package said, oldest first: `{name, atMillis, detail}`. */
const log = [];
/** What reached the page uncaught; has to stay empty. */
const uncaught = [];

window.addEventListener('error', (event) => uncaught.push(String(event.message)));
window.addEventListener('unhandledrejection', (event) => uncaught.push(String(event.reason)));

function optionsOf(extra) {
  const options = {
    url: query.get('server') ?? location.origin,
    backend: query.get('backend') ?? 'cpu',
    worker: query.get('worker') !== '0',
    cache: query.get('cache') !== '0',
    waitForModel: query.get('wait') !== '0',
  };
  for (const name of ['model', 'publicKey', 'rootKey', 'consent', 'userId']) {
    if (query.has(name)) options[name] = query.get(name);
  }
  if (query.has('timeout')) options.timeoutMillis = Number(query.get('timeout'));
  return { ...options, ...extra };
}

function remember(name, detail) {
  if (log.length < LOG_LENGTH_MAX) log.push({ name, atMillis: Date.now(), detail });
  if (name === 'update') document.getElementById('state').textContent = JSON.stringify(detail);
}

/** Turns a promise into `{ok: true, …}` or `{ok: false, code, message}`. */
async function outcome(promise) {
  try {
    return { ok: true, ...(await promise) };
  } catch (error) {
    return { ok: false, code: error?.code ?? 'none', message: String(error?.message ?? error) };
  }
}

/** Resolves with the status once `isReached` holds for it, or with `undefined` after `millis`. */
function until(isReached, millis) {
  return new Promise((resolve) => {
    const look = () => {
      const status = freshet?.status();
      if (!status || !isReached(status)) return;
      finish(status);
    };
    const finish = (status) => {
      clearTimeout(timer);
      clearInterval(ticker);
      stop?.();
      resolve(status ?? null);
    };
    const timer = setTimeout(() => finish(undefined), millis);
    const ticker = setInterval(look, 20); // `status` also changes without an update, for example when it goes offline
    const stop = freshet?.on('update', look);
    look();
  });
}

window.freshetTest = {
  connect(extra = {}) {
    const connecting = Freshet.connect(optionsOf(extra)).then((connected) => {
      freshet = connected;
      for (const name of ['update', 'backend', 'error', 'online', 'delivered', 'rejected', 'restart']) {
        connected.on(name, (detail) => remember(name, detail));
      }
      return { status: connected.status() };
    });
    return outcome(connecting);
  },
  status: () => freshet?.status() ?? null,
  log: (name) => log.filter((entry) => name === undefined || entry.name === name),
  uncaught: () => [...uncaught],

  rank: (options) => outcome(freshet.rank(options)),
  recommend: (options) => outcome(freshet.recommend(options)),
  /** Ranks what is in `allowed` alone, by a filter. */
  rankFiltered: (options, allowed) => outcome(freshet.rank({ ...options, filter: (itemId) => allowed.includes(itemId) })),
  similar: (itemIds, options) => outcome(freshet.similar(itemIds, options)),
  search: (text, options) => outcome(freshet.search(text, options)),
  rankNew: (items, options) => outcome(freshet.rankNew(items, options)),
  prepareSearch: () => outcome(freshet.prepareSearch()),
  pin: () => outcome(freshet.pin().then((version) => ({ version }))),
  unpin: () => outcome(freshet.unpin()),
  explain: (itemId, options) => outcome(freshet.explain(itemId, options)),
  history: () => freshet.history.read(),
  clearHistory: () => freshet.history.clear(),
  exportHistory: () => freshet.history.export(),
  importHistory: (exported) => outcome(Promise.resolve().then(() => ({ numAdded: freshet.history.import(exported) }))),
  setConsent: (consent) => outcome(freshet.setConsent(consent)),

  /** Sends one event and waits for the server's answer to it. */
  async feedback(event) {
    const { eventId, delivered } = freshet.feedback(event);
    return { eventId, ...(await delivered) };
  },
  /** Sends one event without waiting. */
  send: (event) => freshet.feedback(event).eventId,

  /** Sends clicks with the ids `${prefix}-0` and so on, without waiting. */
  sendMany(prefix, count, itemIds) {
    for (let idx = 0; idx < count; idx += 1) {
      freshet.feedback({ kind: 'click', itemId: itemIds[idx % itemIds.length], eventId: `${prefix}-${idx}` });
    }
  },

  /** Shows a ranking in cards of more than half a screen each, and logs what is seen of it. */
  async showList(options) {
    const ranking = await freshet.rank(options);
    const list = document.createElement('div');
    for (const { itemId } of ranking.items) {
      const card = document.createElement('div');
      card.style.height = '60vh';
      card.textContent = itemId;
      list.append(card);
    }
    document.body.replaceChildren(list);
    document.body.style.margin = '0';
    freshet.observeList(list, ranking);
    return ranking;
  },
  scrollToEnd: () => window.scrollTo(0, document.body.scrollHeight),

  /** What storage holds about the visitor: keys of local storage, and ids of the events in the queue. */
  async stored() {
    const database = await new Promise((resolve, reject) => {
      const opened = indexedDB.open('freshet');
      opened.onsuccess = () => resolve(opened.result);
      opened.onerror = () => reject(opened.error);
    });
    const events = await new Promise((resolve) => {
      const all = database.transaction('events').objectStore('events').getAll();
      all.onsuccess = () => resolve(all.result);
    });
    database.close();
    return { keys: Object.keys(localStorage), eventIds: events.map(({ event }) => event.event_id) };
  },

  /** Milliseconds that `count` explanations took, one after the other. */
  async timeExplanations(itemId, options, count) {
    const millis = [];
    for (let idx = 0; idx < count; idx += 1) {
      const startedAt = performance.now();
      await freshet.explain(itemId, options);
      millis.push(performance.now() - startedAt);
    }
    return millis;
  },

  /** Milliseconds that `count` rankings took, one after the other. */
  async timeRanks(options, count) {
    const millis = [];
    for (let idx = 0; idx < count; idx += 1) {
      const startedAt = performance.now();
      await freshet.rank(options);
      millis.push(performance.now() - startedAt);
    }
    return millis;
  },

  untilVersion: (version, millis) => until((status) => status.version !== null && status.version >= version, millis),
  untilLearned: (offset, millis) => until((status) => (status.learnedThrough ?? -1) >= offset, millis),
  untilOnline: (isOnline, millis) => until((status) => status.isOnline === isOnline, millis),
  untilBackend: (backend, millis) => until((status) => status.backend === backend, millis),

  dispose: () => outcome(freshet?.dispose()),
};

window.freshetReady = query.get('connect') === '0' ? Promise.resolve({ ok: true }) : window.freshetTest.connect();
