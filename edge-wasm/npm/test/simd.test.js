import assert from 'node:assert/strict';
import test from 'node:test';

import { hasRelaxedSimd } from '../lib/simd.js';

test('the probe says what validation says, and a browser without validation of it says no', (t) => {
  assert.equal(typeof hasRelaxedSimd(), 'boolean');
  const asked = [];
  const answer = { value: true };
  t.mock.method(WebAssembly, 'validate', (bytes) => {
    asked.push(bytes);
    return answer.value;
  });
  assert.equal(hasRelaxedSimd(), true);
  answer.value = false;
  assert.equal(hasRelaxedSimd(), false);
  assert.equal(asked.length, 2);
});

test('but for the relaxed instruction the probed module is a valid one', (t) => {
  let probed;
  t.mock.method(WebAssembly, 'validate', (bytes) => {
    probed = bytes;
    return true;
  });
  hasRelaxedSimd();
  t.mock.restoreAll();
  // i8x16.relaxed_swizzle, 0xfd 0x100, takes and gives what i8x16.swizzle, 0xfd 0x0e, does.
  const at = probed.findIndex((byte, idx) => byte === 0xfd && probed[idx + 1] === 0x80 && probed[idx + 2] === 0x02);
  const bytes = [...probed.slice(0, at), 0xfd, 0x0e, ...probed.slice(at + 3)];
  bytes[20] -= 1; // the body and its section are a byte shorter
  bytes[22] -= 1;
  assert.equal(WebAssembly.validate(new Uint8Array(bytes)), true);
});
