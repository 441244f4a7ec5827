//! Waiting between attempts.

import assert from 'node:assert/strict';
import test from 'node:test';

import { Backoff, retryAfterMillis } from '../lib/backoff.js';

test('waits double up to a limit, with jitter below it', () => {
  const longest = new Backoff(() => 1);
  assert.deepEqual([1, 2, 3, 4].map(() => longest.nextMillis()), [250, 500, 1000, 2000]);
  for (let idx = 0; idx < 20; idx += 1) longest.nextMillis();
  assert.equal(longest.nextMillis(), 15_000);
  assert.equal(new Backoff(() => 0).nextMillis(), 125);
});

test('a wait ends at once by wake and by abort, by wake not before what the server asked for', async () => {
  const backoff = new Backoff();
  const woken = backoff.wait();
  backoff.wake();
  await woken;
  for (let idx = 0; idx < 20; idx += 1) backoff.nextMillis(); // from here on it would wait for seconds
  const startedAt = performance.now();
  const asked = backoff.wait(undefined, 300);
  backoff.wake();
  backoff.wake();
  await asked;
  const millis = performance.now() - startedAt;
  // Timers of node count from the start of their turn, which may be some milliseconds ago.
  assert.ok(millis >= 250 && millis < 7500, `${millis} ms`);
  await backoff.wait(AbortSignal.abort(), 60_000);
});

test('reads Retry-After in seconds and as a date, and bounds it', () => {
  const headers = (value) => new Headers({ 'retry-after': value });
  assert.equal(retryAfterMillis(headers('3'), 0), 3000);
  assert.equal(retryAfterMillis(headers('Thu, 01 Jan 1970 00:00:05 GMT'), 1000), 4000);
  assert.equal(retryAfterMillis(headers('999999'), 0), 120_000);
  assert.equal(retryAfterMillis(headers('soon'), 0), 0);
  assert.equal(retryAfterMillis(new Headers(), 0), 0);
});
