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
  if (event) queueMicrotask(() => request[`on${event}`]());
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
