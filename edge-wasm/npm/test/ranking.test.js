//! What the package takes as rules, diversity and exploration.

import assert from 'node:assert/strict';
import test from 'node:test';

import { diversityOf, explorationOf, rulesOf } from '../lib/ranking.js';

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

test('rules are passed on whole, and without them there are none', () => {
  assert.deepEqual(rulesOf(undefined), {});
  const rules = {
    boost: [{ itemIds: ['a', 'b'], points: 0.7 }],
    bury: [{ itemIds: ['c'], points: 100 }],
    require: [{ itemId: 'd', position: 0 }],
    exclude: ['e'],
  };
  assert.deepEqual(rulesOf(rules), rules);
});

test('a rule that cannot be taken is named', () => {
  const ids = (num) => Array.from({ length: num }, (_, idx) => `item-${idx}`);
  const cases = [
    [{ promote: [] }, 'rules.promote'],
    [{ boost: [{ itemIds: ['a'], points: 1 }, { itemIds: ['a'] }] }, 'rules.boost[1].points'],
    [{ boost: [{ itemIds: ['a'], points: 0 }] }, 'rules.boost[0].points'],
    [{ bury: [{ itemIds: ['a'], points: 101 }] }, 'rules.bury[0].points'],
    [{ bury: [{ itemIds: ['a'], points: Number.NaN }] }, 'rules.bury[0].points'],
    [{ bury: [{ itemIds: 'a', points: 1 }] }, 'rules.bury[0].itemIds'],
    [{ bury: [{ itemIds: ['a', ''], points: 1 }] }, 'rules.bury[0].itemIds[1]'],
    [{ boost: [null] }, 'rules.boost[0].itemIds'],
    [{ boost: Array(1001).fill({ itemIds: [], points: 1 }) }, 'rules.boost'],
    [{ require: [{ itemId: 'a', position: -1 }] }, 'rules.require[0].position'],
    [{ require: [{ itemId: 'a', position: 1 }, { itemId: 'b', position: 1 }] }, 'rules.require[1].position'],
    [{ require: [{ itemId: 'a', position: 1 }, { itemId: 'a', position: 2 }] }, 'rules.require[1].itemId'],
    [{ require: ids(301).map((itemId, position) => ({ itemId, position })) }, 'rules.require'],
    [{ exclude: ['a', 7] }, 'rules.exclude[1]'],
    [{ require: [{ itemId: 'x'.repeat(129), position: 1 }] }, 'rules.require[0].itemId'],
    [{ exclude: ids(100_000), boost: [{ itemIds: ['a'], points: 1 }] }, 'rules'],
  ];
  for (const [rules, field] of cases) {
    assert.throws(
      () => rulesOf(rules),
      (error) => error.code === 'invalid_option' && error.message.includes(`"${field}"`),
      field,
    );
  }
  assert.equal(rulesOf({ exclude: ids(100_000) }).exclude.length, 100_000);
});

test('a refusal says what stands there and what may', () => {
  const said = (wish) => {
    try {
      rulesOf(wish);
    } catch ({ message }) {
      return message;
    }
    return undefined;
  };
  const points = (points) => ({ boost: [{ itemIds: ['a'], points }] });
  const option = 'The option "rules.boost[0].points" has to be a number above 0, at most 100; it is';
  assert.equal(said(points(500)), `${option} 500.`);
  assert.equal(said(points('5')), `${option} "5".`);
  assert.equal(said(points(undefined)), `${option} undefined.`);
  assert.equal(said(points(null)), `${option} null.`);
  assert.equal(said(points([1, 2])), `${option} a list of 2.`);
  assert.equal(said(points({})), `${option} of type object.`);
  const long = said({ exclude: ['x'.repeat(200)] });
  assert.match(long, /"rules.exclude\[0\]" has to be the id of an item, 1 to 128 bytes .* it is "x{59}… of 200 characters\.$/);
  assert.match(said({ require: Array(301).fill({}) }), /a list of at most 300 items .* it is a list of 301\.$/);
});

test('diversity is a share of relevance over a pool', () => {
  assert.equal(diversityOf(undefined), undefined);
  assert.deepEqual(diversityOf({ lambda: 0, pool: 1000 }), { lambda: 0, pool: 1000 });
  for (const [wish, field] of [[{}, 'lambda'], [{ lambda: 1.1 }, 'lambda'], [{ lambda: 1, pool: 1001 }, 'pool']]) {
    assert.throws(() => diversityOf(wish), (error) => error.message.includes(`"diversity.${field}"`));
  }
});
