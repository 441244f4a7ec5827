//! When an item counts as shown, with an observer and a clock that are made up here.

import assert from 'node:assert/strict';
import test from 'node:test';

import { Observed } from '../lib/observe.js';

const SCREEN = { width: 100, height: 100 };

/** Elements whose visibility a test says; `seen` are the impressions that were reported. */
async function pageWith(t) {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  const page = { seen: [], said: [], observed: new Set(), document: new EventTarget() };
  page.document.visibilityState = 'visible';
  let tell;
  const saved = [globalThis.document, globalThis.IntersectionObserver];
  globalThis.document = page.document;
  globalThis.IntersectionObserver = class {
    constructor(callback) {
      tell = callback;
    }
    observe = (element) => page.observed.add(element);
    unobserve = (element) => page.observed.delete(element);
    disconnect = () => page.observed.clear();
  };
  const report = (event) => page.seen.push(event) && { eventId: `id of ${event.itemId}` };
  page.subject = new Observed(report, (name, detail) => page.said.push({ name, ...detail }));
  t.after(async () => {
    page.subject.dispose();
    await null;
    await null;
    [globalThis.document, globalThis.IntersectionObserver] = saved;
  });
  page.element = () => ({ nodeType: 1 });
  page.show = (target, intersectionRatio, intersectionRect = { width: 1, height: 1 }) =>
    tell([{ target, isIntersecting: intersectionRatio > 0, intersectionRatio, intersectionRect, rootBounds: SCREEN }]);
  page.turn = (visibilityState) => {
    page.document.visibilityState = visibilityState;
    page.document.dispatchEvent(new Event('visibilitychange'));
  };
  page.observe = async (...args) => {
    const stop = page.subject.observe(...args);
    await import('../lib/impressions.js');
    for (let turn = 0; turn < 5; turn += 1) await null;
    return stop;
  };
  page.pass = (millis) => t.mock.timers.tick(millis);
  page.ids = () => page.seen.map(({ itemId }) => itemId);
  return page;
}

test('half of an element for a second is an impression, once', async (t) => {
  const page = await pageWith(t);
  const element = page.element();
  await page.observe(element, 'a', { position: 3, propensity: 0.25 });
  page.show(element, 0.45);
  page.pass(5000);
  assert.deepEqual(page.seen, []);
  page.show(element, 0.5);
  page.pass(999);
  assert.deepEqual(page.seen, []);
  page.show(element, 1);
  page.pass(1);
  const impression = { kind: 'impression', itemId: 'a', position: 3, propensity: 0.25, arm: undefined };
  assert.deepEqual(page.seen, [impression]);
  assert.equal(page.observed.size, 0, 'it is watched no more');
  page.show(element, 0);
  page.show(element, 1);
  page.pass(5000);
  assert.equal(page.seen.length, 1);
});

test('a second in pieces is none, and a hidden page stops the clock', async (t) => {
  const page = await pageWith(t);
  const element = page.element();
  await page.observe(element, 'a');
  page.show(element, 1);
  page.pass(900);
  page.show(element, 0);
  page.show(element, 1);
  page.pass(900);
  page.turn('hidden');
  page.pass(10_000);
  page.turn('visible');
  page.pass(999);
  assert.deepEqual(page.seen, []);
  page.pass(1);
  assert.deepEqual(page.ids(), ['a']);
});

test('an element larger than the screen counts by the part of the screen that it fills', async (t) => {
  const page = await pageWith(t);
  const element = page.element();
  await page.observe(element, 'a');
  page.show(element, 0.1, { width: 100, height: 49 });
  page.pass(2000);
  assert.deepEqual(page.seen, []);
  page.show(element, 0.15, { width: 100, height: 50 });
  page.pass(1000);
  assert.deepEqual(page.ids(), ['a']);
});

