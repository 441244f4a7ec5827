// Small builders of elements and of the words for numbers and times. Texts are set, never parsed as HTML.

/** Between a number and its unit, where no line ends. */
const GAP = '\u00a0';

/**
 * @param {string} name Of the element, with `.class` where it has one.
 * @param {Record<string, any>} [properties] `on…` are listeners; the rest attributes.
 * @param {...(Node | string | number | null | undefined)} children
 */
export function make(name, properties = {}, ...children) {
  const [tag, ...classes] = name.split('.');
  const element = document.createElement(tag);
  element.classList.add(...classes);
  for (const [key, value] of Object.entries(properties)) {
    if (key.startsWith('on')) element.addEventListener(key.slice(2), value);
    else if (value === true) element.setAttribute(key, '');
    else if (value !== false && value !== undefined && value !== null) element.setAttribute(key, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined).map((child) => (child instanceof Node ? child : String(child))));
  return element;
}

/** @param {string} title @param {...(Node | string | null)} children */
export const card = (title, ...children) => make('section.card', {}, make('h2', {}, title), ...children);

/** @param {[string, string | number, string?][]} figures Name, value and a remark. */
export const tiles = (figures) =>
  make('dl.tiles', {}, ...figures.map(([name, value, remark]) => make('div.tile', {}, make('dt', {}, name), make('dd', {}, value), remark ? make('small', {}, remark) : null)));

/**
 * @param {[string, boolean?][]} columns Name, and whether it holds numbers.
 * @param {(string | number | Node | null)[][]} rows
 */
export function table(columns, rows) {
  const cell = (tag, value, column) => make(columns[column][1] ? `${tag}.number` : tag, {}, value ?? '–');
  const head = make('tr', {}, ...columns.map(([name], column) => cell('th', name, column)));
  const body = rows.map((row) => make('tr', {}, ...row.map((value, column) => cell('td', value, column))));
  return make('div.scroll', {}, make('table', {}, make('thead', {}, head), make('tbody', {}, ...body)));
}

/** @param {string} name @param {number} share 0 to 1 @param {string} value */
export const bar = (name, share, value) => make('div.bar', {}, make('span', {}, name), make('progress', { max: 1, value: Math.min(1, Math.max(0, share)) }), make('span.value', {}, value));

/** @param {number | null | undefined} value @param {number} [digits] */
export const number = (value, digits = 0) => (value === null || value === undefined ? '–' : value.toLocaleString('en', { minimumFractionDigits: digits, maximumFractionDigits: digits }));

/** @param {number | null | undefined} share */
export const percent = (share, digits = 1) => (share === null || share === undefined ? '–' : `${number(100 * share, digits)}${GAP}%`);

/** @param {number | null | undefined} bytes */
export function bytes(bytes) {
  if (bytes === null || bytes === undefined) return '–';
  const units = ['B', 'KB', 'MB', 'GB'];
  const unit = Math.min(units.length - 1, bytes < 1 ? 0 : Math.floor(Math.log10(bytes) / 3));
  return `${number(bytes / 1000 ** unit, unit === 0 ? 0 : 1)}${GAP}${units[unit]}`;
}

/** @param {number | null | undefined} millis Since 1970. */
export const moment = (millis) => (millis === null || millis === undefined ? '–' : new Date(millis).toLocaleString('sv'));

/** @param {number | null | undefined} millis A stretch of time. */
export function duration(millis) {
  if (millis === null || millis === undefined) return '–';
  if (millis < 1000) return `${Math.round(millis)}${GAP}ms`;
  const secs = millis / 1000;
  if (secs < 120) return `${number(secs, 1)}${GAP}s`;
  return secs < 7200 ? `${number(secs / 60)}${GAP}min` : `${number(secs / 3600, 1)}${GAP}h`;
}
