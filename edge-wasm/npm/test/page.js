//! The page that whole-system tests drive through WebDriver. Everything answers with plain JSON values.
//!
//! Query: `server`, `model`, `backend`, `worker=0`, `cache=0`, `publicKey`, `rootKey`, `consent`, `userId`, `visitTokens=1`, `timeout` (ms),
//! `wait=0` (do not wait for a first version), `log=0` (events are counted only), `connect=0` (a test calls `freshetTest.connect` itself),
//! `worker=faulty` (one that a test can break and end), `fault`, `workerFault` and `firstWorkerFault` (in `faults.js`).
//! `window.freshetReady` resolves to `{ok: true, status}` or `{ok: false, code, message}`; it never rejects.

import { TrueDate, breakNow, trueSetTimeout } from './faults.js';
import { Freshet } from '../index.js';

const LOG_LENGTH_MAX = 10_000;
/** A call that has not ended by then is told as never ending. */
const NEVER_MILLIS = 10_000;

const query = new URLSearchParams(location.search);
/** @type {Freshet | undefined} */
let freshet;
/** Everything that the package said, oldest first: `{name, atMillis, detail}`. */
const log = [];
const counts = {};
/** Milliseconds of tasks on the main thread that took more than 50. */
const longTasks = [];
/** What reached the page uncaught; has to stay empty. */
const uncaught = [];
/** Workers that were opened with faults. */
const workers = [];

/** Opens the worker that has faults. */
function openWorker() {
  const address = new URL('faults-worker.js', import.meta.url);
  const faults = [...query.getAll('workerFault'), ...(workers.length === 0 ? query.getAll('firstWorkerFault') : [])];
  for (const name of faults) address.searchParams.append('fault', name);
  workers.push(new Worker(address, { type: 'module' }));
  return workers.at(-1);
}

new PerformanceObserver((list) => {
  longTasks.push(...list.getEntries().map(({ duration }) => duration));
}).observe({ type: 'longtask', buffered: true });

window.addEventListener('error', (event) => uncaught.push(String(event.message)));
window.addEventListener('unhandledrejection', (event) => uncaught.push(String(event.reason)));

function optionsOf(extra) {
  const options = {
    url: query.get('server') ?? location.origin,
    backend: query.get('backend') ?? 'cpu',
    worker: query.get('worker') === 'faulty' ? openWorker : query.get('worker') !== '0',
    cache: query.get('cache') !== '0',
    waitForModel: query.get('wait') !== '0',
  };
  for (const name of ['model', 'publicKey', 'rootKey', 'consent', 'userId']) {
    if (query.has(name)) options[name] = query.get(name);
  }
  if (query.get('visitTokens') === '1') options.visitTokens = true;
  if (query.has('timeout')) options.timeoutMillis = Number(query.get('timeout'));
  return { ...options, ...extra };
}

