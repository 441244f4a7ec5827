//! What a page asks the engine: the options of each call, checked, as the engine takes them, and the answer as the page gets it.
//!
//! Between the engine's names and those of JavaScript, without asking anything itself; `engine.js` asks.

import { invalid } from './errors.js';
import { checkHistory } from './history.js';
import { ID_OF_ITEM, checkIds, isId } from './ids.js';
import { isBetween } from './numbers.js';
import { checkFlag } from './options.js';
import {
  checkCount,
  checkEligible,
  checkMoment,
  checkText,
  diversityOf,
  explorationOf,
  newItemsOf,
  rulesOf,
} from './ranking.js';

/** As in `similar` of the engine. */
const SIMILAR_TO_MAX = 1000;

/**
 * @typedef {object} Question
 * @property {string} method of the engine
 * @property {object} call what the method takes
 * @property {(itemId: string) => boolean} [filter] of the page, for `filtered`
 * @property {(answer: any) => object} answerOf the engine's answer as the page gets it
 *
 * @typedef {() => import('../index.d.ts').HistoryEvent[]} ReadHistory reads the kept history, where a call names none
 */

/**
 * @param {import('../index.d.ts').RankOptions} options
 * @param {ReadHistory} readHistory
 * @param {boolean} isPersonal whether it is, unless the options say
 * @returns {Question}
 */
export function rankQuestion(options, readHistory, isPersonal) {
  const { k = 10, excludeSeen = false, personal = isPersonal, nowMillis = Date.now(), candidates, filter } = options;
  const history = wireHistory(options.history, readHistory);
  checkCount(k);
  checkFlag('excludeSeen', excludeSeen);
  checkFlag('personal', personal);
  checkMoment(nowMillis);
  checkEligible(options);
  const rules = rulesOf(options.rules);
  const diversity = diversityOf(options.diversity);
  const exploration = explorationOf(options.exploration);
  const call = { history, candidates, k, excludeSeen, rules, diversity, exploration, personal, nowMillis };
  return { method: 'rank', call, filter, answerOf: rankingOf };
}

/**
 * @param {string | string[]} itemIds
 * @param {import('../index.d.ts').SimilarOptions} options
 * @param {ReadHistory} readHistory
 * @returns {Question}
 */
export function similarQuestion(itemIds, options, readHistory) {
  const { k = 10, excludeSeen = false, candidates, filter } = options;
  const asked = [itemIds].flat();
  if (asked.length === 0) throw invalid('itemIds', `the id of an item, or a list of 1 to ${SIMILAR_TO_MAX}`, itemIds);
  checkIds('itemIds', asked, SIMILAR_TO_MAX);
  checkFlag('excludeSeen', excludeSeen);
  const history = excludeSeen ? wireHistory(options.history, readHistory) : [];
  checkCount(k);
  checkEligible(options);
  return { method: 'similar', call: { itemIds: asked, candidates, history, k, excludeSeen }, filter, answerOf: similarOf };
}

/**
 * @param {string} text
 * @param {import('../index.d.ts').SearchOptions} options
 * @param {ReadHistory} readHistory
 * @returns {Question}
 */
export function searchQuestion(text, options, readHistory) {
  const { k = 10, taste = 0, excludeSeen = false, nowMillis = Date.now(), candidates, filter } = options;
  checkText('text', text);
  if (!isBetween(taste, 0, 1)) throw invalid('taste', 'a number from 0 to 1', taste);
  const history = wireHistory(options.history, readHistory);
  checkCount(k);
  checkFlag('excludeSeen', excludeSeen);
  checkMoment(nowMillis);
  checkEligible(options);
  const call = { text, taste, candidates, history, k, excludeSeen, nowMillis };
  return { method: 'search', call, filter, answerOf: foundOf };
}

/**
 * @param {{itemId: string, text: string}[]} items
 * @param {import('../index.d.ts').RankNewOptions} options
 * @param {ReadHistory} readHistory
 * @returns {Question}
 */
