//! How the playground shows an answer: a row per item, or the parts of an explanation.

/** Numbers of an item that are shown, in this order, with the digits of each. */
const NUMBERS = { score: 3, similarity: 3, points: 2, propensity: 3 };
/** What the menu of a row offers. */
const FEEDBACK = { view: 'View', like: 'Like', dislike: 'Dislike', add_to_cart: 'Add', purchase: 'Buy' };
const FILLS = { boost: 'Boost', bury: 'Bury', require: 'Require', exclude: 'Exclude' };
const ASKS = { similarTo: 'Similar to this', explained: 'Explain this' };
const PARTS = { text: 'text', features: 'features', idRow: 'id row', prior: 'prior', neighbours: 'neighbours', bias: 'bias' };

export class Results {
  #list;
  #titleOf;
  #onAct;
  /** Places of the list before, to say what moved. @type {Map<string, number>} */
  #before = new Map();

  /**
   * @param {HTMLElement} list
   * @param {(itemId: string) => string} titleOf
   * @param {{feedback: Function, fill: Function, ask: Function}} onAct what a button of a row does
   */
  constructor(list, titleOf, onAct) {
    this.#list = list;
    this.#titleOf = titleOf;
    this.#onAct = onAct;
  }

  /**
   * @param {{itemId: string, text?: string}[]} items with a text those that no model holds, of which nothing else can be asked
   * @param {boolean} isComparable whether the list before answers the same call
   */
  showItems(items, isComparable) {
    const opened = this.#list.querySelector('details[open]')?.closest('li').dataset.itemId;
    const focused = this.#focusedIn();
    const rows = items.map((item, place) => this.#row(item, isComparable ? this.#changeOf(item, place) : ''));
    this.#before = new Map(items.map(({ itemId }, place) => [itemId, place]));
    this.#list.className = 'results';
    this.#list.replaceChildren(...rows);
    if (opened) this.#rowOf(opened)?.querySelector('details').setAttribute('open', '');
    if (focused) this.#rowOf(focused.itemId)?.querySelectorAll('button, summary')[focused.idx]?.focus({ preventScroll: true });
  }

  /** @param {import('../../edge-wasm/npm/index.d.ts').Explanation} explanation */
  showExplanation({ itemId, score, parts, average, events }) {
    const { taste, ...averages } = average;
    const rows = [
      partRow(this.#titleOf(itemId), score, 'the score, the sum of its parts'),
      ...Object.entries(PARTS).map(([part, label]) => {
        const mean = averages[part];
        return partRow(label, parts[part], mean === undefined ? '' : `${mean.toFixed(3)} on average over all items`);
      }),
      ...events.map(({ itemId: because, kind, effect }) => partRow(`event: ${kind} ${this.#titleOf(because)}`, effect, because)),
    ];
    this.#before = new Map();
    this.#list.className = 'results parts';
    this.#list.replaceChildren(...rows);
  }

  clear() {
    this.#before = new Map();
    this.#list.replaceChildren();
  }

  #changeOf({ itemId }, place) {
    const before = this.#before.get(itemId);
    if (before === undefined) return this.#before.size > 0 ? 'new' : '';
    if (before === place) return '';
    return before > place ? 'up' : 'down';
  }

  #row(item, change) {
    const row = element('li', { className: 'item' });
    row.dataset.itemId = item.itemId;
    row.dataset.change = change;
    const title = element('span', { className: 'title', textContent: item.text ?? this.#titleOf(item.itemId) });
    const name = element('div', { className: 'name' }, title);
    if (item.isRequired) name.append(element('span', { className: 'mark', textContent: 'required' }));
    row.append(name, numbersOf(item));
    if (item.text === undefined) row.append(this.#menu(item));
    return row;
  }

  #menu({ itemId }) {
    const title = this.#titleOf(itemId);
    const click = button('Click', () => this.#onAct.feedback('click', itemId));
    click.setAttribute('aria-label', `Click ${title}`);
    const summary = element('summary', { textContent: 'More' });
    summary.setAttribute('aria-label', `More to do with ${title}`);
    const details = element('details', { name: 'more' }, summary);
    const close = () => {
      details.open = false;
      summary.focus({ preventScroll: true });
    };
    const group = (entries, act) => {
      const choose = (name) => () => {
        close();
        act(name, itemId);
      };
      const buttons = Object.entries(entries).map(([name, label]) => button(label, choose(name)));
      return element('div', { className: 'buttons' }, ...buttons);
    };
    const { feedback, fill, ask } = this.#onAct;
    details.append(element('div', { className: 'menu' }, group(FEEDBACK, feedback), group(FILLS, fill), group(ASKS, ask)));
    details.addEventListener('keydown', ({ key }) => key === 'Escape' && close());
    return element('div', { className: 'acts' }, click, details);
  }

  #rowOf(itemId) {
    return [...this.#list.children].find((row) => row.dataset.itemId === itemId);
  }

  /** Which button of which row has the focus, so that it still has it when the list was made anew. */
  #focusedIn() {
    const row = document.activeElement?.closest('#results > li');
    if (!row) return undefined;
    return { itemId: row.dataset.itemId, idx: [...row.querySelectorAll('button, summary')].indexOf(document.activeElement) };
  }
}

function numbersOf(item) {
  const shown = Object.entries(NUMBERS).filter(([name]) => typeof item[name] === 'number');
  const entries = shown.map(([name, digits]) =>
    element('div', {}, element('dt', { textContent: name }), element('dd', { textContent: item[name].toFixed(digits) })),
  );
  const id = element('div', {}, element('dt', { className: 'hidden', textContent: 'id' }), element('dd', { className: 'id', textContent: item.itemId }));
  return element('dl', { className: 'numbers' }, id, ...entries);
}

function partRow(label, value, note) {
  const name = element('div', { className: 'name' }, element('span', { className: 'title', textContent: label }));
  if (note) name.append(element('span', { className: 'id', textContent: note }));
  const number = element('b', { textContent: `${value > 0 ? '+' : ''}${value.toFixed(3)}` });
  return element('li', { className: 'item' }, name, number);
}

function button(label, onClick) {
  const made = element('button', { type: 'button', textContent: label });
  made.addEventListener('click', onClick);
  return made;
}

/** @param {string} tag @param {object} properties @param {...Node} children */
export function element(tag, properties, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}
