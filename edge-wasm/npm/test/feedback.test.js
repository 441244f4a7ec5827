//! The feedback of one tab against a server that misbehaves.

import assert from 'node:assert/strict';
import test from 'node:test';

import { BATCH_BYTES_MAX, EVENT_BYTES_MAX, batchLength, bodyOf } from '../lib/batches.js';
import { FeedbackQueue } from '../lib/feedback.js';
import { Outbox } from '../lib/outbox.js';
import { MemoryStore, passMillis, until, withNavigator } from './fake-browser.js';

/** A queue whose requests `answer` replies to; `requests` has the ids of each. */
function queueAgainst(t, answer, store = new MemoryStore()) {
  const requests = [];
  const said = [];
  t.mock.method(globalThis, 'fetch', async (_url, { body, signal }) => {
    const ids = JSON.parse(body).events.map((event) => event.event_id);
    requests.push(ids);
    const aborted = new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason)));
    return Promise.race([answer(ids, requests.length), aborted]);
  });
  const emit = (name, detail) => said.push({ name, ...detail });
  const queue = new FeedbackQueue({ url: 'http://server', store, emit, onWithdrawn() {} });
  t.after(() => queue.dispose());
  return { queue, requests, said, store };
}

/** Waits are cut short until the test ends. */
function hurry(t, queue) {
  const waking = setInterval(() => queue.flush(), 2);
  t.after(() => clearInterval(waking));
}

const event = (event_id, more = {}) => ({ event_id, kind: 'click', user_id: 'u', item_id: 'i', occurred_at: 1, ...more });
const ok = (more = {}) => Response.json({ accepted: 1, duplicates: 0, rejected: [], offset: 9, ...more });
const status = (code, more = {}) => Response.json({ detail: 'no' }, { status: code, ...more });
const never = () => new Promise(() => {});
const statuses = (receipts) => receipts.map((receipt) => receipt.status);

test('a batch holds as many events as fit, and at least one', () => {
  assert.equal(batchLength([{ bytes: BATCH_BYTES_MAX * 2 }, { bytes: 1 }], 10), 1);
  assert.equal(batchLength(Array.from({ length: 5 }, () => ({ bytes: 10 })), 3), 3);
  assert.equal(batchLength(Array.from({ length: 100 }, () => ({ bytes: 1024 })), 200), 59);
  assert.equal(batchLength([], 10), 0);
});

test('a batch counts the bytes of UTF-8, its frame among them', () => {
  const bytesOf = (text) => new TextEncoder().encode(text).byteLength;
  const entries = Array.from({ length: 100 }, (_, idx) => {
    const umlauts = event(String(idx), { item_id: 'ü'.repeat(500) });
    return { event: umlauts, bytes: bytesOf(JSON.stringify(umlauts)) };
  });
  const length = batchLength(entries, 200);
  assert.ok(bytesOf(bodyOf(entries.slice(0, length))) <= BATCH_BYTES_MAX);
  assert.ok(bytesOf(bodyOf(entries.slice(0, length + 1))) > BATCH_BYTES_MAX - 64);
  const largest = { event: event('', { item_id: '' }), bytes: EVENT_BYTES_MAX };
  const room = EVENT_BYTES_MAX - bytesOf(JSON.stringify(largest.event));
  largest.event.item_id = 'x'.repeat(room);
  assert.ok(bytesOf(bodyOf([largest])) <= BATCH_BYTES_MAX);
});

test('an outbox drops its oldest for the newest, by number and by bytes', () => {
  const [many, large] = [new Outbox(), new Outbox()];
  const dropped = [];
  for (let idx = 0; idx <= 1000; idx += 1) dropped.push(...many.push({ key: String(idx), bytes: 1 }));
  for (let idx = 0; idx <= 20; idx += 1) dropped.push(...large.push({ key: `large ${idx}`, bytes: 50 * 1024 }));
  assert.deepEqual(dropped.map(({ key }) => key), ['0', 'large 0']);
  assert.equal(many.length, 1000);
  assert.equal(large.length, 20);
});

test('events of one moment go in one request and are forgotten once acknowledged', async (t) => {
  const { queue, requests, said, store } = queueAgainst(t, () => ok());
  const receipts = await Promise.all([queue.add(event('a')), queue.add(event('b'))]);
  assert.deepEqual(requests, [['a', 'b']]);
  assert.deepEqual(receipts, [{ status: 'accepted', offset: 9 }, { status: 'accepted', offset: 9 }]);
  assert.deepEqual(said, [{ name: 'delivered', eventIds: ['a', 'b'], offset: 9 }]);
  assert.equal(store.events.size, 0);
  assert.equal(queue.numWaiting, 0);
});

