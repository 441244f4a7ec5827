//! What the package says about exploration and explanations, without an engine.

import assert from 'node:assert/strict';
import test from 'node:test';

import { explanationOf, explorationOf, rankingOf } from '../lib/ranking.js';

test('exploring is off unless wished for, and then has a seed of its own', () => {
  assert.equal(explorationOf(undefined), undefined);
  const first = explorationOf({ temperature: 0.5 });
  const second = explorationOf({ temperature: 0.5 });
  assert.ok(Number.isSafeInteger(first.seed) && first.seed >= 0);
  assert.notEqual(first.seed, second.seed);
  assert.equal(explorationOf({ epsilon: 0, seed: 7 }).seed, 7);
});

test('a wish that cannot be met names its field', () => {
  const cases = [
    [{}, 'exploration'],
    [{ temperature: 1, epsilon: 0.1 }, 'exploration'],
    [{ temperature: 0 }, 'exploration.temperature'],
    [{ temperature: '1' }, 'exploration.temperature'],
    [{ epsilon: 1.1 }, 'exploration.epsilon'],
    [{ epsilon: Number.NaN }, 'exploration.epsilon'],
    [{ epsilon: 0.1, pool: 0.5 }, 'exploration.pool'],
    [{ epsilon: 0.1, pool: 1001 }, 'exploration.pool'],
    [{ epsilon: 0.1, seed: -1 }, 'exploration.seed'],
  ];
  for (const [wish, field] of cases) {
    assert.throws(
      () => explorationOf(wish),
      (error) => error.code === 'invalid_option' && error.message.includes(`"${field}"`),
      JSON.stringify(wish),
    );
  }
});

test('without exploration every place is certain', () => {
  const items = [{ item_id: 'a', score: 2 }, { item_id: 'b', score: 1, propensity: 0.25 }];
  const ranking = rankingOf({ model_version: 3, items });
  assert.deepEqual(ranking.items.map((item) => item.propensity), [1, 0.25]);
});

test('an explanation keeps every number under a name of its own', () => {
  const event = { item_id: 'x', kind: 'click', occurred_at: 5, effect: 0.5, taste: 0.25, neighbours: 0.25 };
  const parts = { text: 1, features: 2, id_row: 3, prior: 4, neighbours: 5, bias: 6 };
  const average = { taste: 0, prior: 1, neighbours: 2, bias: 3 };
  const answer = { model_version: 3, item_id: 'a', score: 21, parts, average, text_effect: 7, events: [event] };
  assert.deepEqual(explanationOf(answer), {
    modelVersion: 3,
    itemId: 'a',
    score: 21,
    parts: { text: 1, features: 2, idRow: 3, prior: 4, neighbours: 5, bias: 6 },
    average,
    textEffect: 7,
    events: [{ itemId: 'x', kind: 'click', occurredAt: 5, effect: 0.5, taste: 0.25, neighbours: 0.25 }],
  });
});
