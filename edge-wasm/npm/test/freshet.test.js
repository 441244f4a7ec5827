//! What `Freshet` itself does between a page and an engine that is made up here.

import assert from 'node:assert/strict';
import test from 'node:test';

import { Freshet as Base } from '../lib/freshet.js';
import { Hold } from '../lib/hold.js';
import { FakeLocks, until, withLocalStorage, withNavigator } from './fake-browser.js';

const STATUS = { version: 7, num_items: 3, backend: 'cpu' };
const RANKING = { model_version: 7, items: [], missing: [] };

/**
 * A Freshet whose engine answers by `answers[method](...args)`; nothing for a method leaves the call open.
 * `events` are what the feedback queue has sent.
 */
function freshetWith(t, answers = {}, options = {}) {
  const calls = [];
  const events = [];
  const { isStarting = true, experiments = [] } = options;
  let worker;
  globalThis.self ??= globalThis;
  class FakeWorker {
    constructor() {
      worker = this;
      queueMicrotask(() => this.say('loaded', {}));
    }
    say(event, detail) {
      this.onmessage({ data: { event, detail } });
    }
    postMessage({ id, method, args }) {
      calls.push([method, ...args]);
      const answer = (method === 'start' && isStarting) || method === 'dispose' ? () => null : answers[method];
      queueMicrotask(() => answer && this.onmessage({ data: { id, ...outcome(answer, args) } }));
    }
    terminate() {}
  }
  globalThis.Worker = FakeWorker;
  t.mock.method(globalThis, 'fetch', async (url, { body }) => {
    if (url.endsWith('/experiments')) return Response.json({ experiments });
    events.push(...JSON.parse(body).events);
    return Response.json({ accepted: 1, duplicates: 0, rejected: [], offset: 9 });
  });
  class Freshet extends Base {
    static entry = { backends: ['cpu'], backend: 'cpu', openWorker: () => new FakeWorker() };
  }
  const freshet = Freshet.open({ url: 'http://server', consent: 'granted', ...options });
  t.after(() => freshet.dispose());
  const update = (more) => worker.say('update', { ...STATUS, ...more });
  const say = (name, detail) => worker.say(name, detail);
  const die = () => say('fatal', { code: 'panic', message: 'boom' });
  return { freshet, calls, events, Freshet, update, say, die };
}

/** What an engine answers with that does as `answer` says. */
function outcome(answer, args) {
  try {
    return { result: answer(...args) };
  } catch ({ code, message }) {
    return { error: { code, message } };
  }
}

/** The code with which a promise is rejected. */
const codeOf = (promise) => promise.then(() => 'none', (error) => error.code);
const turn = () => new Promise((resolve) => setTimeout(resolve, 1));

test('what is done before there is a model is kept, sent, and ranked with', async (t) => {
  const { freshet, calls, events, update } = freshetWith(t, { rank: () => RANKING });
  const { delivered } = freshet.feedback('view', 'item-17');
  const ranking = freshet.recommend({ k: 3 });
  await turn();
  assert.deepEqual(calls.map(([method]) => method), ['start'], 'ranking waits for a model');
  update();
  assert.equal((await ranking).modelVersion, 7);
  assert.equal(await freshet.ready, freshet);
  const [, request] = calls.at(-1);
  assert.deepEqual(request.history.map((event) => event.item_id), ['item-17']);
  assert.equal(request.excludeSeen, true);
  assert.equal((await delivered).status, 'accepted');
  assert.deepEqual(events.map((event) => event.item_id), ['item-17']);
});

