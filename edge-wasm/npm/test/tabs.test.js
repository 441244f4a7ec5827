//! Several tabs: one sends the feedback of all, and one follows the server for all, whoever dies.

import assert from 'node:assert/strict';
import test from 'node:test';

import { FeedbackQueue } from '../lib/feedback.js';
import { joinTabs } from '../lib/leader.js';
import { FakeLocks, MemoryStore, passMillis, until, withNavigator } from './fake-browser.js';

const event = (event_id) => ({ event_id, kind: 'click', user_id: 'u', item_id: 'i', occurred_at: 1 });
const ok = (more = {}) => Response.json({ accepted: 1, duplicates: 0, rejected: [], offset: 9, ...more });
const never = () => new Promise(() => {});

/** A browser in which tabs share storage, one lock, and a channel. `answer` is the server's. */
function browserAgainst(t, answer) {
  const store = new MemoryStore();
  const requests = [];
  withNavigator(t, { locks: new FakeLocks() });
  t.mock.method(globalThis, 'fetch', async (_url, { body, signal }) => {
    const ids = JSON.parse(body).events.map((sent) => sent.event_id);
    requests.push(ids);
    const aborted = new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason)));
    return Promise.race([answer(ids, requests.length), aborted]);
  });
  /** Opens a tab and waits until it takes part. */
  const openTab = async () => {
    const said = [];
    const tab = { said, isWithdrawn: false };
    tab.queue = new FeedbackQueue({
      url: 'http://server',
      store,
      emit: (name, detail) => said.push({ name, ...detail }),
      onWithdrawn: () => {
        tab.isWithdrawn = true;
        void tab.queue.clear();
      },
    });
    t.after(() => tab.queue.dispose());
    await tab.queue.start();
    return tab;
  };
  return { store, requests, openTab };
}

test('one tab sends for all, and each hears of its own events', async (t) => {
  const { store, requests, openTab } = browserAgainst(t, () => ok());
  const [first, second, third] = [await openTab(), await openTab(), await openTab()];
  const receipts = await Promise.all([first.queue.add(event('a')), second.queue.add(event('b')), third.queue.add(event('c'))]);
  assert.deepEqual(receipts.map(({ status }) => status), ['accepted', 'accepted', 'accepted']);
  assert.deepEqual(requests.flat().sort(), ['a', 'b', 'c'], 'each is sent once');
  assert.equal(store.events.size, 0);
  const heard = [first, second, third].map(({ said }) => said.flatMap(({ eventIds }) => eventIds));
  assert.deepEqual(heard, [['a'], ['b'], ['c']]);
});

test('a tab learns that its event was refused when another tab sent it', async (t) => {
  const { openTab } = browserAgainst(t, () => ok({ rejected: [{ index: 0, code: 'unknown_item', detail: 'no such item' }] }));
  const [first, second] = [await openTab(), await openTab()];
  assert.equal((await second.queue.add(event('a'))).code, 'unknown_item');
  assert.deepEqual(second.said.map(({ name }) => name), ['error', 'rejected']);
  assert.deepEqual(first.said, []);
});

test('when the sending tab goes, the next sends at once what both had', async (t) => {
  let isUp = false;
  const { store, requests, openTab } = browserAgainst(t, () => (isUp ? ok() : Response.json({}, { status: 503 })));
  const [first, second] = [await openTab(), await openTab()];
  const [lost, kept] = [first.queue.add(event('a')), second.queue.add(event('b'))];
  await until(() => requests.flat().includes('b'));
  isUp = true;
  first.queue.dispose();
  assert.equal((await lost).status, 'queued');
  assert.equal((await kept).status, 'accepted');
  await until(() => store.events.size === 0);
  const after = second.said.filter(({ name }) => name === 'delivered').flatMap(({ eventIds }) => eventIds);
  assert.deepEqual(after.sort(), ['a', 'b'], 'it hears of what the dead tab left as well');
});

test('a sending tab that is frozen is replaced, and sends no more when it thaws', async (t) => {
  const { requests, openTab } = browserAgainst(t, () => ok());
  const first = await openTab();
  // Its script stands still: it holds the lock and hears nothing.
  const deaf = t.mock.method(BroadcastChannel.prototype, 'postMessage', () => {});
  const second = await openTab();
  const delivered = second.queue.add(event('a'));
  assert.equal((await delivered).status, 'accepted');
  deaf.mock.restore();
  assert.deepEqual(requests, [['a']]);
  assert.equal((await first.queue.add(event('b'))).status, 'accepted');
  assert.deepEqual(requests, [['a'], ['b']]);
  assert.deepEqual(second.said.flatMap(({ eventIds }) => eventIds), ['a']);
});

test('bounds hold over all tabs, and the tab of the dropped event is told', async (t) => {
  const { store, requests, openTab } = browserAgainst(t, never);
  const [first, second] = [await openTab(), await openTab()];
  const oldest = second.queue.add(event('oldest'));
  await until(() => requests.length === 1);
  for (let idx = 1; idx <= 1000; idx += 1) void first.queue.add(event(String(idx)));
  assert.equal((await oldest).status, 'dropped');
  assert.deepEqual(second.said.map(({ code, eventId }) => [code, eventId]), [['queue_full', 'oldest']]);
  assert.deepEqual(first.said, []);
  await until(() => store.events.size === 1000);
});