test('an event is kept and sent again while the server is away, busy, misplaced, or somebody else', async (t) => {
  const answers = [
    () => Promise.reject(new TypeError('refused')),
    () => status(503),
    () => status(404), // the operator's fault, not the event's
    () => new Response('<html>', { status: 200 }), // of a captive portal
    () => Response.json({ welcome: true }),
    () => ok(),
  ];
  const { queue, requests, store } = queueAgainst(t, (_ids, attempt) => {
    assert.deepEqual(store.ids, ['a']);
    return answers[attempt - 1]();
  });
  const delivered = queue.add(event('a'));
  hurry(t, queue);
  assert.equal((await delivered).status, 'accepted');
  assert.deepEqual(requests, Array(6).fill(['a']));
});

test('nothing is sent before a Retry-After is over, whoever wakes or hides; only who leaves has no other chance', async (t) => {
  const taken = [];
  withNavigator(t, { sendBeacon: (_url, body) => taken.push(body) > 0 });
  t.mock.timers.enable({ apis: ['setTimeout'] });
  const { queue, requests } = queueAgainst(t, () => status(503, { headers: { 'retry-after': '60' } }));
  void queue.add(event('a'));
  await until(() => {
    t.mock.timers.tick(5);
    return requests.length === 1;
  });
  await passMillis(t, 50);
  void queue.flush();
  await passMillis(t, 58_000);
  assert.equal(requests.length, 1);
  queue.hide();
  assert.equal(taken.length, 0);
  queue.leave();
  assert.equal(taken.length, 1);
});

test('requests and beacons carry the key of the server, which is not stored', async (t) => {
  const urls = [];
  withNavigator(t, { sendBeacon: (url) => urls.push(url) > 0 });
  const answers = [() => ok(), never];
  t.mock.method(globalThis, 'fetch', (url) => {
    urls.push(url);
    return answers.shift()();
  });
  const store = new MemoryStore();
  const queue = new FeedbackQueue({ url: 'http://server', key: 'a-publishable-key', store, emit() {}, onWithdrawn() {} });
  t.after(() => queue.dispose());
  await queue.add(event('a'));
  void queue.add(event('b'));
  await until(() => urls.length === 2);
  queue.leave();
  assert.deepEqual(urls, Array(3).fill('http://server/v1/events?key=a-publishable-key'));
  assert.ok(!JSON.stringify([...store.events]).includes('publishable'), 'the key is not stored');
});

test('an event that the server rejects is reported and not sent again', async (t) => {
  const rejected = [{ index: 0, code: 'unknown_item', pointer: '/events/0/item_id', detail: 'no such item' }];
  const { queue, requests, said } = queueAgainst(t, () => ok({ accepted: 1, rejected }));
  const [first, second] = await Promise.all([queue.add(event('a')), queue.add(event('b'))]);
  assert.deepEqual(first, { status: 'rejected', code: 'unknown_item', detail: 'no such item' });
  assert.equal(second.status, 'accepted');
  assert.equal(requests.length, 1);
  assert.equal(said.find((line) => line.name === 'error').eventId, 'a');
  const told = said.find((line) => line.name === 'rejected');
  assert.deepEqual(told, { name: 'rejected', eventId: 'a', kind: 'click', itemId: 'i', code: 'unknown_item', detail: 'no such item' });
  assert.equal(said.find((line) => line.name === 'delivered').offset, 9);
});

test('an event too large for any request is refused at once, and pushes nothing out', async (t) => {
  const { queue, requests, said } = queueAgainst(t, never);
  const waiting = queue.add(event('a'));
  const receipt = await queue.add(event('large', { item_id: 'x'.repeat(2 * 1024 * 1024) }));
  assert.equal(receipt.code, 'too_large');
  assert.equal(said.find((line) => line.name === 'rejected').eventId, 'large');
  await until(() => requests.length === 1);
  assert.deepEqual(requests, [['a']]);
  assert.equal(queue.numWaiting, 1);
  void waiting;
});

