//! Storage that fails in any way is answered with the fallback.

import assert from 'node:assert/strict';
import test from 'node:test';

import { Store } from '../lib/store.js';

/** Puts `indexedDB` where the store looks for it. */
function withIndexedDb(t, descriptor) {
  Object.defineProperty(globalThis, 'indexedDB', { ...descriptor, configurable: true });
  t.after(() => delete globalThis.indexedDB);
}

const refuse = () => {
  throw new Error('refused');
};
/** A request that ends by calling `on${event}`, or never. */
function requestThat(event, result) {
  const request = { result };
  if (event) queueMicrotask(() => request[`on${event}`]?.());
  return request;
}

test('storage that is missing, refused, or never answers is no storage', async (t) => {
  assert.equal(await new Store().get('versions', 'a'), undefined, 'node has none');
  const database = { transaction: () => ({ objectStore: () => ({ get: () => requestThat(undefined) }) }), close() {} };
  const cases = [
    ['may not be looked at', { get: refuse }],
    ['does not open', { value: { open: refuse } }],
    ['fails to open', { value: { open: () => requestThat('error') } }],
    ['is blocked', { value: { open: () => requestThat('blocked') } }],
    ['never opens', { value: { open: () => requestThat(undefined) } }],
    ['is closed', { value: { open: () => requestThat('success', { transaction: refuse, close() {} }) } }],
    ['never ends a transaction', { value: { open: () => requestThat('success', database) } }],
  ];
  await Promise.all(
    cases.map(async ([name, descriptor]) => {
      withIndexedDb(t, descriptor);
      const store = new Store();
      const [found, drawn] = [store.get('versions', 'a'), store.drawnOnce('b', 7)];
      assert.deepEqual([await found, await drawn], [undefined, 7], name);
      await store.close();
    }),
  );
});

/** A database that opens, and whose transactions end, when the test says so. */
function slowDatabase(t) {
  const transactions = [];
  const openings = [];
  const database = { numClosed: 0, close: () => (database.numClosed += 1) };
  database.transaction = (storeName, mode) => {
    const transaction = { storeName, mode, calls: [], commit: () => transaction.calls.push('commit') };
    const request = {};
    const method = (name) => [name, (...args) => (transaction.calls.push([name, ...args]), request)];
    const store = { ...Object.fromEntries(['get', 'getAll', 'put', 'delete'].map(method)), transaction };
    transaction.objectStore = () => store;
    transaction.end = (result) => {
      request.result = result;
      transaction.oncomplete();
    };
    transactions.push(transaction);
    return transaction;
  };
  const open = () => {
    const opening = { result: database };
    openings.push(opening);
    return opening;
  };
  withIndexedDb(t, { value: { open } });
  globalThis.IDBKeyRange = { bound: (from) => from };
  t.after(() => delete globalThis.IDBKeyRange);
  return { database, transactions, openings };
}

const turn = () => new Promise((resolve) => setImmediate(resolve));

/** What a promise has settled to by now. */
async function settled(promise) {
  await turn();
  return Promise.race([promise, Promise.resolve('it waits')]);
}

test('storage that answers late is done without until then, and no longer', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  const { transactions, openings } = slowDatabase(t);
  const store = new Store();
  const slow = store.get('versions', 'a');
  openings[0].onsuccess();
  assert.equal(await settled(slow), 'it waits');
  t.mock.timers.tick(600);
  assert.equal(await settled(slow), undefined);
  assert.deepEqual(await settled(store.listEvents('x', 1)), [], 'nothing is waited for');
  assert.equal(await store.isThere(), false);
  assert.equal(transactions.length, 1);

  transactions[0].end('too late');
  await turn();
  assert.equal(await store.isThere(), true);
  const found = store.get('versions', 'a');
  await turn();
  transactions[1].end('model');
  assert.equal(await found, 'model');
});

test('a database that opens late is used, and one that opens after the end is closed', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  const { database, transactions, openings } = slowDatabase(t);
  const store = new Store();
  const first = store.get('drawn', 'a');
  t.mock.timers.tick(500);
  assert.equal(await settled(first), undefined);
  openings[0].onsuccess();
  await turn();
  transactions[0].end();
  await turn();
  const second = store.get('drawn', 'a');
  await turn();
  transactions[1].end(7);
  assert.equal(await second, 7);

  const other = new Store();
  const unanswered = other.get('drawn', 'a');
  const closed = other.close();
  t.mock.timers.tick(500);
  await Promise.all([unanswered, closed]);
  assert.equal(database.numClosed, 0);
  openings[1].onsuccess();
  await turn();
  assert.equal(database.numClosed, 1);
});

test('storage that was silent forgets what was to be forgotten meanwhile', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  const { transactions, openings } = slowDatabase(t);
  const store = new Store();
  const listed = store.listEvents('x', 1);
  t.mock.timers.tick(500);
  await listed;
  const cleared = store.clearEvents('x');
  t.mock.timers.tick(1);
  await cleared;
  openings[0].onsuccess();
  await turn();
  assert.deepEqual(transactions.map(({ calls: [[name]] }) => name), ['getAll', 'delete']);
});

test('a version is said to be stored where it is, and what is removed is so at once', async (t) => {
  const { transactions, openings } = slowDatabase(t);
  const store = new Store();
  const outcomes = [store.putVersion('a', {}), store.putVersion('b', {})];
  openings[0].onsuccess();
  await turn();
  transactions[0].onabort();
  transactions[1].end('b');
  assert.deepEqual(await Promise.all(outcomes), [false, true]);
  const removed = store.remove('versions', ['a', 'b']);
  await turn();
  assert.deepEqual(transactions[2].calls, [['delete', 'a'], ['delete', 'b'], 'commit']);
  transactions[2].end();
  await removed;
});
