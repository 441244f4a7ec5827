//! "Why this?": turns the explanation of one item into two or three plain sentences with bars.
//!
//! Not here: the numbers, which the package computes on this device.

import { pictureOf } from './art.js';
import { titleOf } from './catalogue.js';

const REASONS_MAX = 3;
/** A smaller share of the score moves nothing on the shelf. */
const STRENGTH_MIN = 0.05;

const DEEDS = {
  view: 'You looked at',
  click: 'You looked at',
  add_to_cart: 'You put into the basket',
  purchase: 'You bought',
  like: 'You like',
  dislike: 'You dislike',
  rating: 'You rated',
  skip: 'You passed over',
  watch: 'You watched',
};

/**
 * @typedef {{strength: number, text: string, item?: import('./catalogue.js').Item}} Reason
 */

/**
 * The strongest reasons for an item, strongest first.
 * @param {import('freshet').Explanation} explanation
 * @param {import('./catalogue.js').Catalogue} catalogue
 * @returns {Reason[]}
 */
export function reasonsOf({ parts, average, textEffect, events }, catalogue) {
  const reasons = [];
  const named = new Set();
  for (const { itemId, kind, effect, taste, neighbours } of events) {
    const item = catalogue.byId.get(itemId);
    if (!item || named.has(itemId)) continue;
    named.add(itemId);
    const isPair = neighbours > Math.max(taste, 0);
    const text = `${DEEDS[kind]} “${titleOf(item)}”${isPair ? '; people often take the two together' : ''}.`;
    reasons.push({ strength: effect, text, item });
  }
  reasons.push({ strength: parts.prior - average.prior, text: 'Many people have taken it lately.' });
  reasons.push({ strength: parts.bias - average.bias, text: 'People like it, whatever else they look at.' });
  if (events.length > 0) {
    reasons.push({ strength: textEffect, text: 'Its description goes with what you looked at.' });
  }
  const strong = reasons.filter((reason) => reason.strength >= STRENGTH_MIN);
  return strong.sort((a, b) => b.strength - a.strength).slice(0, REASONS_MAX);
}

/** The panel that shows them; one for the page. */
export class WhyPanel {
  #dialog;
  #body;
  #catalogue;
  #explain;
  #asked = 0;

  /**
   * @param {HTMLDialogElement} dialog
   * @param {import('./catalogue.js').Catalogue} catalogue
   * @param {(itemId: string) => Promise<import('freshet').Explanation>} explain
   */
  constructor(dialog, catalogue, explain) {
    this.#dialog = dialog;
    this.#body = dialog.querySelector('.why-body');
    this.#catalogue = catalogue;
    this.#explain = explain;
    dialog.addEventListener('click', (event) => {
      if (event.target === dialog) dialog.close();
    });
  }

  /** @param {import('./catalogue.js').Item} item */
  async open(item) {
    const asked = ++this.#asked;
    const startedAt = performance.now();
    let explanation;
    try {
      explanation = await this.#explain(item.item_id);
    } catch (error) {
      console.info(`freshet: ${error.code}: ${error.message}`);
    }
    if (asked !== this.#asked) return; // another item was asked about meanwhile
    const millis = performance.now() - startedAt;
    const reasons = explanation ? reasonsOf(explanation, this.#catalogue) : [];
    this.#show(item, reasons, explanation ? millis : undefined);
    if (!this.#dialog.open) this.#dialog.showModal();
  }

  #show(item, reasons, millis) {
    this.#body.innerHTML = `<div class="why-item"><span class="art">${pictureOf(item)}</span><p></p></div><ol class="reasons"></ol><p class="why-note"></p>`;
    this.#body.querySelector('.why-item p').textContent = titleOf(item);
    const strongest = reasons[0]?.strength ?? 1;
    this.#body.querySelector('.reasons').append(...reasons.map((reason) => rowOf(reason, strongest)));
    const note = this.#body.querySelector('.why-note');
    if (millis === undefined) note.textContent = 'There is no explanation at the moment.';
    else if (reasons.length === 0) note.textContent = 'Nothing speaks for it in particular; it is about as good as the others.';
    else note.textContent = `Worked out on your device in ${Math.max(1, Math.round(millis))} ms. Nothing was sent.`;
  }
}

/** @param {Reason} reason */
function rowOf({ strength, text, item }, strongest) {
  const row = document.createElement('li');
  row.innerHTML = '<span class="art small"></span><span class="sentence"></span><meter min="0"></meter>';
  if (item) row.querySelector('.art').innerHTML = pictureOf(item);
  row.querySelector('.sentence').textContent = text;
  const meter = row.querySelector('meter');
  meter.max = strongest;
  meter.value = strength;
  meter.textContent = strength.toFixed(2);
  meter.setAttribute('aria-label', 'How much it counts');
  return row;
}
