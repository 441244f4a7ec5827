//! What a server, a bundler and a visitor without consent may rely on.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import test from 'node:test';

import { History } from '../lib/history.js';
import { resolveConsent } from '../lib/consent.js';
import { Emitter } from '../lib/emitter.js';
import { withLocalStorage } from './fake-browser.js';

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

/** Files of the package that bundlers bring with an entry. */
async function filesOf(entry) {
  const files = new Set();
  const waiting = [new URL(`../${entry}`, import.meta.url)];
  for (let file = waiting.pop(); file; file = waiting.pop()) {
    const name = file.href.split('/npm/')[1];
    if (files.has(name)) continue;
    files.add(name);
    if (!name.endsWith('.js') || name.startsWith('dist/')) continue;
    const text = (await readFile(file, 'utf8')).replaceAll(/\/\*[^]*?\*\/|^ *\/\/.*$/gm, '');
    const named = text.matchAll(/(?:from |import\(|import |new URL\()'(\.[^']*)'/g);
    for (const [, address] of named) waiting.push(new URL(address, file));
  }
  return [...files];
}

test('what is named after the CPU brings nothing of WebGPU', async () => {
  const isWebGpu = (file) => file.includes('webgpu') || file === 'worker.js';
  for (const name of ['cpu', 'react-cpu', 'vue-cpu', 'svelte-cpu']) {
    const files = await filesOf(`${name}.js`);
    assert.ok(files.includes('worker-cpu.js') && files.includes('dist/freshet_cpu.js'), `${name}: ${files}`);
    assert.deepEqual(files.filter(isWebGpu), [], name);
  }
  assert.ok((await filesOf('react.js')).some(isWebGpu));
});

test('consent follows Global Privacy Control unless the visitor was asked', (t) => {
  const saved = Object.getOwnPropertyDescriptor(globalThis, 'navigator');
  t.after(() => saved && Object.defineProperty(globalThis, 'navigator', saved));
  Object.defineProperty(globalThis, 'navigator', { value: { globalPrivacyControl: true }, configurable: true });
  assert.equal(resolveConsent('auto'), 'denied');
  assert.equal(resolveConsent('granted'), 'granted');
});

test('a word that is none of the three is no consent', () => {
  for (const word of [undefined, null, true, false, 'deny', 'revoked', 'GRANTED']) {
    assert.throws(() => resolveConsent(word), (error) => error.code === 'invalid_option' && error.message.includes('"consent"'));
  }
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

test('where storage is forbidden the history lives in memory, else what is stored is the truth', (t) => {
  const history = new History('main', true); // node has no local storage
  history.add({ itemId: 'a', kind: 'click', occurredAt: 1 });
  assert.deepEqual(history.read().map((event) => event.itemId), ['a']);
  withLocalStorage(t);
  const [first, second] = [new History('main', true), new History('main', true)];
  first.add({ itemId: 'b', kind: 'click', occurredAt: 2 });
  second.add({ itemId: 'c', kind: 'click', occurredAt: 3 });
  assert.deepEqual(first.read().map((event) => event.itemId), ['b', 'c']);
  second.clear();
  assert.deepEqual(first.read(), []);
});

test('a history that is kept from now on is joined to what an earlier visit has left', (t) => {
  const [left, of] = [{ itemId: 'left', kind: 'click', occurredAt: 10 }, (itemId, occurredAt) => ({ itemId, kind: 'view', occurredAt })];
  const stored = withLocalStorage(t, [['freshet:history:main', JSON.stringify([left])]]);
  const history = new History('main', false);
  assert.deepEqual(history.read(), [], 'what is not to be kept is not read either');
  for (const event of [of('before', 5), of('after', 20), left]) history.add(event);
  history.store();
  assert.deepEqual(history.read(), [of('before', 5), left, of('after', 20)]);
  assert.deepEqual(JSON.parse(stored.get('freshet:history:main')), history.read());
});

test('a history that is forgotten leaves nothing in storage, also where it was not stored by this page', (t) => {
  const stored = withLocalStorage(t, [['freshet:history:main', '[]']]);
  new History('main', false).forgetStored();
  assert.deepEqual(stored, new Map());
});

test('what stands in storage and cannot be ranked with is passed over', (t) => {
  const good = { itemId: 'a', kind: 'click', occurredAt: 1 };
  const stored = [good, { ...good, occurredAt: 1.5 }, { ...good, itemId: 'x'.repeat(129) }, { ...good, itemId: 'a\n' }, null];
  t.after(() => delete globalThis.localStorage);
  globalThis.localStorage = { getItem: () => JSON.stringify(stored) };
  assert.deepEqual(new History('main', true).read(), [good]);
});

test('an exported history comes back elsewhere, once', () => {
  const history = new History('main', false);
  history.add({ itemId: 'a', kind: 'click', occurredAt: 10 });
  history.add({ itemId: 'b', kind: 'purchase', occurredAt: 20 });
  const exported = JSON.parse(JSON.stringify(history.export()));
  assert.deepEqual([exported.format, exported.formatVersion, exported.model], ['freshet-history', 1, 'main']);
  const other = new History('main', false);
  other.add({ itemId: 'c', kind: 'click', occurredAt: 15 });
  assert.equal(other.import(exported), 2);
  assert.equal(other.import(exported), 0);
  assert.deepEqual(other.read().map((event) => event.itemId), ['a', 'c', 'b']);
});

test('what is no exported history is refused by name, and nothing of it is taken', () => {
  const history = new History('main', false);
  const good = { itemId: 'a', kind: 'click', occurredAt: 1 };
  const exported = (more) => ({ format: 'freshet-history', formatVersion: 1, model: 'main', events: [good], ...more });
  for (const [broken, field] of [
    [null, 'history.format'],
    [exported({ format: 'history' }), 'history.format'],
    [exported({ formatVersion: 2 }), 'history.formatVersion'],
    [exported({ events: {} }), 'history.events'],
    [exported({ events: Array(10_001).fill(good) }), 'history.events'],
    [exported({ events: [good, null] }), 'history.events[1].itemId'],
    [exported({ events: [good, { ...good, itemId: 'x'.repeat(129) }] }), 'history.events[1].itemId'],
    [exported({ events: [good, { ...good, kind: 'sneeze' }] }), 'history.events[1].kind'],
    [exported({ events: [good, { ...good, kind: 'impression' }] }), 'history.events[1].kind'],
    [exported({ events: [good, { ...good, occurredAt: 1.5 }] }), 'history.events[1].occurredAt'],
  ]) {
    assert.throws(() => history.import(broken), (error) => error.code === 'invalid_option' && error.message.includes(`"${field}"`));
  }
  assert.deepEqual(history.read(), []);
  const many = Array.from({ length: 300 }, (_, idx) => ({ ...good, occurredAt: idx }));
  assert.equal(history.import(exported({ events: many })), 200, 'those that are kept are counted');
  assert.equal(history.read().length, 200);
  assert.equal(history.read()[0].occurredAt, 100);
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
