//! What the bindings for frameworks share, without a framework.

import assert from 'node:assert/strict';
import test from 'node:test';

import { Shared } from '../lib/binding.js';
import { Emitter } from '../lib/emitter.js';
import { until } from './fake-browser.js';

test('who opens it again after consent was changed has the consent of the visitor, not that of the options', async () => {
  const opened = [];
  const shared = new Shared((changed) => {
    const emitter = new Emitter();
    opened.push({ consent: 'granted', ...changed, emitter });
    return { on: (...asked) => emitter.on(...asked), dispose: async () => {} };
  });
  shared.get();
  opened[0].emitter.emit('consent', { consent: 'denied' });
  await until(() => shared.current() === null); // nobody holds it
  shared.get();
  assert.deepEqual(opened.map(({ consent }) => consent), ['granted', 'denied']);
});