test('a list of a place with an experiment is ranked as the arm says, and its items carry the arm', async (t) => {
  const item = { item_id: 'a', score: 1, points: 0, required: false, propensity: 0.5 };
  const arms = [{ name: 'bold', share: 100, strategy: { exploration: { epsilon: 0.5 } } }];
  const experiments = [{ name: 'e', place: 'home', salt: 's', arms }];
  const { freshet, calls, events, update } = freshetWith(t, { rank: () => ({ ...RANKING, items: [item] }) }, { experiments });
  await turn();
  update();
  const { items } = await freshet.recommend({ place: 'home' });
  assert.equal(items[0].arm, 'e/bold');
  assert.equal(calls.at(-1)[1].exploration.epsilon, 0.5);
  const elsewhere = await freshet.recommend({ place: 'cart', exploration: { epsilon: 0.1 } });
  assert.equal(elsewhere.items[0].arm, undefined);
  assert.equal(calls.at(-1)[1].exploration.epsilon, 0.1);
  await freshet.feedback({ kind: 'impression', itemId: 'a', arm: items[0].arm }).delivered;
  assert.equal(events[0].arm, 'e/bold');
  await freshet.setConsent('denied');
  const withheld = await freshet.recommend({ place: 'home' });
  assert.equal(withheld.items[0].arm, undefined, 'nothing would tell of it');
  assert.equal(await codeOf(freshet.rank({ place: 'a/b' })), 'invalid_option');
});

test('what does not get ready rejects with a code, and takes feedback on', async (t) => {
  const { freshet } = freshetWith(t, {}, { timeoutMillis: 20 });
  assert.equal(await codeOf(freshet.ready), 'unreachable');
  assert.equal((await freshet.feedback('view', 'item-17').delivered).status, 'accepted');
});

test('an engine that does not start ends in an error of its own, and so does disposing meanwhile', async (t) => {
  const { freshet } = freshetWith(t, {}, { isStarting: false, timeoutMillis: 20 });
  assert.equal(await codeOf(freshet.ready), 'module_load_failed');
  const { freshet: other } = freshetWith(t, {}, { isStarting: false });
  const ready = codeOf(other.ready);
  await other.dispose();
  assert.equal(await ready, 'disposed');
});

test('disposing ends all waiting', async (t) => {
  const { freshet } = freshetWith(t);
  const waiting = [freshet.ready, freshet.rank(), freshet.similar('a'), freshet.pin()].map(codeOf);
  await freshet.dispose();
  assert.deepEqual(await Promise.all(waiting), ['disposed', 'disposed', 'disposed', 'disposed']);
  assert.throws(() => freshet.feedback('view', 'a'), { code: 'disposed' });
});

test('every call ends when its signal is aborted, before it and during it', async (t) => {
  const { freshet, update, Freshet } = freshetWith(t);
  await turn();
  update();
  await freshet.ready;
  const signal = AbortSignal.abort();
  const callsWith = (options) => [
    freshet.rank(options),
    freshet.recommend(options),
    freshet.similar('a', options),
    freshet.explain('a', options),
    freshet.pin(options),
    freshet.unpin(options),
  ];
  const before = [
    ...callsWith({ signal }),
    freshet.flush({ signal }),
    freshet.setConsent('granted', { signal }),
    Freshet.connect({ url: 'http://server', signal }),
  ];
  assert.deepEqual(await Promise.all(before.map(codeOf)), Array(9).fill('aborted'));
  const controller = new AbortController();
  const during = callsWith({ signal: controller.signal }).map(codeOf);
  controller.abort();
  assert.deepEqual(await Promise.all(during), Array(6).fill('aborted'));
});

test('an aborted start disposes what was opened', async (t) => {
  const controller = new AbortController();
  const { freshet } = freshetWith(t, {}, { signal: controller.signal });
  await turn();
  controller.abort();
  assert.equal(await codeOf(freshet.ready), 'aborted');
  await turn();
  assert.throws(() => freshet.feedback('view', 'a'), { code: 'disposed' });
});

