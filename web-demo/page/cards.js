//! Item cards. Built once per place; what a press means is told to the listener.

import { pictureOf } from './art.js';
import { priceOf, titleOf } from './catalogue.js';

const HEART = '<svg viewBox="0 0 24 24" aria-hidden="true"><path d="M12 20S4 14.5 4 9a4.3 4.3 0 0 1 8-2.200A4.3 4.3 0 0 1 20 9c0 5.5-8 11-8 11z"/></svg>';
const BASKET = '<svg viewBox="0 0 24 24" aria-hidden="true"><path d="M4 9h16l-1.5 11h-13zM8 9l3-6M16 9l-3-6"/></svg>';

/**
 * @param {import('./catalogue.js').Item} item
 * @param {(kind: 'click' | 'like' | 'add_to_cart' | 'purchase', item: object, card: HTMLElement) => void} onAct
 * @param {(item: object) => void} [onWhy] adds a button that asks why the item stands here
 * @returns {HTMLLIElement}
 */
export function cardOf(item, onAct, onWhy) {
  const card = document.createElement('li');
  card.className = 'card';
  card.dataset.itemId = item.item_id;
  const title = titleOf(item);
  card.innerHTML = `
    <button type="button" class="open" data-act="click">
      <span class="art">${pictureOf(item)}</span>
      <span class="title"></span>
    </button>
    <button type="button" class="like" data-act="like" aria-pressed="false">${HEART}</button>
    <div class="foot">
      <span class="price">${priceOf(item)}</span>
      <button type="button" class="add" data-act="add_to_cart">${BASKET}<span>Add</span></button>
      <button type="button" class="buy" data-act="purchase">Buy</button>
    </div>`;
  card.querySelector('.title').textContent = title;
  card.querySelector('.like').setAttribute('aria-label', `Like ${title}`);
  card.querySelector('.add').setAttribute('aria-label', `Add ${title} to the basket`);
  card.querySelector('.buy').setAttribute('aria-label', `Buy ${title}`);
  if (onWhy) card.querySelector('.like').before(whyButton(item, title, onWhy));
  card.addEventListener('click', (event) => {
    const button = event.target.closest('button[data-act]');
    if (!button) return;
    const kind = button.dataset.act;
    if (kind === 'like') button.setAttribute('aria-pressed', 'true');
    if (kind !== 'click') flash(button);
    onAct(kind, item, card);
  });
  return card;
}

function whyButton(item, title, onWhy) {
  const button = document.createElement('button');
  button.type = 'button';
  button.className = 'why';
  button.textContent = 'Why?';
  button.setAttribute('aria-label', `Why ${title} is recommended`);
  button.addEventListener('click', () => onWhy(item));
  return button;
}

function flash(button) {
  button.classList.remove('done');
  void button.offsetWidth; // restarts the animation
  button.classList.add('done');
}