test('one poisonous event does not block the others', async (t) => {
  const isPoisoned = (ids) => ids.includes('c');
  const { queue } = queueAgainst(t, (ids) => (isPoisoned(ids) ? status(400) : ok()));
  const receipts = await Promise.all(['a', 'b', 'c', 'd'].map((id) => queue.add(event(id))));
  assert.deepEqual(statuses(receipts), ['accepted', 'accepted', 'rejected', 'accepted']);
});

test('an event at which the server fails while it takes others is given up', async (t) => {
  const { queue, said } = queueAgainst(t, (ids) => (ids.includes('bad') ? status(500) : ok()));
  hurry(t, queue);
  const bad = queue.add(event('bad'));
  let isOpen = true;
  void bad.then(() => (isOpen = false));
  for (let idx = 0; isOpen; idx += 1) assert.equal((await queue.add(event(String(idx)))).status, 'accepted');
  assert.equal((await bad).code, 'http_500');
  assert.deepEqual(said.filter((line) => line.name === 'rejected').map((line) => line.eventId), ['bad']);
});

test('a server that fails at everything costs no event', async (t) => {
  const { queue, requests, said } = queueAgainst(t, (_ids, attempt) => (attempt <= 40 ? status(500) : ok()));
  hurry(t, queue);
  const receipts = await Promise.all(['a', 'b', 'c', 'd'].map((id) => queue.add(event(id))));
  assert.deepEqual(statuses(receipts), Array(4).fill('accepted'));
  assert.ok(requests.length > 40);
  assert.deepEqual(said.filter((line) => line.name === 'rejected'), []);
});

test('a full queue drops its oldest event and says so', async (t) => {
  const { queue, said, store } = queueAgainst(t, never);
  const oldest = queue.add(event('0'));
  for (let idx = 1; idx <= 1000; idx += 1) void queue.add(event(String(idx)));
  assert.equal((await oldest).status, 'dropped');
  assert.equal(queue.numWaiting, 1000);
  assert.deepEqual([said.at(-1).code, said.at(-1).eventId], ['queue_full', '0']);
  await until(() => store.events.size === 1000);
  assert.ok(!store.ids.includes('0'));
});

test('what an earlier page could not deliver is delivered by the next, and what is of another server stays', async (t) => {
  const store = new MemoryStore();
  const record = (url, savedAt) => ({ key: `${url}/v1/events ${savedAt} x`, savedAt, event: event(url), bytes: 80 });
  await store.putEvents([record('http://server', Date.now() - 60_000), record('http://other', 0)]);
  const { queue, requests, said } = queueAgainst(t, () => ok(), store);
  await queue.start();
  await until(() => store.events.size === 1);
  assert.deepEqual(requests, [['http://server']]);
  assert.deepEqual(store.ids, ['http://other']);
  assert.deepEqual(said.map(({ name, eventIds }) => [name, eventIds]), [['delivered', ['http://server']]]);
});

test('on leaving, beacons hold what was not answered, in parts of 60 KiB, until the browser takes no more', async (t) => {
  const taken = [];
  let budget = 2;
  withNavigator(t, { sendBeacon: (_url, body) => (budget -= 1) >= 0 && taken.push(body) > 0 });
  const { queue, store } = queueAgainst(t, never);
  for (let idx = 0; idx < 300; idx += 1) void queue.add(event(String(idx), { item_id: 'ü'.repeat(250) }));
  await until(() => store.events.size === 300);
  queue.hide();
  assert.equal(taken.length, 2);
  assert.ok(taken.every((body) => body.size <= BATCH_BYTES_MAX && body.type === 'text/plain'));
  const idsOf = async (body) => JSON.parse(await body.text()).events.map((event) => event.event_id);
  const [first, second] = [await idsOf(taken[0]), await idsOf(taken[1])];
  assert.deepEqual([first[0], second[0]], ['0', String(first.length)]);
  assert.equal(store.events.size, 300, 'what a beacon took stays stored, since nobody says whether it arrived');
  budget = 100;
  queue.hide();
  const third = await idsOf(taken[2]);
  assert.equal(third[0], String(first.length + second.length), 'hidden again, it goes on where the browser took no more');
});

