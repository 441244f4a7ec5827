//! Visit tokens beside events, against servers that give them and servers that do not.

import assert from 'node:assert/strict';
import test from 'node:test';

import { BATCH_BYTES_MAX, batchLength, bodyOf } from '../lib/batches.js';
import { FeedbackQueue } from '../lib/feedback.js';
import { Visitor } from '../lib/visitor.js';
import { TOKEN_LEN_MAX, VisitTokens } from '../lib/visit-tokens.js';
import { FakeLocks, MemoryStore, passMillis, until, withLocalStorage, withNavigator } from './fake-browser.js';

const LIFE_MILLIS = 3_600_000;

/** A server whose answers to `/v1/visits` are `visit`; `asked` has the user ids, `sent` the events, a batch each. */
function serverWith(t, { visit = tokenFor, answer = () => ({}) } = {}) {
  const server = { asked: [], urls: [], sent: [], aborted: 0 };
  t.mock.method(globalThis, 'fetch', async (url, { body, signal }) => {
    server.urls.push(url);
    const posted = JSON.parse(body);
    if (url.includes('/v1/events')) {
      server.sent.push(posted.events);
      return Response.json({ rejected: [], offset: 9, ...answer(server.sent.length) });
    }
    server.asked.push(posted.user_id);
    const aborted = new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason)));
    aborted.catch(() => (server.aborted += 1));
    return Promise.race([visit(posted.user_id, server.asked.length), aborted]);
  });
  return server;
}

const tokenFor = (userId, number) => Response.json({ token: `${userId}-${number}`, expires_at: Date.now() + LIFE_MILLIS });

/** A page with its queue; all share one local storage, where there is any. */
function openQueue(t, more = {}) {
  const options = { url: 'http://server', visitTokens: true, store: new MemoryStore(), emit() {}, onWithdrawn() {} };
  const queue = new FeedbackQueue({ ...options, ...more });
  t.after(() => queue.dispose());
  return queue;
}

const event = (event_id, user_id = 'u') => ({ event_id, kind: 'click', user_id, item_id: 'i', occurred_at: 1 });
const tokensOf = (batches) => batches.flat().map(({ token }) => token);

test('every event goes with the token of its user, which is asked for once and kept for the next page', async (t) => {
  const stored = withLocalStorage(t);
  const server = serverWith(t);
  const queue = openQueue(t, { key: 'a-publishable-key' });
  await Promise.all([queue.add(event('a')), queue.add(event('b'))]);
  await queue.add(event('c'));
  await openQueue(t).add(event('d'));
  assert.deepEqual(tokensOf(server.sent), Array(4).fill('u-1'));
  assert.deepEqual(server.asked, ['u']);
  assert.equal(server.urls[0], 'http://server/v1/visits?key=a-publishable-key');
  assert.deepEqual([...stored.keys()], ['freshet:visit http://server']);
});

test('a page that does not want tokens asks for none and sends none, whatever is stored', async (t) => {
  withLocalStorage(t);
  const server = serverWith(t);
  await openQueue(t).add(event('a'));
  await openQueue(t, { visitTokens: false }).add(event('b'));
  assert.deepEqual(tokensOf(server.sent), ['u-1', undefined]);
  assert.deepEqual(server.asked, ['u']);
});