test('a call that finds an engine without the version there was waits for it', async (t) => {
  let numAsked = 0;
  const rank = () => {
    numAsked += 1;
    if (numAsked === 1) throw Object.assign(new Error('not yet'), { code: 'no_model' });
    return RANKING;
  };
  const { freshet, update } = freshetWith(t, { rank });
  await turn();
  update();
  const ranking = freshet.rank();
  await turn();
  assert.equal(numAsked, 1);
  update();
  assert.equal((await ranking).modelVersion, 7);
});

test('loading ends where no engine is left', async (t) => {
  const { freshet, die } = freshetWith(t);
  await turn();
  for (let idx = 0; idx < 4; idx += 1) {
    die();
    await turn();
  }
  assert.equal(await codeOf(freshet.ready), 'engine_stopped');
  assert.equal(await codeOf(freshet.rank()), 'engine_stopped');
});

test('a page whose listener of progress throws goes on', async (t) => {
  t.mock.method(console, 'error', () => {});
  const onProgress = () => {
    throw new Error('of the page');
  };
  const { freshet, say } = freshetWith(t, {}, { onProgress });
  let heard = 0;
  freshet.on('progress', () => (heard += 1));
  await turn();
  say('progress', { bytesReceived: 1, bytesTotal: 2 });
  assert.equal(heard, 1);
});

test('a filter decides on candidates, on the whole catalogue, and on what is required', async (t) => {
  let asked = 0;
  const itemIds = () => {
    asked += 1;
    return ['a', 'b', 'c'];
  };
  const answers = { rank: ({ rules }) => ({ ...RANKING, missing: rules.require ? ['a'] : [] }), similar: () => RANKING, itemIds };
  const { freshet, calls, update } = freshetWith(t, answers);
  await turn();
  update();
  const filter = (itemId) => itemId !== 'b';
  const lastCall = () => calls.at(-1)[1];
  await freshet.rank({ filter, candidates: ['b', 'c'] });
  assert.deepEqual(lastCall().candidates, ['c']);
  assert.deepEqual(lastCall().rules, {});
  const require = [{ itemId: 'b', position: 0 }, { itemId: 'a', position: 1 }];
  const { missing } = await freshet.rank({ filter, rules: { require, exclude: ['z'] } });
  assert.deepEqual(missing, ['b', 'a'], 'the filter refused one, the engine could not place the other');
  assert.deepEqual(lastCall().candidates, ['a', 'c']);
  assert.deepEqual(lastCall().rules, { boost: [], bury: [], exclude: ['z'], require: [{ itemId: 'a', position: 1 }] });
  await freshet.similar('a', { filter });
  assert.deepEqual(lastCall().candidates, ['a', 'c']);
  assert.equal(asked, 1, 'the catalogue is asked for once');
  update({ num_items: 4 });
  await freshet.rank({ filter });
  assert.equal(asked, 2, 'and again when it has grown');
  await freshet.rank({ candidates: ['a'] });
  assert.deepEqual(lastCall().candidates, ['a']);
});

test('options of a wrong kind are refused by name before anything is asked', async (t) => {
  const { freshet, calls } = freshetWith(t);
  const refused = [
    [freshet.rank({ filter: 'red' }), '"filter"'],
    [freshet.rank({ candidates: ['a', 1] }), '"candidates[1]"'],
    [freshet.rank({ history: [{ itemId: 'a', kind: 'click', occurredAt: 1.5 }] }), '"history[0].occurredAt"'],
    [freshet.rank({ history: Array(10_001).fill({}) }), '"history"'],
    [freshet.explain('a\nb'), '"itemId"'],
    [freshet.rank({ rules: { exclude: 'a' } }), '"rules.exclude"'],
    [freshet.rank({ diversity: { lambda: 2 } }), '"diversity.lambda"'],
    [freshet.similar([]), '"itemIds"'],
    [freshet.similar(Array(1001).fill('a')), '"itemIds"'],
    [freshet.similar('a', { k: -1 }), '"k"'],
    [freshet.rank({ k: 2 ** 32 }), '"k"'],
    [freshet.rank({ excludeSeen: 'yes' }), '"excludeSeen"'],
    [freshet.similar('a', { excludeSeen: 1 }), '"excludeSeen"'],
    [freshet.search('lamp', { excludeSeen: 1 }), '"excludeSeen"'],
    ...[1.5, Number.NaN, '5'].flatMap((nowMillis) => [
      [freshet.rank({ nowMillis }), '"nowMillis"'],
      [freshet.search('lamp', { nowMillis }), '"nowMillis"'],
      [freshet.rankNew([], { nowMillis }), '"nowMillis"'],
      [freshet.explain('a', { nowMillis }), '"nowMillis"'],
    ]),
  ];
  for (const [call, field] of refused) {
    await assert.rejects(call, (error) => error.code === 'invalid_option' && error.message.includes(field), field);
  }
  assert.deepEqual(calls.filter(([method]) => method !== 'start'), []);
});