test('consent withdrawn in one tab is withdrawn in all, and nothing stays stored', async (t) => {
  const { store, requests, openTab } = browserAgainst(t, never);
  const [first, second] = [await openTab(), await openTab()];
  const receipts = [first.queue.add(event('a')), second.queue.add(event('b'))];
  await until(() => store.events.size === 2 && requests.length > 0);
  t.mock.timers.enable({ apis: ['setTimeout'] });
  const late = second.queue.add(event('c')); // on its way into storage
  const cleared = second.queue.clear();
  second.queue.tellWithdrawn();
  await cleared;
  const all = await Promise.all([...receipts, late]);
  assert.deepEqual(all.map(({ status }) => status), ['withheld', 'withheld', 'withheld']);
  assert.ok(first.isWithdrawn);
  assert.ok(!second.isWithdrawn, 'it hears not itself');
  await passMillis(t, 60_000);
  assert.deepEqual(store.ids, []);
  assert.equal(requests.length, 1);
});

test('a tab that withdrew takes part again once consent is given', async (t) => {
  const { requests, openTab } = browserAgainst(t, () => ok());
  const [first, second] = [await openTab(), await openTab()];
  await first.queue.clear();
  assert.equal((await second.queue.add(event('b'))).status, 'accepted');
  await first.queue.start();
  assert.equal((await first.queue.add(event('a'))).status, 'accepted');
  assert.deepEqual(requests, [['b'], ['a']]);
});

test('where locks are refused, every tab sends its own', async (t) => {
  const { requests, openTab } = browserAgainst(t, () => ok());
  navigator.locks.request = () => Promise.reject(new DOMException('refused', 'SecurityError'));
  const [first, second] = [await openTab(), await openTab()];
  await Promise.all([first.queue.add(event('a')), second.queue.add(event('b'))]);
  assert.deepEqual(requests.map((ids) => ids.length), [1, 1]);
});

for (const [name, refuse] of [
  ['channels are refused', (t) => refuseChannels(t)],
  ['locks are refused by throwing', () => (navigator.locks.request = () => refused())],
]) {
  test(`where ${name}, every tab sends its own, and consent can be withdrawn`, async (t) => {
    const { requests, openTab } = browserAgainst(t, () => ok());
    refuse(t);
    const [first, second] = [await openTab(), await openTab()];
    await Promise.all([first.queue.add(event('a')), second.queue.add(event('b'))]);
    assert.deepEqual(requests.flat().sort(), ['a', 'b']);
    assert.deepEqual(first.said.map((line) => line.name), ['delivered']);
    first.queue.tellWithdrawn();
  });
}

/** Opens a tab that follows the server; `heard` is what it was told by another, `stream` is there where it leads. */
function followingTab(t) {
  const end = new AbortController();
  const tab = { heard: [], stream: undefined, leave: () => end.abort() };
  joinTabs({
    name: 'server main',
    signal: end.signal,
    onLead: (stream) => (tab.stream = stream),
    onVersion: (text) => tab.heard.push(text),
    onRules: (revision) => tab.heard.push(revision),
    onState: (isOnline) => tab.heard.push(isOnline),
  });
  t.after(tab.leave);
  return tab;
}

test('one tab follows the server for all, tells late ones what it knows, and the next follows when it goes', async (t) => {
  withNavigator(t, { locks: new FakeLocks() });
  const [first, second] = [followingTab(t), followingTab(t)];
  await until(() => first.stream);
  first.stream.tellState(true);
  first.stream.tellVersion('version 8');
  await until(() => second.heard.length >= 2);
  const late = followingTab(t);
  await until(() => late.heard.length >= 2);
  assert.deepEqual([late.heard.slice(0, 2), first.heard], [[true, 'version 8'], []]);
  assert.equal(second.stream, undefined);
  first.leave();
  await until(() => second.stream);
  second.stream.tellVersion('version 9');
  second.stream.tellRules(7);
  await until(() => late.heard.includes('version 9') && late.heard.includes(7));
});

for (const [name, refuse] of [
  ['channels are missing', (t) => withChannels(t, undefined)],
  ['channels are refused', (t) => refuseChannels(t)],
  ['locks are missing', () => delete navigator.locks],
  ['locks are refused', () => (navigator.locks.request = () => Promise.reject(new DOMException('refused', 'SecurityError')))],
  ['locks throw', () => (navigator.locks.request = () => refused())],
]) {
  test(`where ${name}, every tab follows by itself`, async (t) => {
    withNavigator(t, { locks: new FakeLocks() });
    refuse(t);
    const tabs = [followingTab(t), followingTab(t)];
    await until(() => tabs.every(({ stream }) => stream));
    tabs[0].stream.tellVersion('version 8');
  });
}

function refused() {
  throw new DOMException('refused', 'SecurityError');
}

function refuseChannels(t) {
  const Refused = class {
    constructor() {
      refused();
    }
  };
  withChannels(t, Refused);
}

function withChannels(t, Channel) {
  const { BroadcastChannel } = globalThis;
  globalThis.BroadcastChannel = Channel;
  t.after(() => (globalThis.BroadcastChannel = BroadcastChannel));
}
