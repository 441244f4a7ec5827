//! The rule by which a page chooses its backend, and what it remembers.

import assert from 'node:assert/strict';
import test from 'node:test';

import { choiceByCpu, choiceByTimes, recalled, sizeBucket } from '../lib/choice.js';

const DAY_MILLIS = 24 * 3600 * 1000;
const NOW_MILLIS = 1_800_000_000_000;
const measured = (cpuMillis, webGpuMillis, atMillis = NOW_MILLIS) => ({ cpuMillis, webGpuMillis, atMillis });

test('a CPU that is fast enough is not measured against anything', () => {
  assert.equal(choiceByCpu(0.3).backend, 'cpu');
  assert.match(choiceByCpu(0.3).reason, /0\.3 ms/);
  assert.equal(choiceByCpu(4), undefined);
  assert.equal(choiceByCpu(undefined), undefined);
});

test('WebGPU has to be a fifth faster at least', () => {
  assert.equal(choiceByTimes(measured(12, 10)).backend, 'webgpu');
  assert.equal(choiceByTimes(measured(11.9, 10)).backend, 'cpu');
  assert.equal(choiceByTimes(measured(10, 30)).backend, 'cpu');
  for (const sentence of [choiceByTimes(measured(12, 10)).reason, choiceByTimes(measured(10, 30)).reason]) {
    assert.match(sentence, /CPU/);
    assert.match(sentence, /WebGPU/);
  }
});

test('a catalogue twice as large is in the next bucket', () => {
  assert.equal(sizeBucket(0), sizeBucket(1));
  assert.equal(sizeBucket(1024), sizeBucket(2047));
  assert.equal(sizeBucket(2048), sizeBucket(1024) + 1);
});

test('what was measured is remembered for this device and size, for a week', () => {
  const remembered = { device: 'acme', measured: { 10: measured(50, 5), 11: measured(50, 80) } };
  assert.equal(recalled(remembered, 'acme', 10, NOW_MILLIS).backend, 'webgpu');
  assert.equal(recalled(remembered, 'acme', 11, NOW_MILLIS + DAY_MILLIS).backend, 'cpu');
  assert.equal(recalled(remembered, 'acme', 12, NOW_MILLIS), undefined, 'another size');
  assert.equal(recalled(remembered, 'other', 10, NOW_MILLIS), undefined, 'another device');
  assert.equal(recalled(remembered, 'acme', 10, NOW_MILLIS + 8 * DAY_MILLIS), undefined, 'too old');
  assert.equal(recalled(remembered, 'acme', 10, NOW_MILLIS - 8 * DAY_MILLIS), undefined, 'the clock was set back');
});

test('a failure outweighs what was measured, as long as it is fresh', () => {
  const failure = { message: 'driver reset', atMillis: NOW_MILLIS };
  const remembered = { device: 'acme', failure, measured: { 10: measured(50, 5, NOW_MILLIS + 7 * DAY_MILLIS) } };
  const choice = recalled(remembered, 'acme', 10, NOW_MILLIS + 6 * DAY_MILLIS);
  assert.equal(choice.backend, 'cpu');
  assert.match(choice.reason, /driver reset/);
  assert.equal(recalled(remembered, 'acme', 10, NOW_MILLIS + 8 * DAY_MILLIS).backend, 'webgpu');
});

test('what something else has written there is no memory', () => {
  for (const other of [undefined, null, 7, 'text', [], {}, { device: 'acme', measured: 3 }, { device: 'acme', failure: true }]) {
    assert.equal(recalled(other, 'acme', 10, NOW_MILLIS), undefined);
  }
});