for (const [name, visit] of [
  ['is too old to know of them', () => Response.json({ detail: 'nothing here' }, { status: 404 })],
  ['wants another key', () => Response.json({ detail: 'no' }, { status: 401 })],
  ['has given too many', () => Response.json({ detail: 'no' }, { status: 429, headers: { 'retry-after': '60' } })],
  ['cannot be reached', () => Promise.reject(new TypeError('refused'))],
  ['answers with a page of its own', () => new Response('<html>', { status: 200 })],
  ['answers with what is no token', () => Response.json({ token: '"\n', expires_at: Date.now() + LIFE_MILLIS })],
  ['gives a token that is longer than any', () => Response.json({ token: 'x'.repeat(TOKEN_LEN_MAX + 1), expires_at: 9e15 })],
]) {
  test(`a server that ${name} gets events without one, at once, and is asked again after a pause`, async (t) => {
    withLocalStorage(t);
    t.mock.timers.enable({ apis: ['Date'], now: 1_000_000 });
    let isMended = false;
    const server = serverWith(t, { visit: (...asked) => (isMended ? tokenFor(...asked) : visit(...asked)) });
    const queue = openQueue(t);
    await queue.add(event('a'));
    await queue.add(event('b'));
    assert.deepEqual(tokensOf(server.sent), [undefined, undefined]);
    assert.deepEqual(server.asked, ['u'], 'not with every batch');
    isMended = true;
    t.mock.timers.setTime(1_000_000 + 60_001);
    await queue.add(event('c'));
    assert.deepEqual(tokensOf(server.sent), [undefined, undefined, 'u-2']);
  });
}

test('after an outage of whatever length the first feedback that arrives goes with a token', async (t) => {
  withLocalStorage(t);
  let isAway = true;
  const sent = [];
  t.mock.method(globalThis, 'fetch', async (url, { body }) => {
    if (isAway) throw new TypeError('refused');
    if (url.includes('/v1/visits')) return tokenFor('u', 1);
    sent.push(JSON.parse(body).events);
    return Response.json({ rejected: [], offset: 9 });
  });
  const queue = openQueue(t);
  const delivered = queue.add(event('a'));
  for (let wake = 0; wake < 20; wake += 1) {
    void queue.flush();
    await new Promise(setImmediate);
  }
  isAway = false;
  void queue.flush();
  await delivered;
  assert.deepEqual(tokensOf(sent), ['u-1']);
});

test('pauses grow with failures, to ten minutes', async (t) => {
  withLocalStorage(t);
  t.mock.timers.enable({ apis: ['Date'], now: 0 });
  const server = serverWith(t, { visit: () => Response.json({}, { status: 404 }) });
  const queue = openQueue(t);
  const askedAt = [];
  for (let secs = 0; askedAt.length < 12; secs += 1) {
    t.mock.timers.setTime(secs * 1000);
    await queue.add(event(String(secs)));
    if (server.asked.length > askedAt.length) askedAt.push(secs);
  }
  const pauses = askedAt.slice(1).map((at, idx) => at - askedAt[idx]);
  assert.ok(pauses[0] >= 2 && pauses[0] <= 6, `${pauses}`);
  assert.ok(pauses.slice(-3).every((pause) => pause >= 300 && pause <= 601), `${pauses}`);
});

test('the first batch waits a second for a server that says nothing, and the next not at all', async (t) => {
  withLocalStorage(t);
  t.mock.timers.enable({ apis: ['setTimeout', 'Date'], now: 0 });
  const server = serverWith(t, { visit: () => new Promise(() => {}) });
  const queue = openQueue(t);
  void queue.add(event('a'));
  await until(() => {
    t.mock.timers.tick(5);
    return server.asked.length === 1;
  });
  await passMillis(t, 900);
  assert.equal(server.sent.length, 0);
  await passMillis(t, 200);
  assert.deepEqual(tokensOf(server.sent), [undefined]);
  await passMillis(t, 10_000); // the request is given up
  assert.equal(server.aborted, 1);
  void queue.add(event('b'));
  await passMillis(t, 100);
  assert.equal(server.sent.length, 2);
});

