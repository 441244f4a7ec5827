//! Arms of a page are those of the server, and a page that cannot do every arm, or has no consent, is in none.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import test from 'node:test';

import { Experiments, armOf } from '../lib/experiments.js';

const vectors = JSON.parse(readFileSync(new URL('../../../trainer-server/src/experiment/vectors.json', import.meta.url), 'utf8'));

test('units have the arms that the server gives them', () => {
  assert.ok(vectors.length >= 20);
  for (const { salt, unit, arms, arm } of vectors) {
    const named = arms.map(([name, share]) => ({ name, share }));
    assert.equal(armOf({ salt, arms: named }, unit)?.name ?? null, arm, `${salt} ${unit}`);
  }
});

/** What a server that runs `experiments` makes of a visitor. */
async function armsWith(t, answer) {
  const asked = [];
  t.mock.method(globalThis, 'fetch', async (url) => {
    asked.push(url);
    return answer();
  });
  const experiments = new Experiments('http://server', 'main');
  const arm = await experiments.armAt('home', 'u');
  await experiments.armAt('home', 'v');
  return { arm, asked };
}

const arm = (name, share, strategy) => ({ name, share, strategy });
const running = (...arms) => Response.json({ experiments: [{ name: 'e', place: 'home', salt: 's', arms }] });

test('the list is asked for once, and its arm says how to rank', async (t) => {
  const bold = arm('bold', 100, { exploration: { temperature: 0.5 } });
  const { arm: found, asked } = await armsWith(t, () => running(bold));
  assert.deepEqual(found, { arm: 'e/bold', exploration: { temperature: 0.5 } });
  assert.deepEqual(asked, ['http://server/v1/models/main/experiments']);
});

for (const [name, answer] of [
  ['another place', () => Response.json({ experiments: [{ name: 'e', place: 'cart', salt: 's', arms: [arm('a', 100, 'model')] }] })],
  ['an arm that a page cannot do', () => running(arm('a', 50, 'model'), arm('b', 50, 'popularity'))],
  ['an answer that is none', () => new Response('no', { status: 503 })],
  ['no server', () => Promise.reject(new TypeError('offline'))],
]) {
  test(`there is no arm with ${name}`, async (t) => {
    assert.equal((await armsWith(t, answer)).arm, undefined);
  });
}
