//! What the playground's form asks for: a call of the package, and the same call as a page developer would write it.
//!
//! Both come from one value, so what is shown is what was run. Not here: the page (`playground.js`).

const INDENT = '  ';
const LINE_LENGTH_MAX = 44;
const TITLES_LINE = "import { titles } from './titles.js'; // yours: Map by item id\n";

/** @typedef {{name: string, args: unknown[]}} Call a method of `Freshet` and what it is given */

/**
 * The call that the fields describe; what is left empty is left out.
 * @param {Record<string, string>} fields by name, boxes as 'on' where they are ticked
 * @param {(itemId: string) => string} titleOf
 * @returns {Call}
 */
export function callOf(fields, titleOf) {
  const k = Number(fields.k);
  const filter = filterOf(fields.filter, titleOf);
  const excludeSeen = fields.excludeSeen === 'on' ? true : undefined;
  switch (fields.call) {
    case 'similar':
      return { name: 'similar', args: [oneOrList(idsOf(fields.similarTo)), given({ k, filter, excludeSeen })] };
    case 'search': {
      const taste = Number(fields.taste) || undefined;
      return { name: 'search', args: [fields.text.trim(), given({ k, taste, filter, excludeSeen })] };
    }
    case 'rankNew':
      return { name: 'rankNew', args: [newItemsOf(fields.newTexts)] };
    case 'explain':
      return { name: 'explain', args: [fields.explained.trim(), { k }] };
    default: {
      const shelf = { rules: rulesOf(fields), diversity: diversityOf(fields), exploration: explorationOf(fields) };
      // `recommend` leaves out what was seen unless it is told otherwise, `rank` does not unless it is told to.
      const seen = fields.call === 'recommend' ? (excludeSeen ? undefined : false) : excludeSeen;
      return { name: fields.call, args: [given({ k, filter, excludeSeen: seen, ...shelf })] };
    }
  }
}

/** Lines that do it, to be pasted into a page. @param {Call} call @param {string} url of the server */
export function snippetOf({ name, args }, url) {
  const answer = name === 'explain' ? '{ parts, events }' : '{ items }';
  const hasFilter = args.some((arg) => arg?.filter?.code !== undefined);
  return `import { Freshet } from 'freshet';
${hasFilter ? TITLES_LINE : ''}
const freshet = await Freshet.connect({ url: ${codeOf(url)} });
const ${answer} = await freshet.${name}(${args.map((arg) => codeOf(arg)).join(', ')});
`;
}

/** A value as JavaScript, on one line where it fits. @returns {string} */
function codeOf(value, indent = '') {
  if (typeof value === 'function') return value.code;
  if (typeof value === 'string') return `'${value.replaceAll(/[\\']/g, '\\$&')}'`;
  if (typeof value !== 'object' || value === null) return String(value);
  const isList = Array.isArray(value);
  const deeper = indent + INDENT;
  const parts = isList
    ? value.map((entry) => codeOf(entry, deeper))
    : Object.entries(value).map(([key, entry]) => `${key}: ${codeOf(entry, deeper)}`);
  if (parts.length === 0) return isList ? '[]' : '{}';
  const [open, close] = isList ? ['[', ']'] : ['{ ', ' }'];
  const line = `${open}${parts.join(', ')}${close}`;
  if (line.length <= LINE_LENGTH_MAX && !line.includes('\n')) return line;
  return `${open.trim()}\n${parts.map((part) => `${deeper}${part},\n`).join('')}${indent}${close.trim()}`;
}

/** Items whose titles hold these words, one after the other; `code` is its source, for a page that keeps its titles in a map. */
function filterOf(words, titleOf) {
  const wanted = words.trim().toLowerCase();
  if (wanted === '') return undefined;
  const filter = (itemId) => titleOf(itemId).toLowerCase().includes(wanted);
  filter.code = `(itemId) => titles.get(itemId).toLowerCase().includes(${codeOf(wanted)})`;
  return filter;
}

function rulesOf({ boost, boostPoints, bury, buryPoints, require, requirePosition, exclude }) {
  const points = (text, amount) => {
    const itemIds = idsOf(text);
    return itemIds.length > 0 ? [{ itemIds, points: Number(amount) }] : undefined;
  };
  const first = Number(requirePosition);
  const requirements = idsOf(require).map((itemId, idx) => ({ itemId, position: first + idx }));
  const excluded = idsOf(exclude);
  const rules = given({
    boost: points(boost, boostPoints),
    bury: points(bury, buryPoints),
    require: requirements.length > 0 ? requirements : undefined,
    exclude: excluded.length > 0 ? excluded : undefined,
  });
  return Object.keys(rules).length > 0 ? rules : undefined;
}

function diversityOf({ isDiverse, lambda }) {
  return isDiverse === 'on' ? { lambda: Number(lambda) } : undefined;
}

function explorationOf({ isExploring, temperature, seed }) {
  if (isExploring !== 'on') return undefined;
  return given({ temperature: Number(temperature), seed: seed.trim() === '' ? undefined : Number(seed) });
}

/** One item a line. */
function newItemsOf(text) {
  const lines = text.split('\n').map((line) => line.trim());
  return lines.filter(Boolean).map((line, idx) => ({ itemId: `new-${idx + 1}`, text: line }));
}

/** Ids between commas or spaces. @param {string} text @returns {string[]} */
export function idsOf(text) {
  return [...new Set(text.split(/[\s,]+/).filter(Boolean))];
}

function oneOrList(ids) {
  return ids.length === 1 ? ids[0] : ids;
}

/** The properties that have a value. */
function given(object) {
  return Object.fromEntries(Object.entries(object).filter(([, value]) => value !== undefined));
}
