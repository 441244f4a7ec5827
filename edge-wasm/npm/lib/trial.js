//! What both backends are asked before the page moves from one to the other.

import { FreshetError } from './errors.js';

/** Scores of the two backends may differ by rounding, not by more. */
const PARITY_TOLERANCE = 2e-3;
const PARITY_ITEMS = 10;
/** As long as most models attend to. */
const HISTORY_LEN = 50;
/** Medians settle with a few; the time is bounded because the page is in use meanwhile. */
const SAMPLES_MIN = 3;
const SAMPLES_MAX = 9;
const SAMPLING_MILLIS_MAX = 300;

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

/** Makes an engine do once what pages ask of it, so that no shader is compiled while one waits. */
export async function warmUp(withEngine, { history, nowMillis, ...options }) {
  const [first] = history;
  if (!first) return; // there are no items
  const calls = [
    ['rank', { ...options, history, nowMillis }],
    ['rank', { ...options, history, nowMillis, personal: true }],
    ['similar', { ...options, itemIds: [first.item_id], history: [] }],
    ['explain', { history, itemId: first.item_id, k: options.k, nowMillis }],
  ];
  for (const [method, call] of calls) await withEngine((engine) => engine[method](JSON.stringify(call)));
}

/** Milliseconds that a ranking takes, as the page sees it; others may have their turn between two. */
export async function medianMillis(withEngine, request) {
  const text = JSON.stringify(request);
  const samples = [];
  const startedAt = performance.now();
  const isEnough = () => performance.now() - startedAt > SAMPLING_MILLIS_MAX && samples.length >= SAMPLES_MIN;
  while (samples.length < SAMPLES_MAX && !isEnough()) {
    const sample = await withEngine(async (engine) => {
      const askedAt = performance.now();
      await engine.rank(text);
      return performance.now() - askedAt;
    });
    samples.push(sample);
  }
  samples.sort((left, right) => left - right);
  return samples[samples.length >> 1];
}

async function ranked(engine, request) {
  return JSON.parse(await engine.rank(JSON.stringify(request))).items;
}
