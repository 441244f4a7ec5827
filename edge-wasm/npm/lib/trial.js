//! What both backends are asked before the page moves from one to the other.

import { FreshetError } from './errors.js';

/** Scores of the two backends may differ by rounding, not by more. */
const PARITY_TOLERANCE = 2e-3;
const PARITY_ITEMS = 10;
/** As long as most models attend to. */
const HISTORY_LEN = 50;

/**
 * @typedef {object} Version as the page's cache keeps it
 * @property {Uint8Array} manifest
 * @property {Uint8Array} snapshot
 *
 * @typedef {object} Expected
 * @property {object} request
 * @property {{item_id: string, score: number}[]} items the best, as the CPU scores them
 */

/** What ranks. @returns {Version} */
export function liveVersion(engine) {
  return { manifest: engine.signed_manifest(), snapshot: engine.export_snapshot() };
}

/** A request as a busy visitor makes it: a full history, of items that are wanted by everybody. */
export async function typicalRequest(engine) {
  const nowMillis = Date.now();
  const popular = await ranked(engine, { history: [], k: HISTORY_LEN, excludeSeen: false, nowMillis });
  const event = ({ item_id }, idx) => ({ item_id, kind: 'view', occurred_at: nowMillis - (popular.length - idx) * 60_000 });
  return { history: popular.map(event), k: PARITY_ITEMS, excludeSeen: false, nowMillis };
}

/** @param {object} request @returns {Promise<Expected>} */
export async function expectedScores(cpu, request) {
  return { request, items: await ranked(cpu, request) };
}

/** Throws where `webgpu`, which holds the same version, scores otherwise. @param {Expected} expected */
export async function assertAgreement(webgpu, { request, items }) {
  const candidates = items.map((item) => item.item_id);
  const actual = await ranked(webgpu, { ...request, candidates });
  const scoreOf = new Map(actual.map((item) => [item.item_id, item.score]));
  for (const { item_id, score } of items) {
    const other = scoreOf.get(item_id);
    const tolerance = PARITY_TOLERANCE * Math.max(1, Math.abs(score));
    if (other === undefined || !(Math.abs(other - score) <= tolerance)) {
      const message = `WebGPU scored ${item_id} as ${other}, the CPU as ${score}; staying on the CPU.`;
      throw new FreshetError('self_test_failed', message);
    }
  }
}

async function ranked(engine, request) {
  return JSON.parse(await engine.rank(JSON.stringify(request))).items;
}
