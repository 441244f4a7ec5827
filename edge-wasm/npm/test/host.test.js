//! The engine host: what it keeps, whom it trusts, how it ends. Engines, server and storage are made up.

import assert from 'node:assert/strict';
import test from 'node:test';

import { Store } from '../lib/store.js';
import { adapters, page, turn, until } from './fake-host.js';

const CPU = { backend: 'cpu' };

/** Storage that takes a version where `isTaken` says so; answers with the versions that were tried. */
function storage(t, isTaken, isThere = true) {
  const tried = [];
  t.mock.method(Store.prototype, 'isThere', async () => isThere);
  t.mock.method(Store.prototype, 'putVersion', async (_key, { version }) => {
    tried.push(version);
    return isTaken();
  });
  return tried;
}

test('a version that could not be stored is stored the next time, and not once more', async (t) => {
  let isTaken = false;
  const tried = storage(t, () => isTaken);
  const { host, engines } = await page(t, CPU);
  engines[0].version = 8;
  await host.persist();
  isTaken = true;
  await host.persist();
  await host.persist();
  assert.deepEqual(tried, [8, 8]);
});

test('no model is encoded where there is no storage for it', async (t) => {
  storage(t, () => false, false);
  const { host, engines } = await page(t, CPU);
  let numEncoded = 0;
  engines[0].version = 8;
  engines[0].export_snapshot = () => (numEncoded += 1);
  await host.persist();
  assert.equal(numEncoded, 0);
});

test('keys of the server that could not be taken are taken the next time', async (t) => {
  let numRefused = 0;
  const trusted = [];
  const server = { '/v1/models/main/keys': () => Response.json({ keys: [{ public_key: 'new' }] }) };
  const { host, last, engines } = await page(t, { ...CPU, publicKeys: [] }, undefined, {
    server,
    onOpen: (trust) => {
      trusted.push(trust);
      if (trust === '["new"]' && (numRefused += 1) === 1) throw new Error('no memory');
    },
  });
  await until(() => last('waiting'), 'the failure was not told');
  host.wake();
  await until(() => last('error'), 'the keys were not taken');
  assert.equal(last('error').code, 'identity_changed');
  assert.deepEqual(trusted, ['["k"]', '["new"]', '["new"]']);
  assert.deepEqual(engines.map(({ isFreed }) => isFreed), [true, false]);
});

test('a host whose device hangs in a call lets device, engine and storage go when it ends', async (t) => {
  const devices = adapters(t);
  const closed = t.mock.method(Store.prototype, 'close', async () => {});
  const { host, last, decided, Engine } = await page(t, {});
  await decided();
  assert.equal(last('backend').backend, 'webgpu');
  Engine.prototype.rank = () => new Promise(() => {});
  Engine.prototype.free = () => {
    throw new Error('it is borrowed');
  };
  host.rank({ k: 1 }).catch(() => {}); // it never settles
  await host.dispose();
  await turn();
  assert.equal(devices[0].isDestroyed, true);
  assert.equal(closed.mock.callCount(), 1);
});