test('an engine that replaces a pinned one is pinned from its start', async (t) => {
  const { freshet, calls, update, die } = freshetWith(t, { pin: () => 7, unpin: () => null, rank: () => RANKING });
  await turn();
  update();
  assert.equal(await freshet.pin(), 7);
  update({ isPinned: true });
  assert.equal(freshet.status().isPinned, true);
  die();
  await freshet.rank();
  await freshet.unpin();
  die();
  await freshet.rank();
  const starts = calls.filter(([method]) => method === 'start').map(([, config]) => config.isPinned ?? false);
  assert.deepEqual(starts, [false, true, false]);
});

test('who pins and unpins without waiting is not pinned', async (t) => {
  const { freshet, calls, update, die } = freshetWith(t, { pin: () => 7, unpin: () => null, rank: () => RANKING });
  await turn();
  update();
  await Promise.all([freshet.pin(), freshet.unpin()]);
  die();
  await freshet.rank();
  await Promise.all([freshet.unpin(), freshet.pin()]);
  die();
  await freshet.rank();
  const starts = calls.filter(([method]) => method === 'start').map(([, config]) => config.isPinned ?? false);
  assert.deepEqual(starts, [false, false, true]);
});

test('feedback that no later ranking could take is refused by name, limit and value', async (t) => {
  const { freshet, events } = freshetWith(t);
  const kept = freshet.history.read().length;
  const refused = [
    [{ kind: 'sneeze', itemId: 'a' }, '"kind"', 'add_to_cart', '"sneeze"'],
    [{ kind: 'click', itemId: 'x'.repeat(129) }, '"itemId"', '128 bytes', '129 characters'],
    [{ kind: 'click', itemId: 'é'.repeat(65) }, '"itemId"', '128 bytes', '65 characters'],
    [{ kind: 'click', itemId: '\ud800' }, '"itemId"', '128 bytes', 'ud800'],
    [{ kind: 'click', itemId: 'a', occurredAt: Number.NaN }, '"occurredAt"', 'milliseconds', 'NaN'],
    [{ kind: 'click', itemId: 'a', occurredAt: '5' }, '"occurredAt"', 'milliseconds', '"5"'],
    [{ kind: 'click', itemId: 'a', value: 5n }, '"value"', 'a number', '5'],
    [{ kind: 'click', itemId: 'a', position: -1 }, '"position"', 'whole number', '-1'],
    [{ kind: 'click', itemId: 'a', position: 2 ** 32 }, '"position"', 'whole number', '4294967296'],
    [{ kind: 'click', itemId: 'a', propensity: 0 }, '"propensity"', 'above 0', '0'],
    [{ kind: 'click', itemId: 'a', propensity: 1n }, '"propensity"', 'above 0', '1'],
    [{ kind: 'click', itemId: 'a', modelVersion: '7' }, '"modelVersion"', 'version', '"7"'],
    [{ kind: 'click', itemId: 'a', eventId: '' }, '"eventId"', '128 bytes', '""'],
    [{ kind: 'click', itemId: 'a', impressionId: 5 }, '"impressionId"', '128 bytes', '5'],
  ];
  for (const [event, ...parts] of refused) {
    const isSaid = ({ code, message }) => code === 'invalid_option' && parts.every((part) => message.includes(part));
    assert.throws(() => freshet.feedback(event), isSaid, parts[0]);
  }
  assert.equal(freshet.history.read().length, kept);
  const absent = { value: null, impressionId: undefined, modelVersion: null };
  await freshet.feedback({ kind: 'click', itemId: 'é'.repeat(64), occurredAt: 1000.4, position: 0, ...absent }).delivered;
  assert.equal(freshet.history.read().at(-1).occurredAt, 1000);
  assert.deepEqual(events.map((event) => event.occurred_at), [1000]);
});