export function rankNewQuestion(items, options, readHistory) {
  const { nowMillis = Date.now() } = options;
  checkMoment(nowMillis);
  const call = { ...newItemsOf(items), history: wireHistory(options.history, readHistory), nowMillis };
  return { method: 'rankNew', call, answerOf: newRankingOf };
}

/**
 * @param {string} itemId
 * @param {import('../index.d.ts').ExplainOptions} options
 * @param {ReadHistory} readHistory
 * @returns {Question}
 */
export function explainQuestion(itemId, options, readHistory) {
  const { k = 10, nowMillis = Date.now() } = options;
  const history = wireHistory(options.history, readHistory);
  if (!isId(itemId)) throw invalid('itemId', ID_OF_ITEM, itemId);
  checkCount(k);
  checkMoment(nowMillis);
  return { method: 'explain', call: { history, itemId, k, nowMillis }, answerOf: explanationOf };
}

/**
 * The question of what its filter lets through. A required item that it refuses is missing from the answer.
 * @param {Question} question with a filter
 * @param {string[]} itemIds candidates, or all items
 * @returns {Question}
 */
export function filtered({ method, call, filter, answerOf }, itemIds) {
  const candidates = itemIds.filter((itemId) => filter(itemId));
  const required = call.rules?.require ?? [];
  const refused = new Set(required.map(({ itemId }) => itemId).filter((itemId) => !filter(itemId)));
  if (refused.size === 0) return { method, call: { ...call, candidates }, answerOf };
  const rules = { ...call.rules, require: required.filter(({ itemId }) => !refused.has(itemId)) };
  const withMissing = (ranking) => ({ ...ranking, missing: missingOf(required, ranking, refused) });
  return { method, call: { ...call, candidates, rules }, answerOf: (answer) => withMissing(answerOf(answer)) };
}

/** @returns {import('../index.d.ts').PersonalStatus} */
export function personalOf({ is_on, events_learned, gain }) {
  return { isOn: is_on, eventsLearned: events_learned, gain };
}

/** The history given, else the kept one, as the engine takes it. */
function wireHistory(given, readHistory) {
  const history = given ?? readHistory();
  checkHistory('history', history);
  return history.map(({ itemId, kind, occurredAt }) => ({ item_id: itemId, kind, occurred_at: occurredAt }));
}

/** Required items that are not in a list, in the order of the rules: those that the page's filter refused, and others. */
function missingOf(required, { missing }, refused) {
  const unplaced = new Set(missing);
  const itemIds = required.map(({ itemId }) => itemId);
  return itemIds.filter((itemId) => refused.has(itemId) || unplaced.has(itemId));
}

/** @returns {import('../index.d.ts').Ranking} */
function rankingOf({ model_version, items, missing, personal }) {
  const ranked = items.map(({ item_id, score, points, required, propensity }) => ({
    itemId: item_id,
    score,
    points,
    isRequired: required,
    propensity,
  }));
  return { modelVersion: model_version, items: ranked, missing, isPersonal: personal?.is_on ?? false };
}

/** @returns {import('../index.d.ts').Similar} */
function similarOf({ model_version, items }) {
  const nearest = items.map(({ item_id, score }) => ({ itemId: item_id, similarity: score }));
  return { modelVersion: model_version, items: nearest };
}

/** @returns {import('../index.d.ts').Found} */
function foundOf({ model_version, items }) {
  const found = items.map(({ item_id, score, similarity }) => ({ itemId: item_id, score, similarity }));
  return { modelVersion: model_version, items: found };
}

/** @returns {import('../index.d.ts').NewRanking} */
function newRankingOf({ model_version, items }) {
  return { modelVersion: model_version, items: items.map(({ item_id, score }) => ({ itemId: item_id, score })) };
}

/** @returns {import('../index.d.ts').Explanation} */
function explanationOf({ model_version, item_id, score, parts, average, text_effect, events }) {
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
