//! What the page passes to the engine and gets back, between the engine's names and those of JavaScript.
//!
//! Not here: scores and draws, which are the engine's (`shared-model`, `edge::engine` and `edge::explore`).

import { invalid } from './errors.js';

const TEMPERATURE_MIN = 0.001;
const TEMPERATURE_MAX = 1000;
const POOL_MAX = 1000;

const isBetween = (value, min, max) => typeof value === 'number' && value >= min && value <= max;

/**
 * The wish to explore as the engine takes it, with a seed of its own unless one is given.
 * @param {import('../index.d.ts').Exploration | undefined} exploration
 */
export function explorationOf(exploration) {
  if (exploration === undefined || exploration === null) return undefined;
  const { temperature, epsilon, pool, seed = randomSeed() } = exploration;
  if ((temperature === undefined) === (epsilon === undefined)) {
    throw invalid('exploration', 'an object with either temperature or epsilon');
  }
  if (temperature !== undefined && !isBetween(temperature, TEMPERATURE_MIN, TEMPERATURE_MAX)) {
    throw invalid('exploration.temperature', `a number from ${TEMPERATURE_MIN} to ${TEMPERATURE_MAX}`);
  }
  if (epsilon !== undefined && !isBetween(epsilon, 0, 1)) throw invalid('exploration.epsilon', 'a number from 0 to 1');
  if (pool !== undefined && !(Number.isInteger(pool) && isBetween(pool, 1, POOL_MAX))) {
    throw invalid('exploration.pool', `a whole number from 1 to ${POOL_MAX}`);
  }
  if (!Number.isSafeInteger(seed) || seed < 0) throw invalid('exploration.seed', 'a whole number from 0');
  return { temperature, epsilon, pool, seed };
}

/** @returns {import('../index.d.ts').Ranking} */
export function rankingOf({ model_version, items }) {
  // Without exploration the order is certain.
  const ranked = items.map(({ item_id, score, propensity = 1 }) => ({ itemId: item_id, score, propensity }));
  return { modelVersion: model_version, items: ranked };
}

/** @returns {import('../index.d.ts').Explanation} */
export function explanationOf({ model_version, item_id, score, parts, average, text_effect, events }) {
  const { id_row: idRow, ...otherParts } = parts;
  return {
    modelVersion: model_version,
    itemId: item_id,
    score,
    parts: { ...otherParts, idRow },
    average,
    textEffect: text_effect,
    events: events.map(({ item_id: itemId, occurred_at: occurredAt, ...effect }) => ({ itemId, occurredAt, ...effect })),
  };
}

function randomSeed() {
  return crypto.getRandomValues(new Uint32Array(1))[0];
}