function remember(name, detail) {
  counts[name] = (counts[name] ?? 0) + 1;
  if (query.get('log') !== '0' && log.length < LOG_LENGTH_MAX) log.push({ name, atMillis: TrueDate.now(), detail });
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

/** How `promise` ends and after how many milliseconds: `{ends, millis}`, by a ranking or by the code of an error. */
async function ending(promise) {
  const startedAt = performance.now();
  const never = new Promise((resolve) => trueSetTimeout(resolve, NEVER_MILLIS, { ok: false, code: 'never' }));
  const { ok, code, message, items } = await Promise.race([outcome(promise), never]);
  const ends = ok ? (items.length > 0 ? 'ranking' : 'empty') : code;
  return { ends, message, millis: performance.now() - startedAt };
}

/** Follows what a Freshet says. */
function listen(opened) {
  freshet = opened;
  for (const name of ['update', 'moderation', 'backend', 'error', 'online', 'delivered', 'rejected', 'restart']) {
    opened.on(name, (detail) => remember(name, detail));
  }
  opened.on('uncaught', (text) => uncaught.push(`in the worker: ${text}`)); // said by `faults-worker.js`
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

/** Pages that do not as they should, or leave in the middle. */
const MISUSES = {
  async 'two are opened'() {
    const opened = [Freshet.open(optionsOf({})), Freshet.open(optionsOf({}))];
    const [ranking] = await Promise.all(opened.map((each) => each.rank({ k: 3 })));
    return ranking;
  },
  async 'fifty are opened at once'() {
    const opened = Array.from({ length: 50 }, () => Freshet.open(optionsOf({ timeoutMillis: 60_000 })));
    const rankings = await Promise.all(opened.map((each) => each.rank({ k: 3 })));
    await Promise.all(opened.map((each) => each.dispose()));
    return rankings.find(({ items }) => items.length === 0) ?? rankings[0];
  },
  async 'it is disposed while it loads'() {
    const opened = Freshet.open(optionsOf({}));
    const [ranking] = await Promise.all([opened.rank({ k: 3 }), opened.dispose()]);
    return ranking;
  },
  async 'it is disposed while it ranks'() {
    const [ranking] = await Promise.all([freshet.rank({ k: 3 }), freshet.dispose()]);
    return ranking;
  },
  async 'it is asked after it was disposed'() {
    await freshet.dispose();
    return freshet.rank({ k: 3 });
  },
  async 'loading is aborted'() {
    const controller = new AbortController();
    const opened = Freshet.open(optionsOf({ signal: controller.signal }));
    controller.abort();
    return opened.rank({ k: 3 }).finally(() => opened.ready);
  },
  async 'its listeners throw'() {
    const opened = Freshet.open(optionsOf({ onProgress: () => { throw new Error('of the page'); } }));
    for (const name of ['update', 'progress', 'online']) opened.on(name, () => { throw new Error('of the page'); });
    await opened.ready;
    return opened.rank({ k: 3 });
  },
  async 'its worker is ended while it loads'() {
    const opened = Freshet.open(optionsOf({}));
    workers.at(-1).terminate();
    await opened.ready;
    return opened.rank({ k: 3 });
  },
  async 'its worker is ended while it ranks'() {
    const ranking = freshet.rank({ k: 3 });
    workers.at(-1).terminate();
    return ranking;
  },
};

window.freshetTest = {
  connect(extra = {}) {
    const connecting = Freshet.connect(optionsOf(extra)).then((connected) => {
      listen(connected);
      return { status: connected.status() };
    });
    return outcome(connecting);
  },
  /** From the first moment to the first ranking. */
  load() {
    const ranking = async () => {
      listen(Freshet.open(optionsOf({})));
      await freshet.ready;
      return freshet.rank({ k: 3 });
    };
    return ending(ranking());
  },
  timedRank: () => ending(freshet.rank({ k: 3 })),
  /** Does something that a page should not; to its first ranking or error. */
  misuse: (name) => ending(MISUSES[name]()),
  killWorker: () => workers.at(-1).terminate(),
  breakNow,
  breakWorkerNow: (name) => workers.at(-1).postMessage({ breakNow: name }),
  status: () => freshet?.status() ?? null,
  log: (name) => log.filter((entry) => name === undefined || entry.name === name),
  numOf: (name) => counts[name] ?? 0,
  uncaught: () => [...uncaught],
  longTasks: () => [...longTasks],

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

  /** Milliseconds of `num` lives, one after the other: opened, asked for a ranking, disposed. */
  async cycles(num) {
    const startedAt = performance.now();
    for (let idx = 0; idx < num; idx += 1) {
      const opened = await Freshet.connect(optionsOf({}));
      await opened.rank({ k: 3 });
      await opened.dispose();
    }
    return performance.now() - startedAt;
  },

  untilVersion: (version, millis) => until((status) => status.version !== null && status.version >= version, millis),
  untilLearned: (offset, millis) => until((status) => (status.learnedThrough ?? -1) >= offset, millis),
  untilOnline: (isOnline, millis) => until((status) => status.isOnline === isOnline, millis),
  /** Resolves once it is decided on which backend to rank. */
  untilDecided: (millis) => until(() => log.some(({ name }) => name === 'backend' || name === 'restart'), millis),
  untilBackend: (backend, millis) => until((status) => status.backend === backend, millis),

  dispose: () => outcome(freshet?.dispose()),
};

window.freshetReady = query.get('connect') === '0' ? Promise.resolve({ ok: true }) : window.freshetTest.connect();