test('a page that was left and came back as it was has its receipts still, and is handed over again when left again', async (t) => {
  const taken = [];
  withNavigator(t, { sendBeacon: (_url, body) => taken.push(body) > 0 });
  let answerNow;
  const answered = new Promise((resolve) => (answerNow = () => resolve(ok())));
  const { queue, requests } = queueAgainst(t, () => answered);
  const delivered = queue.add(event('a'));
  await until(() => requests.length === 1);
  queue.hide();
  queue.leave();
  assert.equal(taken.length, 1, 'once');
  queue.join();
  queue.leave();
  assert.equal(taken.length, 2);
  queue.join();
  answerNow();
  assert.equal((await delivered).status, 'accepted');
});

test('what is given in the moment in which all ends is stored and in a beacon, whether this tab sends or not yet', async (t) => {
  const beacons = [];
  withNavigator(t, { sendBeacon: (_url, body) => beacons.push(body) > 0 });
  const idsOf = async (body) => JSON.parse(await body.text()).events.map((sent) => sent.event_id);
  const { queue, requests, store } = queueAgainst(t, never);
  void queue.add(event('a'));
  await until(() => requests.length === 1);
  const late = queue.add(event('b'));
  const disposed = queue.dispose();
  assert.equal((await late).status, 'queued');
  await disposed;
  assert.deepEqual(store.ids, ['a', 'b']);
  assert.deepEqual(await idsOf(beacons[0]), ['a', 'b']);
  const { queue: young, store: other } = queueAgainst(t, never);
  void young.add(event('c'));
  await young.dispose();
  assert.deepEqual(other.ids, ['c']);
});

test('what is being stored while the page is hidden is in the beacon of the tab that sends', async (t) => {
  const beacons = [];
  withNavigator(t, { sendBeacon: (_url, body) => beacons.push(body) > 0 });
  const { queue, requests, store } = queueAgainst(t, never);
  void queue.add(event('a'));
  await until(() => requests.length === 1);
  store.putEvents = never;
  void queue.add(event('b'));
  queue.hide();
  assert.deepEqual(JSON.parse(await beacons[0].text()).events.map((sent) => sent.event_id), ['a', 'b']);
});

test('what was dropped is not sent again', async (t) => {
  let fail;
  const failing = new Promise((resolve) => (fail = () => resolve(status(503))));
  const { queue, requests, store } = queueAgainst(t, (_ids, attempt) => (attempt === 1 ? failing : ok()));
  const oldest = queue.add(event('oldest'));
  await until(() => requests.length === 1);
  let isStored;
  store.putEvents = () => new Promise((resolve) => (isStored = resolve));
  for (let idx = 1; idx <= 1000; idx += 1) void queue.add(event(String(idx)));
  assert.equal((await oldest).status, 'dropped');
  fail();
  hurry(t, queue);
  for (let idx = 0; idx < 50 && requests.length === 1; idx += 1) await new Promise((resolve) => setTimeout(resolve));
  isStored();
  await until(() => queue.numWaiting === 0);
  assert.ok(!requests.slice(1).flat().includes('oldest'));
});

test('what is acknowledged while the records of earlier pages are read is not taken for one of them', async (t) => {
  const { queue, requests, said, store } = queueAgainst(t, () => ok());
  const listEvents = store.listEvents.bind(store);
  let answerNow;
  store.listEvents = async (...asked) => {
    const records = await listEvents(...asked);
    await new Promise((resolve) => (answerNow = resolve));
    return records;
  };
  t.mock.method(Date, 'now', () => 1000); // it is young
  const young = queue.add(event('a'));
  t.mock.method(Date, 'now', () => 1_000_000); // and older than what is left to the tabs that made it
  assert.equal((await young).status, 'accepted');
  answerNow();
  assert.equal((await queue.add(event('b')).then(({ status }) => status)), 'accepted');
  assert.deepEqual(requests, [['a'], ['b']]);
  assert.deepEqual(said.flatMap(({ eventIds }) => eventIds), ['a', 'b']);
});

test('consent withdrawn while a request is under way leaves nothing stored, and nothing more is sent', async (t) => {
  const { queue, requests, said, store } = queueAgainst(t, never);
  const delivered = queue.add(event('a'));
  await until(() => requests.length === 1);
  t.mock.timers.enable({ apis: ['setTimeout'] });
  const late = queue.add(event('b'));
  await queue.clear();
  assert.deepEqual(statuses(await Promise.all([delivered, late])), ['withheld', 'withheld']);
  await passMillis(t, 60_000);
  assert.equal(store.events.size, 0);
  assert.deepEqual(requests, [['a']]);
  assert.deepEqual(said, []);
});
