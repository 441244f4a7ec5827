//! Which numbers the engine and the server take.

export const UINT32_MAX = 2 ** 32 - 1;

/** @param {unknown} value @param {number} min @param {number} max */
export const isBetween = (value, min, max) => typeof value === 'number' && value >= min && value <= max;

/** @param {unknown} value */
export const isUint32 = (value) => Number.isInteger(value) && isBetween(value, 0, UINT32_MAX);
