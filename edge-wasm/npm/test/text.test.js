//! What embeds texts: waited for while the server packs it, given up where it is not coming, fetched anew where it is damaged.

import assert from 'node:assert/strict';
import test from 'node:test';

import { Downloads } from '../lib/downloads.js';
import { TextHost } from '../lib/text.js';
import { Texts } from '../lib/texts.js';

const NOTE = JSON.stringify({ packed: { id: 'aa', bytes: 4 } });
const verify = async () => NOTE;

/** A module whose texts are as long as they are; a file is whole if it begins with 1. */
const module = {
  init: async () => {},
  on_panic() {},
  TextReader: class {
    constructor(_id, bytes) {
      if (bytes[0] !== 1) throw Object.assign(new Error('another hash'), { code: 'text_failed' });
    }
    read_next() {
      return false;
    }
    finish() {
      return { embed: (text) => new Float32Array([text.length]) };
    }
    finish_changed(_id, bytes) {
      if (bytes[0] !== 1) throw Object.assign(new Error('another hash'), { code: 'text_failed' });
      return { embed: (text) => new Float32Array([-text.length]) };
    }
  },
};
const runtime = () => ({ name: 'text', file: 'text', url: () => new URL('http://page/text'), create: async () => module });

/** A text host of a server that answers by path, each time what comes next and at last always the same. */
function hostOf(t, answers) {
  const asked = [];
  t.mock.method(globalThis, 'fetch', async (url, { cache }) => {
    const { pathname, search } = new URL(url);
    asked.push([pathname + search, cache]);
    const [answer, ...rest] = answers[pathname] ?? [() => new Response('')];
    if (rest.length > 0) answers[pathname] = rest;
    return answer();
  });
  const stop = new AbortController();
  const { signal } = stop;
  const downloads = new Downloads({ url: 'http://server', model: 'main', signal, onProgress: () => {} });
  return { host: new TextHost({ downloads, signal, runtime }), asked, stop };
}

const NOTE_PATH = '/v1/models/main/text-encoder';
const noteComes = () => new Response('{}');
const isPacked = () => new Response('', { status: 503, headers: { 'retry-after': '2' } });
const file = (...bytes) => () => new Response(new Uint8Array(bytes));
const macrotask = () => new Promise((resolve) => setImmediate(resolve));

test('a file that arrived damaged is fetched past the cache of the browser the next time', async (t) => {
  const answers = { [NOTE_PATH]: [noteComes], '/v1/blobs/aa': [file(0, 0, 0, 0), file(1, 0, 0, 0)] };
  const { host, asked } = hostOf(t, answers);
  await assert.rejects(host.embed(['tent'], 3, verify), { code: 'text_failed' });
  assert.deepEqual(await host.embed(['tent', 'kettle'], 3, verify), new Float32Array([4, 6]));
  const caches = asked.filter(([path]) => path === '/v1/blobs/aa').map(([, cache]) => cache);
  assert.deepEqual(caches, ['default', 'reload']);
});

test('what an encoder has learned is fetched beside its file, and alone where it arrived damaged', async (t) => {
  const changed = JSON.stringify({ changed: { base: { id: 'aa', bytes: 4 }, change: { id: 'bb', bytes: 2 } } });
  const answers = { [NOTE_PATH]: [noteComes], '/v1/blobs/aa': [file(1, 0, 0, 0)], '/v1/blobs/bb': [file(0, 0), file(1, 0)] };
  const { host, asked } = hostOf(t, answers);
  await assert.rejects(host.embed(['tent'], 3, async () => changed), { code: 'text_failed' });
  assert.deepEqual(await host.embed(['tent'], 3, async () => changed), new Float32Array([-4]));
  const cachesOf = (id) => asked.filter(([path]) => path === `/v1/blobs/${id}`).map(([, cache]) => cache);
  assert.deepEqual(cachesOf('aa'), ['default', 'default']);
  assert.deepEqual(cachesOf('bb'), ['default', 'reload']);
});

test('an encoder that is being packed is waited for as the server says', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  const { host, asked } = hostOf(t, { [NOTE_PATH]: [isPacked, noteComes], '/v1/blobs/aa': [file(1, 0, 0, 0)] });
  const loaded = host.load(3, verify);
  await macrotask();
  t.mock.timers.tick(1_999);
  await macrotask();
  assert.equal(asked.length, 1);
  t.mock.timers.tick(1);
  await loaded;
  assert.equal(asked.filter(([path]) => path === `${NOTE_PATH}?generation=3`).length, 2);
});

test('a page that ends meanwhile waits no longer', async (t) => {
  const { host, stop } = hostOf(t, { [NOTE_PATH]: [isPacked] });
  const startedAt = Date.now();
  const loaded = host.load(3, verify);
  setImmediate(() => stop.abort());
  await assert.rejects(loaded, { code: 'disposed' });
  assert.ok(Date.now() - startedAt < 1_500, 'it waited');
});

test('an encoder that is not coming, and a server that is away, are told at once', async (t) => {
  const cases = [
    [() => new Response('', { status: 404 }), 'no_text_encoder'],
    [() => new Response('', { status: 500 }), 'server_error'],
    [() => Promise.reject(new TypeError('refused')), 'unreachable'],
  ];
  for (const [answer, code] of cases) {
    const { host, asked } = hostOf(t, { [NOTE_PATH]: [answer] });
    await assert.rejects(host.load(3, verify), { code });
    assert.equal(asked.length, 1, code);
    t.mock.restoreAll();
  }
});

test('a generation that is given up for another while it is asked for is no failure', async (t) => {
  let generation = 3;
  const engine = { status: () => JSON.stringify({ version: 1, encoder_generation: generation }), text_encoder: verify };
  const loads = [];
  const embed = async (texts, asked) => {
    loads.push(asked);
    generation = 4;
    if (asked === 3) throw Object.assign(new Error('gone'), { code: 'no_text_encoder' });
    return texts.map((text) => text.length);
  };
  const texts = new Texts(async () => ({ embed }), async (body) => body(engine));
  assert.deepEqual(await texts.ask(['tent'], (_engine, embedded) => JSON.stringify(embedded)), [4]);
  assert.deepEqual(loads, [3, 4]);
});

test('a note by a key that is new makes the page fetch keys and ask once more, and no more than once', async () => {
  const engine = { status: () => JSON.stringify({ version: 1, encoder_generation: 3 }) };
  let areNew = true;
  let numFetched = 0;
  const embed = async (texts) => {
    if (areNew) throw Object.assign(new Error('signed by a key that is unknown'), { code: 'unknown_key' });
    return texts.map((text) => text.length);
  };
  const pump = async () => {
    numFetched += 1;
    areNew = numFetched > 1;
  };
  const texts = new Texts(async () => ({ embed }), async (body) => body(engine), pump);
  const ask = () => texts.ask(['tent'], (_engine, embedded) => JSON.stringify(embedded));
  assert.deepEqual(await ask(), [4]);
  assert.equal(numFetched, 1);
  areNew = true;
  await assert.rejects(ask(), { code: 'unknown_key' });
  assert.equal(numFetched, 2);
});