test('a token is replaced before it ends, without anybody waiting, and not used after', async (t) => {
  withLocalStorage(t);
  t.mock.timers.enable({ apis: ['Date'], now: 0 });
  const held = [];
  const server = serverWith(t, {
    visit: (userId, number) => (number === 2 ? new Promise((resolve) => held.push(resolve)) : tokenFor(userId, number)),
  });
  const queue = openQueue(t);
  await queue.add(event('a'));
  t.mock.timers.setTime(0.74 * LIFE_MILLIS);
  await queue.add(event('b'));
  assert.deepEqual(server.asked, ['u']);
  t.mock.timers.setTime(0.76 * LIFE_MILLIS);
  await queue.add(event('c'));
  assert.deepEqual(server.asked, ['u', 'u'], 'asked for while the first is still good');
  assert.deepEqual(tokensOf(server.sent), ['u-1', 'u-1', 'u-1']);
  held[0](tokenFor('u', 2));
  await new Promise(setImmediate);
  t.mock.timers.setTime(1.2 * LIFE_MILLIS);
  await queue.add(event('d'));
  assert.equal(tokensOf(server.sent).at(-1), 'u-2');
  t.mock.timers.setTime(3 * LIFE_MILLIS);
  await queue.add(event('e'));
  assert.equal(tokensOf(server.sent).at(-1), 'u-3');
});

test('how long a token is good is told by the clock of the server', async (t) => {
  withLocalStorage(t);
  t.mock.timers.enable({ apis: ['Date'], now: 10 * LIFE_MILLIS }); // ten hours fast
  const date = new Date(0).toUTCString();
  const visit = (userId, number) =>
    Response.json({ token: `${userId}-${number}`, expires_at: LIFE_MILLIS }, { headers: { date } });
  const server = serverWith(t, { visit });
  const queue = openQueue(t);
  await queue.add(event('a'));
  await queue.add(event('b'));
  assert.deepEqual([tokensOf(server.sent), server.asked], [['u-1', 'u-1'], ['u']]);
});

test('a token that the server takes no longer is dropped and asked for anew, with pauses', async (t) => {
  const stored = withLocalStorage(t);
  t.mock.timers.enable({ apis: ['Date'], now: 0 });
  const server = serverWith(t, { answer: (number) => (number <= 2 ? { invalid_tokens: 1 } : {}) });
  const queue = openQueue(t);
  await queue.add(event('a'));
  assert.deepEqual(stored, new Map());
  await queue.add(event('b'));
  assert.deepEqual(tokensOf(server.sent), ['u-1', undefined]);
  t.mock.timers.setTime(60_000);
  await queue.add(event('c'));
  await queue.add(event('d'));
  assert.deepEqual(tokensOf(server.sent), ['u-1', undefined, 'u-2', 'u-2']);
});

test('events of an earlier user id go with a token of that user', async (t) => {
  withLocalStorage(t);
  const server = serverWith(t);
  const queue = openQueue(t);
  await Promise.all([queue.add(event('a', 'ann')), queue.add(event('b', 'bob')), queue.add(event('c', 'ann'))]);
  assert.deepEqual(tokensOf(server.sent), ['ann-1', 'bob-2', 'ann-1']);
  await queue.add(event('d', 'ann'));
  assert.deepEqual(server.asked, ['ann', 'bob']);
});

test('of many users some are asked for at a time', async (t) => {
  withLocalStorage(t);
  const server = serverWith(t);
  const queue = openQueue(t);
  await Promise.all(Array.from({ length: 50 }, (_, idx) => queue.add(event(String(idx), `u${idx}`))));
  assert.equal(server.asked.length, 8);
  assert.equal(tokensOf(server.sent).filter(Boolean).length, 8);
});

test('a beacon takes the token that is held, that of the page before too, and asks for none', async (t) => {
  withLocalStorage(t);
  const bodies = [];
  withNavigator(t, { locks: new FakeLocks(), sendBeacon: (_url, body) => bodies.push(body) > 0 });
  const server = serverWith(t);
  await openQueue(t).add(event('a'));
  const next = openQueue(t);
  void next.add(event('b'));
  next.leave(); // in the moment of a click that leaves the page
  const stranger = openQueue(t);
  void stranger.add(event('c', 'another'));
  stranger.leave();
  const events = (await Promise.all(bodies.map((body) => body.text()))).map((text) => JSON.parse(text).events);
  assert.deepEqual(tokensOf(events).slice(0, 2), ['u-1', undefined]);
  assert.deepEqual(server.asked, ['u']);
});

