//! Claims about the client beside a server of a few lines; the real one is in the example.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import test from 'node:test';
import { gunzipSync } from 'node:zlib';

import { Client, newEventId, ProblemError, TransportError } from '../index.js';
import { backoffMillis, retryAfterMillis } from '../lib/transport.js';

const DONE = { accepted: 1, duplicates: 0, rejected: [], offset: 7 };

/** A client of a server that answers from a list and keeps what it was sent. */
async function stub(t, answers) {
  const seen = [];
  const server = createServer(async (request, response) => {
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    const bytes = Buffer.concat(chunks);
    const body = request.headers['content-encoding'] === 'gzip' ? gunzipSync(bytes) : bytes;
    seen.push({ path: request.url, headers: request.headers, body: String(body) });
    const [status, document, headers = {}] = answers.shift();
    response.writeHead(status, { 'content-type': 'application/json', ...headers }).end(JSON.stringify(document));
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  const url = `http://127.0.0.1:${server.address().port}/`;
  return { seen, client: new Client({ url, ingestKey: 'in', readKey: 're', adminUrl: url, adminToken: 'ad' }) };
}

test('ids are of version 7 and in the order of time', async () => {
  const first = newEventId();
  assert.match(first, /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  await new Promise((resolve) => setTimeout(resolve, 3));
  assert.ok(first < newEventId());
});

test('what is overloaded is asked again with the same ids after the time it names', async (t) => {
  const { client, seen } = await stub(t, [[503, {}, { 'retry-after': '1' }], [200, DONE]]);
  const startedAt = performance.now();
  const receipt = await client.sendEvents([{ kind: 'click', userId: 'u', itemId: 'i' }]);
  assert.ok(performance.now() - startedAt >= 990);
  assert.deepEqual([receipt.accepted, receipt.offset], [1, 7]);
  assert.equal(seen[0].body, seen[1].body);
  assert.equal(seen[0].headers.authorization, 'Bearer in');
  assert.deepEqual(Object.keys(JSON.parse(seen[0].body).events[0]).sort(), [
    'event_id', 'item_id', 'kind', 'occurred_at', 'user_id',
  ]);
});

test('batches are packed and rejections have the index of the whole', async (t) => {
  const rejection = { index: 2, code: 'unknown_item', pointer: '/events/2/item_id', detail: 'no item' };
  const { client, seen } = await stub(t, [[200, DONE], [200, { ...DONE, rejected: [rejection] }]]);
  const events = Array.from({ length: 503 }, () => ({ kind: 'click', userId: 'u', itemId: 'i' }));
  const receipt = await client.sendEvents(events);
  assert.deepEqual(receipt.rejected.map(({ index, code }) => [index, code]), [[502, 'unknown_item']]);
  assert.deepEqual(seen.map(({ body }) => JSON.parse(body).events.length), [500, 3]);
  assert.equal(seen[0].headers['content-encoding'], 'gzip');
});

test('attributes are sent as they are', async (t) => {
  const { client, seen } = await stub(t, [[200, DONE]]);
  await client.putItems([{ itemId: 'i', title: 'T', attributes: { priceInCents: 5 } }]);
  assert.deepEqual(JSON.parse(seen[0].body).items[0], { item_id: 'i', title: 'T', attributes: { priceInCents: 5 } });
});

test('a refusal is not repeated and names the field', async (t) => {
  const errors = [{ pointer: '/k', code: 'malformed', detail: '0 is too small' }];
  const { client, seen } = await stub(t, [[422, { title: 'Unprocessable', detail: 'no', errors }]]);
  await assert.rejects(client.recommend({ userId: 'u', k: 0 }), (error) => {
    assert.ok(error instanceof ProblemError);
    assert.deepEqual([error.status, error.errors], [422, errors]);
    assert.match(error.message, /\/k: 0 is too small/);
    return true;
  });
  assert.equal(seen.length, 1);
});

test('an order is not given twice where no answer came', async (t) => {
  const { client, seen } = await stub(t, [[502, {}], [200, {}]]);
  await assert.rejects(client.rollback(3), ProblemError);
  assert.equal(seen.length, 1);
  assert.equal(seen[0].headers.authorization, 'Bearer ad');
});

test('a server that is not there is an error with its address', async () => {
  const client = new Client({ url: 'http://127.0.0.1:9', triesMax: 1, fetch: () => Promise.reject(new Error('refused')) });
  await assert.rejects(client.status(), (error) => {
    assert.ok(error instanceof TransportError);
    assert.equal(error.message, 'GET http://127.0.0.1:9/v1/status: refused');
    return true;
  });
});

test('an abort ends the wait between tries with its reason', async (t) => {
  const { client } = await stub(t, [[503, {}, { 'retry-after': '30' }]]);
  const abort = new AbortController();
  const asked = client.status({ signal: abort.signal });
  setTimeout(() => abort.abort(new Error('enough')), 50);
  await assert.rejects(asked, /enough/);
});

test('users of any name are asked for page by page', async (t) => {
  const page = { events: [{}], next_from: 5 };
  const { client, seen } = await stub(t, [[200, page], [200, { ...page, next_from: null }]]);
  let num = 0;
  for await (const document of client.exportUser('a/b c')) num += document.events.length;
  assert.equal(num, 2);
  assert.deepEqual(seen.map(({ path }) => path), ['/v1/users/a%2Fb%20c?from=0', '/v1/users/a%2Fb%20c?from=5']);
});

test('every method and every export is declared, and no other', async () => {
  const declared = await readFile(new URL('../index.d.ts', import.meta.url), 'utf8');
  const body = declared.slice(declared.indexOf('export class Client'));
  const methods = body.slice(0, body.indexOf('\n}\n')).matchAll(/^  (?:static )?(\w+)\(/gm);
  const actual = [...Object.getOwnPropertyNames(Client.prototype), 'event'];
  assert.deepEqual(Array.from(methods, ([, name]) => name).sort(), actual.sort());
  const values = declared.matchAll(/^export (?:class|function) (\w+)/gm);
  assert.deepEqual(Array.from(values, ([, name]) => name).sort(), Object.keys(await import('../index.js')).sort());
});

test('waits double up to a limit and dates are understood', () => {
  assert.ok(backoffMillis(1) <= 250 && backoffMillis(1) >= 125);
  assert.ok(backoffMillis(99) <= 30_000 && backoffMillis(99) >= 15_000);
  assert.equal(retryAfterMillis('Thu, 01 Jan 1970 00:00:05 GMT', 1000), 4000);
  assert.equal(retryAfterMillis('soon', 0), 0);
  assert.equal(retryAfterMillis('999999', 0), 30_000);
  assert.equal(retryAfterMillis(null, 0), 0);
});
