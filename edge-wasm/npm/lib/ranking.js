//! What a page may say of a list: candidates, rules, diversity and exploration, checked, as the engine takes them.
//!
//! Not here: scores and draws, which are the engine's (`shared-model`, `edge::engine` and `edge::explore`).

import { invalid } from './errors.js';
import { ID_OF_ITEM, checkIds, isId } from './ids.js';
import { UINT32_MAX, isBetween, isUint32 } from './numbers.js';

/** As in the engine: a version holds no more items. */
const CANDIDATES_MAX = 2 ** 20;
const TEMPERATURE_MIN = 0.001;
const TEMPERATURE_MAX = 1000;
const POOL_MAX = 1000;
/** As in `rules` of the engine. */
const RULES_MAX = 1000;
const RULE_ITEMS_MAX = 100_000;
const REQUIRED_MAX = 300;
const POINTS_MAX = 100;
/** As in `search` of the engine. */
const NEW_ITEMS_MAX = 1000;
/** Encoders read some hundred words at most. */
const TEXT_LENGTH_MAX = 10_000;

/** @param {any} k */
export function checkCount(k) {
  if (!isUint32(k)) throw invalid('k', `a whole number from 0 to ${UINT32_MAX}`, k);
}

/** @param {any} nowMillis */
export function checkMoment(nowMillis) {
  if (!Number.isSafeInteger(nowMillis)) throw invalid('nowMillis', 'whole milliseconds since 1970', nowMillis);
}

/** What may be ranked. @param {import('../index.d.ts').RankOptions} options */
export function checkEligible({ candidates, filter }) {
  if (candidates !== undefined) checkIds('candidates', candidates, CANDIDATES_MAX);
  if (filter !== undefined && typeof filter !== 'function') throw invalid('filter', 'a function of an item id', filter);
}

/**
 * The wish to explore as the engine takes it, with a seed of its own unless one is given.
 * @param {import('../index.d.ts').Exploration | undefined} exploration
 */
export function explorationOf(exploration) {
  if (exploration === undefined || exploration === null) return undefined;
  const { temperature, epsilon, pool, seed = randomSeed() } = exploration;
  if ((temperature === undefined) === (epsilon === undefined)) {
    throw invalid('exploration', 'an object with either temperature or epsilon', exploration);
  }
  if (temperature !== undefined && !isBetween(temperature, TEMPERATURE_MIN, TEMPERATURE_MAX)) {
    throw invalid('exploration.temperature', `a number from ${TEMPERATURE_MIN} to ${TEMPERATURE_MAX}`, temperature);
  }
  if (epsilon !== undefined && !isBetween(epsilon, 0, 1)) throw invalid('exploration.epsilon', 'a number from 0 to 1', epsilon);
  if (pool !== undefined && !(Number.isInteger(pool) && isBetween(pool, 1, POOL_MAX))) {
    throw invalid('exploration.pool', `a whole number from 1 to ${POOL_MAX}`, pool);
  }
  if (!Number.isSafeInteger(seed) || seed < 0) throw invalid('exploration.seed', 'a whole number from 0', seed);
  return { temperature, epsilon, pool, seed };
}

/**
 * The wish for diversity as the engine takes it.
 * @param {import('../index.d.ts').Diversity | undefined} diversity
 */
export function diversityOf(diversity) {
  if (diversity === undefined || diversity === null) return undefined;
  const { lambda, pool } = diversity;
  if (!isBetween(lambda, 0, 1)) throw invalid('diversity.lambda', 'a number from 0 to 1', lambda);
  if (pool !== undefined && !(Number.isInteger(pool) && isBetween(pool, 1, POOL_MAX))) {
    throw invalid('diversity.pool', `a whole number from 1 to ${POOL_MAX}`, pool);
  }
  return { lambda, pool };
}

/**
 * The rules as the engine takes them; what is not known is refused, so that a misspelt rule is not a missing one.
 * @param {import('../index.d.ts').Rules | undefined} rules
 */
export function rulesOf(rules) {
  if (rules === undefined || rules === null) return {};
  for (const name of Object.keys(rules)) {
    if (!['boost', 'bury', 'require', 'exclude'].includes(name)) {
      throw invalid(`rules.${name}`, 'left out: rules are boost, bury, require and exclude', rules[name]);
    }
  }
  const boost = pointRulesOf('boost', rules.boost ?? []);
  const bury = pointRulesOf('bury', rules.bury ?? []);
  const exclude = rules.exclude ?? [];
  checkIds('rules.exclude', exclude, RULE_ITEMS_MAX);
  const numItems = [...boost, ...bury].reduce((sum, { itemIds }) => sum + itemIds.length, exclude.length);
  if (numItems > RULE_ITEMS_MAX) {
    throw invalid('rules', `at most ${RULE_ITEMS_MAX} ids in boost, bury and exclude together`, numItems);
  }
  return { boost, bury, require: requirementsOf(rules.require ?? []), exclude };
}

function pointRulesOf(name, rules) {
  if (!Array.isArray(rules) || rules.length > RULES_MAX) {
    throw invalid(`rules.${name}`, `a list of at most ${RULES_MAX} rules`, rules);
  }
  return rules.map((rule, idx) => {
    const { itemIds, points } = rule ?? {};
    checkIds(`rules.${name}[${idx}].itemIds`, itemIds, RULE_ITEMS_MAX);
    if (!isBetween(points, 0, POINTS_MAX) || points === 0) {
      throw invalid(`rules.${name}[${idx}].points`, `a number above 0, at most ${POINTS_MAX}`, points);
    }
    return { itemIds, points };
  });
}

function requirementsOf(require) {
  if (!Array.isArray(require) || require.length > REQUIRED_MAX) {
    throw invalid('rules.require', `a list of at most ${REQUIRED_MAX} items with their positions`, require);
  }
  const [itemIds, positions] = [new Set(), new Set()];
  return require.map((requirement, idx) => {
    const { itemId, position } = requirement ?? {};
    if (!isId(itemId)) throw invalid(`rules.require[${idx}].itemId`, ID_OF_ITEM, itemId);
    if (itemIds.has(itemId)) throw invalid(`rules.require[${idx}].itemId`, 'that of an item not required before', itemId);
    if (!isUint32(position) || positions.has(position)) {
      throw invalid(`rules.require[${idx}].position`, 'a whole number from 0 that no other item has', position);
    }
    itemIds.add(itemId);
    positions.add(position);
    return { itemId, position };
  });
}

/**
 * Items that the server has never seen, with what there is to read of them.
 * @param {unknown} items
 */
export function newItemsOf(items) {
  if (!Array.isArray(items) || items.length > NEW_ITEMS_MAX) {
    throw invalid('items', `a list of at most ${NEW_ITEMS_MAX} items with their texts`, items);
  }
  items.forEach((item, idx) => {
    if (!isId(item?.itemId)) throw invalid(`items[${idx}].itemId`, ID_OF_ITEM, item?.itemId);
    checkText(`items[${idx}].text`, item.text);
  });
  return { itemIds: items.map(({ itemId }) => itemId), texts: items.map(({ text }) => text) };
}

/** @param {string} field @param {unknown} text */
export function checkText(field, text) {
  const isText = typeof text === 'string' && text.trim() !== '' && text.length <= TEXT_LENGTH_MAX;
  if (!isText) throw invalid(field, `a text of 1 to ${TEXT_LENGTH_MAX} characters`, text);
}

function randomSeed() {
  return crypto.getRandomValues(new Uint32Array(1))[0];
}