test('a batch with tokens is as small as one without', () => {
  const tokens = { of: () => 'x'.repeat(TOKEN_LEN_MAX) };
  const entries = Array.from({ length: 200 }, (_, idx) => {
    const long = { ...event(String(idx)), impression_id: 'y'.repeat(100) };
    return { event: long, bytes: JSON.stringify(long).length };
  });
  const length = batchLength(entries, 200, tokens);
  assert.ok(length < batchLength(entries, 200));
  assert.ok(bodyOf(entries.slice(0, length), tokens).length <= BATCH_BYTES_MAX);
});

test('what stands in storage and is no token is passed over', (t) => {
  const sound = { userId: 'u', token: 'abc', renewAt: Date.now() + 1000, endsAt: Date.now() + 2000 };
  const stored = withLocalStorage(t);
  const put = (held) => stored.set('freshet:visit http://server', typeof held === 'string' ? held : JSON.stringify(held));
  put(sound);
  assert.equal(new VisitTokens('http://server').of('u'), 'abc');
  assert.equal(new VisitTokens('http://server').of('v'), undefined);
  assert.equal(new VisitTokens('http://other').of('u'), undefined);
  for (const broken of ['{', 'null', '7', { ...sound, token: 7 }, { ...sound, token: 'a b' }, { ...sound, endsAt: 'late' }, { ...sound, endsAt: 1 }]) {
    put(broken);
    assert.equal(new VisitTokens('http://server').of('u'), undefined, JSON.stringify(broken));
  }
});

test('without storage a token is held in memory', async (t) => {
  const server = serverWith(t);
  const queue = openQueue(t); // node has no local storage
  await queue.add(event('a'));
  await queue.add(event('b'));
  assert.deepEqual([tokensOf(server.sent), server.asked], [['u-1', 'u-1'], ['u']]);
});

/** A page of a visitor. */
function openVisitor(t, consent) {
  const options = { url: 'http://server', model: 'main', visitTokens: true, consent };
  const visitor = new Visitor({ options, store: new MemoryStore(), emit() {}, liveVersion: () => undefined });
  t.after(() => visitor.dispose());
  visitor.start();
  visitor.send();
  return visitor;
}

test('no token is asked for before there is consent and feedback', async (t) => {
  const stored = withLocalStorage(t);
  const server = serverWith(t);
  const visitor = openVisitor(t, 'denied');
  await visitor.feedback('click', 'a').delivered;
  assert.deepEqual([server.urls, stored], [[], new Map()]);
  await visitor.setConsent('granted');
  await new Promise(setImmediate);
  assert.deepEqual(server.asked, []);
  await visitor.feedback('click', 'b').delivered;
  assert.deepEqual(server.asked, [stored.get('freshet:user')]);
  assert.equal(tokensOf(server.sent)[0], `${server.asked[0]}-1`);
});

test('consent that is withdrawn takes the token along, also one that is on its way', async (t) => {
  const stored = withLocalStorage(t);
  const held = [];
  const server = serverWith(t, {
    visit: (userId, number) => (number === 2 ? new Promise((resolve) => held.push(resolve)) : tokenFor(userId, number)),
  });
  const visitor = openVisitor(t, 'granted');
  await visitor.feedback('click', 'a').delivered;
  assert.ok(stored.has('freshet:visit http://server'));
  await visitor.setConsent('denied');
  assert.ok(!stored.has('freshet:visit http://server'));
  await visitor.setConsent('granted');
  const { delivered } = visitor.feedback('click', 'b');
  await until(() => held.length === 1);
  await visitor.setConsent('denied');
  held[0](tokenFor('late', 2));
  await new Promise(setImmediate);
  assert.equal((await delivered).status, 'withheld');
  assert.deepEqual([server.sent.length, server.aborted], [1, 1]);
  assert.ok(!stored.has('freshet:visit http://server'));
});
