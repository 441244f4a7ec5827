//! The rules of the server's operators in a page: when they are fetched, what is kept, and what is told. The engine and the
//! server are made up.

import assert from 'node:assert/strict';
import test from 'node:test';

import { Rules } from '../lib/rules.js';
import { until } from './fake-browser.js';

const bytes = (revision) => new TextEncoder().encode(String(revision));

/** An engine that believes notes by `judge`, and a server that has revision `server.revision`. */
function scene(t, judge = () => {}) {
  const end = new AbortController();
  t.after(() => end.abort());
  const made = { server: { revision: 3, numAsked: 0, failures: [] }, kept: [], warned: [], numChanges: 0, numPumps: 0 };
  const engine = {
    revision: null,
    moderate(note) {
      judge(engine);
      const revision = Number(new TextDecoder().decode(note));
      if (engine.revision > revision) throw Object.assign(new Error('older'), { code: 'stale' });
      const isChanged = engine.revision !== revision;
      engine.revision = revision;
      return isChanged;
    },
    status: () => JSON.stringify({ version: 1, moderation_revision: engine.revision }),
  };
  const downloads = {
    async rules() {
      made.server.numAsked += 1;
      const code = made.server.failures.shift();
      if (code) throw Object.assign(new Error('failed'), { code });
      return bytes(made.server.revision);
    },
  };
  const rules = new Rules({
    signal: end.signal,
    downloads,
    cache: { findRules: async () => made.found, keepRules: async (note) => made.kept.push(String(note)) },
    withEngine: async (body) => body(engine),
    pump: async () => (made.numPumps += 1),
    onChanged: () => (made.numChanges += 1),
    warn: (error) => made.warned.push(error.code),
  });
  return { engine, rules, end, ...made, made };
}

test('rules are fetched once, again for another revision alone, and kept', async (t) => {
  const { engine, rules, server, kept, made } = scene(t);
  await rules.fetch();
  assert.deepEqual([engine.revision, server.numAsked, made.numChanges], [3, 1, 1]);
  await rules.fetch(3);
  await rules.fetch(2);
  assert.equal(server.numAsked, 1);
  server.revision = 4;
  await Promise.all([rules.fetch(4), rules.fetch(4)]);
  assert.deepEqual([engine.revision, made.numChanges], [4, 2]);
  assert.deepEqual(kept, [String(bytes(3)), String(bytes(4))]);
});

test('what does not come is tried again, and a server without rules is not', async (t) => {
  const { engine, rules, server, warned } = scene(t);
  server.failures = ['unreachable', 'server_error'];
  const fetched = rules.fetch();
  await until(() => server.numAsked > 0);
  const waking = setInterval(() => rules.wake(), 1);
  t.after(() => clearInterval(waking));
  await fetched;
  assert.deepEqual([engine.revision, server.numAsked], [3, 3]);
  server.failures = ['no_model'];
  await rules.fetch();
  assert.deepEqual([server.numAsked, warned], [4, []]);
});

test('a note that is refused is told of, changes nothing and is not kept', async (t) => {
  const { engine, rules, server, warned, kept, made } = scene(t);
  await rules.fetch();
  server.revision = 2;
  await rules.fetch();
  assert.deepEqual([engine.revision, warned, kept.length, made.numChanges], [3, ['stale'], 1, 1]);
});

test('a key that the engine has not met is fetched first', async (t) => {
  const { engine, rules, warned, made } = scene(t, () => {
    if (made.numPumps === 0) throw Object.assign(new Error('who'), { code: 'unknown_key' });
  });
  const fetched = rules.fetch();
  const waking = setInterval(() => rules.wake(), 1);
  t.after(() => clearInterval(waking));
  await fetched;
  assert.deepEqual([engine.revision, warned, made.numPumps], [3, [], 1]);
});

test('an engine that replaces another is given the rules at hand, also those of an earlier page', async (t) => {
  const { engine, rules, made } = scene(t);
  made.found = bytes(7);
  await rules.find();
  assert.equal(rules.giveTo(engine), true);
  assert.equal(engine.revision, 7);
  const stranger = { moderate: () => { throw new Error('unknown key'); } };
  assert.equal(rules.giveTo(stranger), false);
  rules.forget();
  assert.equal(rules.giveTo(stranger), true, 'there is nothing to give');
});
