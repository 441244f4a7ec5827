//! What a server, a bundler and a visitor without consent may rely on.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import test from 'node:test';

import { History } from '../lib/history.js';
import { resolveConsent } from '../lib/consent.js';
import { Emitter } from '../lib/emitter.js';

test('importing outside of a browser does nothing, and connecting there says why it cannot', async () => {
  const { Freshet, FreshetError } = await import('../index.js');
  await assert.rejects(Freshet.connect({ url: 'http://server' }), (error) => {
    assert.ok(error instanceof FreshetError);
    assert.equal(error.code, 'unsupported');
    return true;
  });
});

test('types come first in every entry of the package', async () => {
  const description = JSON.parse(await readFile(new URL('../package.json', import.meta.url), 'utf8'));
  assert.equal(Object.keys(description.exports['.'])[0], 'types');
});

test('consent follows Global Privacy Control unless the visitor was asked', (t) => {
  const saved = Object.getOwnPropertyDescriptor(globalThis, 'navigator');
  t.after(() => saved && Object.defineProperty(globalThis, 'navigator', saved));
  Object.defineProperty(globalThis, 'navigator', { value: { globalPrivacyControl: true }, configurable: true });
  assert.equal(resolveConsent('auto'), 'denied');
  assert.equal(resolveConsent(undefined), 'denied');
  assert.equal(resolveConsent('granted'), 'granted');
});

test('the history keeps actions only, oldest first, within its limit', () => {
  const history = new History('main', false);
  history.add({ itemId: 'seen', kind: 'impression', occurredAt: 0 });
  for (let idx = 0; idx < 250; idx += 1) history.add({ itemId: `item-${idx}`, kind: 'click', occurredAt: idx });
  const events = history.read();
  assert.equal(events.length, 200);
  assert.equal(events[0].itemId, 'item-50');
  history.clear();
  assert.deepEqual(history.read(), []);
});

test('a listener that throws does not disturb the others', (t) => {
  t.mock.method(console, 'error', () => {});
  const emitter = new Emitter();
  let heard = 0;
  emitter.on('update', () => {
    throw new Error('mine');
  });
  const stop = emitter.on('update', () => (heard += 1));
  emitter.emit('update', {});
  stop();
  emitter.emit('update', {});
  assert.equal(heard, 1);
});