test('what a host remembers of WebGPU, and that it failed, the next host and the next page are told', async (t) => {
  const stored = withLocalStorage(t);
  const { freshet, calls, update, say, die } = freshetWith(t, { rank: () => RANKING }, { consent: 'denied' });
  await turn();
  update();
  await freshet.ready;
  say('remember', { device: 'acme', failure: undefined, measured: { 9: { cpuMillis: 50, webGpuMillis: 5, atMillis: 1 } } });
  say('webgpu_failed', { code: 'module_load_failed', message: 'not found' });
  assert.equal(JSON.parse(stored.get('freshet:webgpu')).failure, undefined, 'that says nothing about the device');
  say('webgpu_failed', { code: 'panic', message: 'driver reset' });
  die();
  await freshet.rank();
  const next = freshetWith(t, {}, { consent: 'denied' });
  await turn();
  const told = [calls, next.calls].map((made) => made.findLast(([method]) => method === 'start')[1].remembered);
  for (const { device, measured, failure } of told) {
    assert.deepEqual([device, measured[9].webGpuMillis, failure.message], ['acme', 5, 'driver reset']);
  }
});

test('a hold keeps the newest announcement, and lets go of it once', async () => {
  const hold = new Hold(true);
  assert.equal(hold.isHeld, false, 'a page without a version needs one');
  hold.ranks(true);
  assert.equal(hold.isHeld, true);
  hold.miss('version 8');
  hold.miss('version 9');
  let isFree = false;
  const { signal } = new AbortController();
  const free = hold.whenFree(signal).then(() => (isFree = true));
  await Promise.resolve();
  assert.equal(isFree, false);
  assert.equal(hold.release(), 'version 9');
  await free;
  assert.equal(hold.isHeld, false);
  assert.equal(hold.release(), undefined);
});

test('who waits for a hold to end is let go when there is nothing to wait for any more', async () => {
  const hold = new Hold(true);
  hold.ranks(true);
  const controller = new AbortController();
  const waiting = hold.whenFree(controller.signal);
  controller.abort();
  await waiting;
  await hold.whenFree(controller.signal);
  assert.equal(hold.isHeld, true);
});

/** Local storage with what an earlier visit kept. */
const withKept = (t) =>
  withLocalStorage(t, [['freshet:user', 'u'], ['freshet:history:main', '[{"itemId":"a","kind":"click","occurredAt":1}]']]);

for (const [name, navigator, consent] of [
  ['consent that is denied', {}, 'denied'],
  ['Global Privacy Control', { globalPrivacyControl: true }, undefined],
  ['Global Privacy Control by name', { globalPrivacyControl: true }, 'auto'],
]) {
  test(`${name} sends nothing and stores nothing, impressions among it`, async (t) => {
    const beacons = [];
    withNavigator(t, { ...navigator, sendBeacon: (...beacon) => beacons.push(beacon) > 0 });
    const kept = withKept(t);
    const before = new Map(kept);
    const { freshet, events } = freshetWith(t, {}, { consent });
    for (const kind of ['click', 'impression']) {
      assert.equal((await freshet.feedback(kind, 'b').delivered).status, 'withheld');
    }
    await freshet.flush();
    await freshet.dispose();
    assert.deepEqual([events, beacons], [[], []]);
    // A page may say `denied` until its visitor has been asked; a browser that opts out has asked.
    assert.deepEqual(kept, consent === 'denied' ? before : new Map());
  });
}

