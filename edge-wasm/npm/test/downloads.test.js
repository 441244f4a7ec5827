//! Downloads: fetched ahead, bounded, counted.

import assert from 'node:assert/strict';
import test from 'node:test';

import { Downloads } from '../lib/downloads.js';

const PLAN = {
  target_version: 3,
  manifest: '{}',
  total_bytes: 8,
  steps: [
    { kind: 'delta', blob: { id: 'aa', bytes: 4 }, target_version: 2 },
    { kind: 'delta', blob: { id: 'bb', bytes: 4 }, target_version: 3 },
  ],
};

/** Downloads from a server that answers by path; `paths` has what was asked for. */
function downloadsFrom(t, answers) {
  const paths = [];
  t.mock.method(globalThis, 'fetch', async (url) => {
    const { pathname, search } = new URL(url);
    paths.push(pathname + search);
    return answers[pathname]?.() ?? new Response('', { status: 404 });
  });
  const progress = [];
  const onProgress = (told) => progress.push(told);
  const signal = new AbortController().signal;
  return { downloads: new Downloads({ url: 'http://server', model: 'main', signal, onProgress }), paths, progress };
}

function engine() {
  const told = [];
  const calls = { on_plan: () => told.push('plan'), on_blob: (id, bytes) => told.push(`${id} ${bytes.length}`) };
  return { told, withEngine: async (body) => body(calls) };
}

test('the blobs of a plan are fetched ahead, each once, and counted in one total', async (t) => {
  const blob = () => new Response(new Uint8Array(4));
  const { downloads, paths, progress } = downloadsFrom(t, {
    '/v1/models/main/plan': () => Response.json(PLAN),
    '/v1/blobs/aa': blob,
    '/v1/blobs/bb': blob,
  });
  const { told, withEngine } = engine();
  await downloads.perform({ kind: 'plan', base: 1 }, withEngine);
  await downloads.perform({ kind: 'blob', id: 'aa', bytes: 4 }, withEngine);
  await downloads.perform({ kind: 'blob', id: 'bb', bytes: 4 }, withEngine);
  assert.deepEqual(told, ['plan', 'aa 4', 'bb 4']);
  assert.deepEqual(paths, ['/v1/models/main/plan?base=1', '/v1/blobs/aa', '/v1/blobs/bb']);
  const last = progress.at(-1);
  assert.equal(last.bytesReceived, last.bytesTotal);
  assert.equal(downloads.bytesReceived, JSON.stringify(PLAN).length + 8);
});

test('a bucket that was drawn is said with plan and watch, and with a report', async (t) => {
  const { downloads, paths } = downloadsFrom(t, { '/v1/models/main/plan': () => Response.json(PLAN) });
  assert.equal(downloads.watchUrl(), 'http://server/v1/models/main/watch');
  downloads.sayBucket(7);
  const { withEngine } = engine();
  await downloads.perform({ kind: 'plan', base: null }, withEngine);
  await downloads.perform({ kind: 'plan', base: 2 }, withEngine);
  assert.equal(downloads.watchUrl(), 'http://server/v1/models/main/watch?bucket=7');
  await downloads.report(3, 'self_test');
  const asked = paths.filter((path) => !path.includes('blobs'));
  const model = '/v1/models/main';
  assert.deepEqual(asked, [`${model}/plan?bucket=7`, `${model}/plan?base=2&bucket=7`, `${model}/reports`]);
});

test('a report that does not arrive is no error', async (t) => {
  t.mock.method(globalThis, 'fetch', () => Promise.reject(new TypeError('refused')));
  const signal = new AbortController().signal;
  const downloads = new Downloads({ url: 'http://server', model: 'main', signal, onProgress: () => {} });
  await downloads.report(3, 'hash');
});

test('a blob longer than its name says is refused before it is held', async (t) => {
  const { downloads } = downloadsFrom(t, { '/v1/blobs/aa': () => new Response(new Uint8Array(5)) });
  const { told, withEngine } = engine();
  await assert.rejects(downloads.perform({ kind: 'blob', id: 'aa', bytes: 4 }, withEngine), { code: 'too_long' });
  assert.deepEqual(told, []);
});

test('errors say whether the server is away, has no version, or is busy', async (t) => {
  const { downloads } = downloadsFrom(t, {
    '/v1/blobs/away': () => Promise.reject(new TypeError('refused')),
    '/v1/blobs/busy': () => new Response('', { status: 503, headers: { 'retry-after': '2' } }),
  });
  const { withEngine } = engine();
  const fetchBlob = (id) => downloads.perform({ kind: 'blob', id, bytes: 4 }, withEngine);
  await assert.rejects(fetchBlob('away'), { code: 'unreachable' });
  await assert.rejects(fetchBlob('missing'), { code: 'no_model' });
  await assert.rejects(fetchBlob('busy'), { code: 'server_error', retryAfterMillis: 2000 });
});
