//! Limits that the scripts know beside the engine are the engine's, so that what was taken here is taken there.

import assert from 'node:assert/strict';
import { readFileSync, readdirSync } from 'node:fs';
import test from 'node:test';

const ROOT = new URL('../../../', import.meta.url);
const LIB = new URL('../lib/', import.meta.url);
const engine = (path) => readFileSync(new URL(path, ROOT), 'utf8');
const scripts = readdirSync(LIB).map((name) => readFileSync(new URL(name, LIB), 'utf8'));

/** Names in the scripts, with the file of the engine and the name there. */
const LIMITS = [
  ['CANDIDATES_MAX', 'shared-model/src/spec.rs', 'NUM_ITEMS_MAX'],
  ['GIVEN_EVENTS_MAX', 'edge-wasm/src/wire.rs', 'HISTORY_EVENTS_MAX'],
  ['ID_BYTES_MAX', 'shared-model/src/ids.rs', 'ID_BYTES_MAX'],
  ['NEW_ITEMS_MAX', 'shared-model/src/edge/engine/search.rs', 'NEW_ITEMS_MAX'],
  ['NUM_BUCKETS', 'shared-model/src/manifest/mod.rs', 'NUM_BUCKETS'],
  ['POINTS_MAX', 'shared-model/src/manifest/moderation.rs', 'POINTS_MAX'],
  ['POOL_MAX', 'shared-model/src/edge/explore.rs', 'POOL_MAX'],
  ['POOL_MAX', 'shared-model/src/edge/engine/diversity.rs', 'POOL_MAX'],
  ['REQUIRED_MAX', 'shared-model/src/edge/engine/rules.rs', 'REQUIRED_MAX'],
  ['RULES_BYTES_MAX', 'shared-model/src/manifest/moderation.rs', 'MODERATION_NOTE_BYTES_MAX'],
  ['RULES_MAX', 'shared-model/src/edge/engine/rules.rs', 'RULES_MAX'],
  ['RULE_ITEMS_MAX', 'shared-model/src/edge/engine/rules.rs', 'RULE_ITEMS_MAX'],
  ['SIMILAR_TO_MAX', 'shared-model/src/edge/engine/similar.rs', 'SIMILAR_TO_MAX'],
];

/** Values that a constant of this name has in a text; numbers, powers and shifts are read. */
function valuesOf(text, name) {
  const defined = text.matchAll(new RegExp(`const ${name}(?:: \\w+)? = ([\\d_.]+)(?: (\\*\\*|<<) (\\d+))?;`, 'g'));
  const valueOf = (base, operator, exponent = 1) => (operator === '<<' ? base * 2 ** exponent : base ** exponent);
  return [...defined].map(([, base, operator, exponent]) => valueOf(Number(base.replaceAll('_', '')), operator, exponent));
}

for (const [name, path, theirName] of LIMITS) {
  test(`${name} is ${theirName} of ${path}`, () => {
    const ours = scripts.flatMap((script) => valuesOf(script, name));
    assert.equal(ours.length, 1, 'it is written once');
    assert.deepEqual(ours, valuesOf(engine(path), theirName));
  });
}

test('temperatures are those of the engine', () => {
  const [, min, max] = /TEMPERATURE_RANGE: [^=]*= ([\w.-]+)\.\.=(\w+);/.exec(engine('shared-model/src/edge/explore.rs'));
  const ours = ['MIN', 'MAX'].flatMap((end) => scripts.flatMap((script) => valuesOf(script, `TEMPERATURE_${end}`)));
  assert.deepEqual(ours, [Number(min), Number(max)]);
});

test('the kinds of events are those of the engine', () => {
  const [, listed] = /const ALL: \[Self; \d+\] = \[([^\]]*)\]/.exec(engine('shared-model/src/event.rs'));
  const theirs = [...listed.matchAll(/Self::(\w+)/g)].map(([, name]) => name.replace(/\B[A-Z]/g, '_$&').toLowerCase());
  const ours = scripts.flatMap((script) => [...script.matchAll(/const KINDS = new Set\(\[([^\]]*)\]\)/g)]);
  assert.deepEqual(ours.map(([, kinds]) => kinds.replaceAll(/[' ]/g, '').split(',')), [theirs]);
});

test('both sides of the page give up WebGPU after as many lost devices', () => {
  const [first, ...others] = scripts.flatMap((script) => valuesOf(script, 'DEVICE_LOSSES_MAX'));
  assert.deepEqual(others, [first]);
});
