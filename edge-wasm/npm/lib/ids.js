//! Which ids there can be: as in `ids` of `shared-model`, so that the engine takes what was taken here.

import { invalid } from './errors.js';

const ID_BYTES_MAX = 128;
/** A character of UTF-16 has at most three bytes in UTF-8. */
const SHORT_CHARS_MAX = Math.floor(ID_BYTES_MAX / 3);
/** Control characters, and halves of pairs, which are no text. */
const NOT_IN_IDS = /[\p{Cc}\p{Cs}]/u;
/** For sentences on what an id has to be. */
export const ID = `an id, 1 to ${ID_BYTES_MAX} bytes without control characters`;
export const ID_OF_ITEM = `the id of an item, 1 to ${ID_BYTES_MAX} bytes without control characters`;

const encoder = new TextEncoder();

/** @param {unknown} id */
export function isId(id) {
  if (typeof id !== 'string' || id === '') return false;
  return (id.length <= SHORT_CHARS_MAX || encoder.encode(id).length <= ID_BYTES_MAX) && !NOT_IN_IDS.test(id);
}

/** Throws if `list` is no list of at most `max` ids. @param {string} field @param {unknown} list @param {number} max */
export function checkIds(field, list, max) {
  if (!Array.isArray(list) || list.length > max) throw invalid(field, `a list of at most ${max} item ids`, list);
  const malformed = list.findIndex((id) => !isId(id));
  if (malformed >= 0) throw invalid(`${field}[${malformed}]`, ID_OF_ITEM, list[malformed]);
}