test('a visitor who was asked is believed before Global Privacy Control', async (t) => {
  withNavigator(t, { globalPrivacyControl: true });
  const kept = withKept(t);
  const { freshet, events } = freshetWith(t, {}, { consent: 'granted' });
  assert.equal((await freshet.feedback('click', 'b').delivered).status, 'accepted');
  assert.deepEqual(events.map((event) => event.user_id), ['u']);
  assert.ok(kept.has('freshet:history:main'));
});

test('consent withdrawn while feedback is under way leaves nothing stored, and consent given again makes another visitor', async (t) => {
  const kept = withKept(t);
  const { freshet, events } = freshetWith(t);
  let isSent = false;
  const answered = t.mock.method(globalThis, 'fetch', (_url, { signal }) => {
    isSent = true;
    return new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason)));
  });
  const { delivered } = freshet.feedback('click', 'b');
  await until(() => isSent);
  await freshet.setConsent('denied');
  assert.equal((await delivered).status, 'withheld');
  assert.deepEqual(kept, new Map());
  assert.deepEqual(freshet.status().eventsWaiting, 0);
  answered.mock.mockImplementation(async (_url, { body }) => {
    events.push(...JSON.parse(body).events);
    return Response.json({ rejected: [], offset: 9 });
  });
  await freshet.setConsent('granted');
  assert.equal((await freshet.feedback('click', 'c').delivered).status, 'accepted');
  assert.deepEqual(events.map((event) => event.item_id), ['c']);
  assert.notEqual(events[0].user_id, 'u');
});

test('who is asked for consent on every page keeps the history of earlier ones, and who declines leaves none', async (t) => {
  const kept = withKept(t);
  const { freshet } = freshetWith(t, {}, { consent: 'denied' });
  await freshet.setConsent('granted');
  assert.deepEqual(freshet.history.read().map(({ itemId }) => itemId), ['a']);
  const { freshet: next } = freshetWith(t, {}, { consent: 'denied' });
  await next.setConsent('denied');
  assert.deepEqual([...kept.keys()], []);
});

test('a consent that is no word for it is refused, and changes nothing', async (t) => {
  const { freshet, Freshet } = freshetWith(t, {}, { consent: 'denied' });
  assert.equal(await codeOf(freshet.setConsent('revoked')), 'invalid_option');
  assert.equal(freshet.status().consent, 'denied');
  assert.throws(() => Freshet.open({ url: 'http://server', consent: false }), { code: 'invalid_option' });
});

test('what becomes of consent is told once, whoever has changed it', async (t) => {
  const { freshet } = freshetWith(t);
  const told = [];
  freshet.on('consent', ({ consent }) => told.push(consent));
  await freshet.setConsent('granted');
  await freshet.setConsent('denied');
  await freshet.setConsent('denied');
  await freshet.setConsent('granted');
  assert.deepEqual(told, ['denied', 'granted']);
});

test('after it was disposed consent can be withdrawn, and given no more', async (t) => {
  const locks = new FakeLocks();
  withNavigator(t, { locks });
  const kept = withKept(t);
  const { freshet } = freshetWith(t, {}, { consent: 'denied' });
  await freshet.dispose();
  const asked = t.mock.method(locks, 'request');
  await freshet.setConsent('granted');
  await turn();
  assert.deepEqual([freshet.status().consent, asked.mock.callCount()], ['denied', 0]);
  await freshet.setConsent('denied');
  assert.deepEqual(kept, new Map());
});

