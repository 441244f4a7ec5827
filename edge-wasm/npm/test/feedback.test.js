//! The feedback queue against a server that misbehaves.

import assert from 'node:assert/strict';
import test from 'node:test';

import { BATCH_BYTES_MAX, FeedbackQueue, batchLength } from '../lib/feedback.js';

/** Stands for IndexedDB. */
class MemoryStore {
  events = new Map();
  async list() {
    return [...this.events.values()];
  }
  async putEvents(records) {
    for (const record of records) this.events.set(record.key, record);
  }
  async remove(_store, keys) {
    for (const key of keys) this.events.delete(key);
  }
  async clear() {
    this.events.clear();
  }
}

/** A queue whose requests `answer` replies to; `requests` has the ids of each. */
function queueAgainst(t, answer, store = new MemoryStore()) {
  const requests = [];
  const said = [];
  t.mock.method(globalThis, 'fetch', async (_url, { body }) => {
    const ids = JSON.parse(body).events.map((event) => event.event_id);
    requests.push(ids);
    return answer(ids, requests.length);
  });
  const emit = (name, detail) => said.push({ name, ...detail });
  const queue = new FeedbackQueue({ url: 'http://server', store, emit });
  return { queue, requests, said, store };
}

const event = (event_id) => ({ event_id, kind: 'click', user_id: 'u', item_id: 'i', occurred_at: 1 });
const ok = (more = {}) => Response.json({ accepted: 1, duplicates: 0, rejected: [], offset: 9, ...more });

test('a batch holds as many events as fit, and at least one', () => {
  assert.equal(batchLength([{ bytes: BATCH_BYTES_MAX * 2 }, { bytes: 1 }], 10), 1);
  assert.equal(batchLength(Array.from({ length: 5 }, () => ({ bytes: 10 })), 3), 3);
  assert.equal(batchLength(Array.from({ length: 100 }, () => ({ bytes: 1024 })), 200), 59);
  assert.equal(batchLength([], 10), 0);
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

test('an event is kept and sent again while the server is away or busy', async (t) => {
  const answers = [() => Promise.reject(new TypeError('refused')), () => new Response('', { status: 503 }), () => ok()];
  const { queue, requests, store } = queueAgainst(t, (_ids, attempt) => answers[attempt - 1]());
  const delivered = queue.add(event('a'));
  const waking = setInterval(() => queue.flush(), 5);
  assert.equal(store.events.size, 1);
  assert.equal((await delivered).status, 'accepted');
  clearInterval(waking);
  assert.deepEqual(requests, [['a'], ['a'], ['a']]);
});

test('an event that the server rejects is reported and not sent again', async (t) => {
  const rejected = [{ index: 0, code: 'unknown_item', pointer: '/events/0/item_id', detail: 'no such item' }];
  const { queue, requests, said } = queueAgainst(t, () => ok({ accepted: 1, rejected }));
  const [first, second] = await Promise.all([queue.add(event('a')), queue.add(event('b'))]);
  assert.equal(first.status, 'rejected');
  assert.equal(second.status, 'accepted');
  assert.equal(requests.length, 1);
  assert.equal(said.find((line) => line.name === 'error').eventId, 'a');
});

test('one poisonous event does not block the others', async (t) => {
  const isPoisoned = (ids) => ids.includes('c');
  const { queue } = queueAgainst(t, (ids) => (isPoisoned(ids) ? Response.json({ detail: 'no' }, { status: 400 }) : ok()));
  const receipts = await Promise.all(['a', 'b', 'c', 'd'].map((id) => queue.add(event(id))));
  assert.deepEqual(receipts.map((receipt) => receipt.status), ['accepted', 'accepted', 'rejected', 'accepted']);
});

test('a full queue drops its oldest event and says so', async (t) => {
  const { queue, said } = queueAgainst(t, () => new Promise(() => {}));
  const oldest = queue.add(event('0'));
  for (let idx = 1; idx <= 1000; idx += 1) void queue.add(event(String(idx)));
  assert.equal((await oldest).status, 'dropped');
  assert.equal(queue.numWaiting, 1000);
  assert.equal(said.at(-1).code, 'queue_full');
  queue.dispose();
});

test('what an earlier page could not deliver is delivered by the next', async (t) => {
  const store = new MemoryStore();
  const leftover = { key: 'old', url: 'http://server/v1/events', savedAt: Date.now() - 60_000, event: event('old') };
  const foreign = { key: 'foreign', url: 'http://other/v1/events', savedAt: 0, event: event('foreign') };
  await store.putEvents([leftover, foreign]);
  const { queue, requests } = queueAgainst(t, () => ok(), store);
  await queue.adoptLeftovers();
  await queue.flush();
  assert.deepEqual(requests, [['old']]);
  assert.deepEqual([...store.events.keys()], ['foreign']);
});
