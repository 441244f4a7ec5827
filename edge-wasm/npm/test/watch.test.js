//! The parser of the announcement stream.

import assert from 'node:assert/strict';
import test from 'node:test';

import { sseParser } from '../lib/watch.js';

const STREAM = ': hello\n\nevent: version\nid: 7\ndata: {"version":7}\n\nevent: version\r\ndata: a\r\ndata: b\r\n\r\n';

test('reads events whatever the pieces they come in', () => {
  const expected = [
    { event: 'version', data: '{"version":7}' },
    { event: 'version', data: 'a\nb' },
  ];
  for (let cut = 0; cut <= STREAM.length; cut += 1) {
    const parser = sseParser();
    const events = [...parser.push(STREAM.slice(0, cut)), ...parser.push(STREAM.slice(cut))];
    assert.deepEqual(events, expected, `cut at ${cut}`);
  }
});

test('gives no event for comments and for an unfinished one', () => {
  const parser = sseParser();
  assert.deepEqual(parser.push(': keep-alive\n\nevent: version\ndata: 1\n'), []);
});

test('refuses an announcement without end', () => {
  const parser = sseParser();
  assert.throws(() => {
    for (let idx = 0; idx < 100; idx += 1) parser.push(`data: ${'x'.repeat(100_000)}\n`);
  }, /too long/);
});