test('options of a connection that cannot be meant are refused by name', (t) => {
  const { Freshet } = freshetWith(t);
  for (const [field, values] of Object.entries({
    timeoutMillis: [Number.NaN, -1, '5', 5n],
    userId: ['', 'x'.repeat(129), 5, null],
    rootKey: ['', null, []],
    key: ['', 'too-short', 'no spaces in a key', 'x'.repeat(513), 5, null],
    publicKey: ['', [], ['key', '']],
    consent: ['yes', null],
  })) {
    for (const value of values) {
      const isNamed = ({ code, message }) => code === 'invalid_option' && message.includes(`"${field}"`);
      assert.throws(() => Freshet.open({ url: 'http://server', [field]: value }), isNamed, `${field}: ${String(value)}`);
    }
  }
});

test('without a limit of time it waits for as long as it takes', async (t) => {
  for (const timeoutMillis of [Number.POSITIVE_INFINITY, 2 ** 31]) {
    const { freshet, update } = freshetWith(t, {}, { timeoutMillis });
    await turn();
    await turn();
    update();
    assert.equal(await freshet.ready, freshet);
  }
});

test('what was left open by `undefined` is as not said', async (t) => {
  const { freshet, calls, update } = freshetWith(t, { rank: () => RANKING });
  await turn();
  update();
  await freshet.recommend({ excludeSeen: undefined });
  await freshet.recommend({ excludeSeen: false });
  assert.deepEqual(calls.slice(-2).map(([, { excludeSeen }]) => excludeSeen), [true, false]);
});

test('a version that is given up is no version to rank with, and the next one is waited for', async (t) => {
  const { freshet, update, say } = freshetWith(t, { rank: () => RANKING });
  const updates = [];
  freshet.on('update', ({ version }) => updates.push(version));
  let isReady = false;
  void freshet.ready.then(() => (isReady = true));
  await turn();
  say('error', { code: 'identity_changed', message: 'another server' });
  update({ version: null });
  await turn();
  assert.deepEqual([isReady, updates, freshet.status().version], [false, [], null]);
  update();
  await freshet.ready;
  assert.deepEqual(updates, [7]);
});

test('a ranking that finds its version given up waits for that of the other server', async (t) => {
  let isThere = false;
  const rank = () => {
    if (isThere) return RANKING;
    throw Object.assign(new Error('none'), { code: 'no_model' });
  };
  const { freshet, update } = freshetWith(t, { rank });
  await turn();
  update();
  await freshet.ready;
  const before = freshet.rank();
  await turn();
  update({ version: null });
  const after = freshet.rank();
  await turn();
  isThere = true;
  update({ version: 8 });
  for (const ranking of [before, after]) assert.equal((await ranking).modelVersion, 7);
});

test('the signal of connecting is not looked at once it is ready', async (t) => {
  const controller = new AbortController();
  let isThere = true;
  const rank = () => {
    if (isThere) return RANKING;
    throw Object.assign(new Error('not yet'), { code: 'no_model' });
  };
  const { freshet, update } = freshetWith(t, { rank }, { signal: controller.signal });
  await turn();
  update();
  await freshet.ready;
  isThere = false;
  const ranking = freshet.rank();
  await turn();
  controller.abort();
  isThere = true;
  update();
  assert.equal((await ranking).modelVersion, 7);
});

test('who aborts pinning is not pinned', async (t) => {
  const controller = new AbortController();
  const { freshet, calls, update, die } = freshetWith(t, { pin: () => 7, unpin: () => null, rank: () => RANKING });
  await turn();
  update();
  await freshet.ready;
  const pinned = codeOf(freshet.pin({ signal: controller.signal }));
  controller.abort();
  assert.equal(await pinned, 'aborted');
  await until(() => calls.at(-1)[0] === 'unpin');
  die();
  await freshet.rank();
  assert.equal(calls.findLast(([method]) => method === 'start')[1].isPinned, false);
});