test('an item of a ranking brings its propensity, and is logged once though its element is made anew', async (t) => {
  const page = await pageWith(t);
  const item = Object.freeze({ itemId: 'a', score: 1, propensity: 0.5 });
  const [first, second] = [page.element(), page.element()];
  const ids = [];
  const onImpression = (eventId) => ids.push(eventId);
  await page.observe(first, item, { position: 0, onImpression });
  page.show(first, 1);
  page.pass(1000);
  await page.observe(second, item, { position: 0, onImpression });
  page.show(second, 1);
  page.pass(1000);
  assert.deepEqual(page.seen.map(({ propensity }) => propensity), [0.5]);
  assert.deepEqual(ids, ['id of a']);
  await page.observe(second, { ...item }, { position: 0 }); // of another ranking
  page.show(second, 1);
  page.pass(1000);
  assert.equal(page.seen.length, 2);
});

test('the children of a list are the items of its ranking in order', async (t) => {
  const page = await pageWith(t);
  const container = { nodeType: 1, children: [page.element(), page.element()] };
  const items = ['a', 'b', 'c'].map((itemId) => ({ itemId, propensity: 1 }));
  await page.observe(page.element(), 'first');
  const stop = page.subject.observeList(container, { modelVersion: 7, items }, { visibleMillis: 10 });
  for (let turn = 0; turn < 5; turn += 1) await null;
  page.show(container.children[1], 1);
  page.pass(10);
  assert.deepEqual(page.seen.map(({ itemId, position, modelVersion }) => [itemId, position, modelVersion]), [['b', 1, 7]]);
  page.show(container.children[0], 1);
  stop();
  page.pass(10);
  assert.equal(page.seen.length, 1);
});

test('what was stopped or disposed is not logged, and nothing stays behind', async (t) => {
  const page = await pageWith(t);
  const [first, second] = [page.element(), page.element()];
  const stop = await page.observe(first, 'a');
  await page.observe(second, 'b');
  page.show(first, 1);
  page.show(second, 1);
  stop();
  page.subject.dispose();
  await null;
  page.pass(5000);
  assert.deepEqual(page.seen, []);
  assert.equal(page.observed.size, 0);
});

test('what cannot be observed is refused by name', async (t) => {
  const page = await pageWith(t);
  for (const [args, field] of [
    [[{}, 'a'], 'element'],
    [[page.element(), ''], 'item'],
    [[page.element(), 'a', { visibleShare: 1.5 }], 'visibleShare'],
    [[page.element(), 'a', { position: -1 }], 'position'],
    [[page.element(), { itemId: 'a', propensity: 2 }], 'propensity'],
    [[page.element(), 'a', { visibleMillis: Number.NaN }], 'visibleMillis'],
  ]) {
    assert.throws(() => page.subject.observe(...args), (error) => error.code === 'invalid_option' && error.message.includes(`"${field}"`));
  }
});

test('what shows no list is refused by name', async (t) => {
  const { subject } = await pageWith(t);
  const container = { nodeType: 1, children: [] };
  for (const [asked, field] of [
    [[undefined, { items: [] }], '"container"'],
    [[container, undefined], '"ranking"'],
    [[container, { items: 'a' }], '"ranking"'],
  ]) {
    assert.throws(() => subject.observeList(...asked), ({ code, message }) => code === 'invalid_option' && message.includes(field));
  }
});

test('a script that does not come is told once for all elements that wait for it, and asked for again', async (t) => {
  const page = await pageWith(t);
  const { IntersectionObserver } = globalThis;
  globalThis.IntersectionObserver = undefined; // so that it fails
  const container = { nodeType: 1, children: [page.element(), page.element(), page.element()] };
  page.subject.observeList(container, { modelVersion: null, items: ['a', 'b', 'c'] });
  while (page.said.length === 0) await new Promise(setImmediate);
  await new Promise(setImmediate);
  assert.deepEqual(page.said.map(({ code }) => code), ['module_load_failed']);
  globalThis.IntersectionObserver = IntersectionObserver;
  const element = page.element();
  await page.observe(element, 'a');
  page.show(element, 1);
  page.pass(1000);
  assert.deepEqual(page.ids(), ['a']);
});
