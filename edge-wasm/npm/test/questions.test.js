//! What a page asks and is answered, without an engine.

import assert from 'node:assert/strict';
import test from 'node:test';

import { explainQuestion, filtered, personalOf, rankQuestion, similarQuestion } from '../lib/questions.js';

const noHistory = () => [];
const rankingOf = rankQuestion({}, noHistory, false).answerOf;

test('a ranking keeps what rules and chance did to each item, and what is missing', () => {
  const item = { item_id: 'a', score: 2, points: -1.5, required: true, propensity: 0.25 };
  assert.deepEqual(rankingOf({ model_version: 3, items: [item], missing: ['b'] }), {
    modelVersion: 3,
    items: [{ itemId: 'a', score: 2, points: -1.5, isRequired: true, propensity: 0.25 }],
    missing: ['b'],
    isPersonal: false,
  });
  const nearest = similarQuestion('x', {}, noHistory).answerOf({ model_version: 3, items: [{ item_id: 'a', score: 0.5 }] });
  assert.deepEqual(nearest, { modelVersion: 3, items: [{ itemId: 'a', similarity: 0.5 }] });
});

test('a ranking says whether the personal model had a say, and what it has come to', () => {
  const answer = { model_version: 3, items: [], missing: [], personal: { is_on: true, events_learned: 9, gain: 1.5 } };
  assert.equal(rankingOf(answer).isPersonal, true);
  assert.deepEqual(personalOf(answer.personal), { isOn: true, eventsLearned: 9, gain: 1.5 });
});

test('an explanation keeps every number under a name of its own', () => {
  const event = { item_id: 'x', kind: 'click', occurred_at: 5, effect: 0.5, taste: 0.25, neighbours: 0.25 };
  const parts = { text: 1, features: 2, id_row: 3, prior: 4, neighbours: 5, bias: 6 };
  const average = { taste: 0, prior: 1, neighbours: 2, bias: 3 };
  const answer = { model_version: 3, item_id: 'a', score: 21, parts, average, text_effect: 7, events: [event] };
  assert.deepEqual(explainQuestion('a', {}, noHistory).answerOf(answer), {
    modelVersion: 3,
    itemId: 'a',
    score: 21,
    parts: { text: 1, features: 2, idRow: 3, prior: 4, neighbours: 5, bias: 6 },
    average,
    textEffect: 7,
    events: [{ itemId: 'x', kind: 'click', occurredAt: 5, effect: 0.5, taste: 0.25, neighbours: 0.25 }],
  });
});

test('a question takes the kept history and the wish of the page where it names none itself', () => {
  const event = (itemId) => ({ itemId, kind: 'click', occurredAt: 5 });
  const readHistory = () => [event('kept')];
  const asked = (options) => rankQuestion({ nowMillis: 9, ...options }, readHistory, true).call;
  const { history, personal, k, nowMillis } = asked({});
  assert.deepEqual(history, [{ item_id: 'kept', kind: 'click', occurred_at: 5 }]);
  assert.deepEqual([personal, k, nowMillis], [true, 10, 9]);
  assert.equal(asked({ personal: false }).personal, false);
  assert.equal(asked({ history: [event('given')] }).history[0].item_id, 'given');
  assert.deepEqual(similarQuestion('a', {}, readHistory).call.history, [], 'nothing is left out, so nothing is looked at');
});

test('a filter leaves what may be shown, and names what it refused of the required', () => {
  const filter = (itemId) => itemId !== 'b';
  const require = [{ itemId: 'b', position: 0 }, { itemId: 'a', position: 1 }];
  const { call, answerOf } = filtered(rankQuestion({ filter, rules: { require } }, noHistory, false), ['a', 'b', 'c']);
  assert.deepEqual(call.candidates, ['a', 'c']);
  assert.deepEqual(call.rules.require, [{ itemId: 'a', position: 1 }]);
  assert.deepEqual(answerOf({ model_version: 3, items: [], missing: ['a'] }).missing, ['b', 'a'], 'in the order of the rules');
  const other = filtered(similarQuestion('a', { filter }, noHistory), ['a', 'b']);
  assert.deepEqual(other.call.candidates, ['a']);
});
