//! The visitor of a page that other tabs stand beside.

import assert from 'node:assert/strict';
import test from 'node:test';

import { Visitor } from '../lib/visitor.js';
import { FakeLocks, MemoryStore, until, withLocalStorage, withNavigator } from './fake-browser.js';

/** A browser whose pages share storage, channels and locks; `sent` has the events that its server took. */
function browser(t) {
  const sent = [];
  const stored = withLocalStorage(t);
  const store = new MemoryStore();
  withNavigator(t, { locks: new FakeLocks() });
  t.mock.method(globalThis, 'fetch', async (_url, { body }) => {
    sent.push(...JSON.parse(body).events);
    return Response.json({ rejected: [], offset: 9 });
  });
  const openPage = (more = {}) => {
    const told = [];
    const visitor = new Visitor({
      options: { url: 'http://server', model: 'main', consent: 'granted', ...more },
      store,
      emit: (name, detail) => told.push([name, detail]),
      liveVersion: () => undefined,
    });
    t.after(() => visitor.dispose());
    visitor.start();
    visitor.send();
    return { visitor, told };
  };
  return { sent, stored, store, openPage };
}

for (const [name, comeBack, more] of [
  ['comes back as it was', (visitor) => visitor.return(), {}],
  ['is looked at again', (visitor) => visitor.wake(), {}],
  ['has an id of its own', (visitor) => visitor.return(), { userId: 'u' }],
]) {
  test(`consent withdrawn elsewhere while a page was left holds for it when it ${name}`, async (t) => {
    const { sent, stored, openPage } = browser(t);
    const { visitor: left, told } = openPage(more);
    left.leave();
    const { delivered } = left.feedback('click', 'a'); // in the moment of leaving: nobody has taken it
    const { visitor: other } = openPage(more);
    await other.setConsent('denied');
    comeBack(left);
    assert.equal((await delivered).status, 'withheld');
    assert.equal(left.consent, 'denied');
    assert.deepEqual(told, [['consent', { consent: 'denied' }]]);
    assert.equal((await left.feedback('click', 'b').delivered).status, 'withheld');
    assert.deepEqual([sent, stored], [[], new Map()]);
  });
}

test('a page that comes back and hears of no withdrawal takes part again', async (t) => {
  const { sent, openPage } = browser(t);
  const { visitor } = openPage();
  visitor.leave();
  openPage().visitor.leave();
  visitor.return();
  await visitor.feedback('click', 'a').delivered;
  assert.deepEqual(sent.map((event) => event.item_id), ['a']);
});

test('consent that was withdrawn and given again on a page that was left before is not withdrawn once more', async (t) => {
  const { openPage } = browser(t);
  const { visitor } = openPage();
  visitor.leave();
  visitor.return();
  await visitor.setConsent('denied');
  await visitor.setConsent('granted');
  visitor.wake();
  assert.equal(visitor.consent, 'granted');
});

test('consent withdrawn in one tab is told in all', async (t) => {
  const { openPage } = browser(t);
  const [first, second] = [openPage(), openPage()];
  await Promise.all([first, second].map(({ visitor }) => visitor.feedback('view', 'a').delivered));
  await first.visitor.setConsent('denied');
  await until(() => second.visitor.consent === 'denied');
  assert.deepEqual(second.told.at(-1), ['consent', { consent: 'denied' }]);
});
