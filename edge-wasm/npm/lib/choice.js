//! Which backend a page takes where it may choose, and what is remembered of that.
//!
//! What is remembered stays in the page's local storage, for one device: an adapter with one build of the module.
//! Another device forgets it. Times are measured in `trial.js`.

/** A ranking so quick gains nothing by a second module of 1.4 MB, which is not even fetched then. */
const CPU_FAST_MILLIS = 4;
/** WebGPU has to be clearly faster: it costs a download, graphics memory and battery. */
const SPEEDUP_MIN = 1.2;
/** Drivers, browsers and what else runs on the device change. */
const MEMORY_MILLIS = 7 * 24 * 3600 * 1000;

/**
 * @typedef {{cpuMillis: number, webGpuMillis: number, atMillis: number}} Measured medians of a typical ranking
 * @typedef {{message: string, atMillis: number}} Failure
 * @typedef {object} Remembered
 * @property {string} [device]
 * @property {Failure} [failure]
 * @property {Record<string, Measured>} [measured] by the size of the catalogue
 *
 * @typedef {{backend: 'cpu' | 'webgpu', reason: string}} Choice
 */

/** Catalogues of one bucket are about as large: it is the next where there are twice as many items. */
export function sizeBucket(numItems) {
  return Math.floor(Math.log2(Math.max(1, numItems)));
}

/** What the CPU's own time says: to stay, or nothing. @returns {Choice | undefined} */
export function choiceByCpu(cpuMillis) {
  if (!(cpuMillis < CPU_FAST_MILLIS)) return undefined;
  return { backend: 'cpu', reason: `The CPU ranks in ${inMillis(cpuMillis)} here, so WebGPU is not loaded.` };
}

/** @param {Measured} measured @returns {Choice} */
export function choiceByTimes({ cpuMillis, webGpuMillis }) {
  const times = `A ranking takes ${inMillis(cpuMillis)} on the CPU here, ${inMillis(webGpuMillis)} on WebGPU`;
  if (cpuMillis >= SPEEDUP_MIN * webGpuMillis) return { backend: 'webgpu', reason: `${times}.` };
  return { backend: 'cpu', reason: `${times}: too little gained to move.` };
}

/**
 * @param {Remembered} remembered as it was stored, by whomever
 * @param {string} device
 * @param {number} bucket
 * @param {number} nowMillis
 * @returns {Choice | undefined}
 */
export function recalled(remembered, device, bucket, nowMillis) {
  if (remembered?.device !== device) return undefined;
  const isFresh = (what) => Math.abs(nowMillis - what?.atMillis) < MEMORY_MILLIS;
  const { failure, measured } = remembered;
  if (isFresh(failure)) return { backend: 'cpu', reason: `WebGPU failed here lately: ${failure.message}` };
  return isFresh(measured?.[bucket]) ? choiceByTimes(measured[bucket]) : undefined;
}

function inMillis(millis) {
  return `${Number(millis).toFixed(1)} ms`;
}
