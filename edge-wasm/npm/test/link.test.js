//! The link replaces a host that ended, and gives up after a few.

import assert from 'node:assert/strict';
import test from 'node:test';

import { EngineLink } from '../lib/link.js';

/** A worker that answers with what `behave` says; `undefined` leaves the call open. */
function workersThat(behave) {
  const made = [];
  class FakeWorker {
    constructor() {
      made.push(this);
      this.terminated = false;
      queueMicrotask(() => this.onmessage({ data: { event: 'loaded', detail: {} } }));
    }
    say(data) {
      queueMicrotask(() => this.onmessage({ data }));
    }
    postMessage({ id, method, args }) {
      const answer = behave({ worker: this, generation: made.length, method, args });
      if (answer !== undefined) this.say({ id, ...answer });
    }
    terminate() {
      this.terminated = true;
    }
  }
  globalThis.Worker = FakeWorker;
  return made;
}

const fatal = { event: 'fatal', detail: { code: 'panic', message: 'boom', backend: 'webgpu' } };
const config = { url: 'http://server', model: 'main', backend: 'auto', publicKeys: [], cache: true };
/** A page that opens workers, and has no other host. */
const entry = { isWorkerWanted: true, openWorker: () => new Worker() };

test('a call that waits while its host ends is answered by the next host', async () => {
  const said = [];
  const made = workersThat(({ worker, generation, method }) => {
    if (method !== 'rank' || generation > 1) return { result: `${method} by ${generation}` };
    worker.say(fatal);
    return undefined;
  });
  const link = new EngineLink(config, entry, (name, detail) => said.push({ name, ...detail }));
  await link.start();
  assert.equal(await link.call('rank', {}), 'rank by 2');
  assert.equal(made[0].terminated, true);
  assert.deepEqual(said.map((line) => line.name), ['webgpu_failed', 'restart']);
  await link.dispose();
});

test('a worker that the browser ends is replaced, since its lock is let go', async (t) => {
  const saved = Object.getOwnPropertyDescriptor(globalThis, 'navigator');
  t.after(() => (saved ? Object.defineProperty(globalThis, 'navigator', saved) : delete globalThis.navigator));
  const waiting = new Map();
  const locks = { request: async (name, callback) => waiting.set(name, callback) };
  Object.defineProperty(globalThis, 'navigator', { value: { locks }, configurable: true });
  const made = workersThat(({ worker, generation, method }) => {
    if (method === 'start') worker.say({ event: 'alive', detail: { lock: `worker ${generation}` } });
    return method === 'rank' && generation === 1 ? undefined : { result: `${method} by ${generation}` };
  });
  const said = [];
  const link = new EngineLink(config, entry, (name, detail) => said.push([name, detail.code]));
  await link.start();
  const ranked = link.call('rank', {});
  await Promise.resolve();
  waiting.get('worker 1')();
  assert.equal(await ranked, 'rank by 2');
  waiting.get('worker 1')();
  assert.deepEqual(said, [['restart', 'worker_failed']], 'the end of a worker that was replaced is no news');
  assert.equal(made.length, 2);
  await link.dispose();
});

test('a host that ended on WebGPU is followed by one on the CPU', async () => {
  const configs = [];
  workersThat(({ worker, generation, method, args }) => {
    if (method === 'start') configs.push(args[0]);
    if (method === 'rank' && generation === 1) {
      worker.say(fatal);
      return undefined;
    }
    return { result: null };
  });
  const link = new EngineLink(config, entry, () => {});
  await link.start();
  await link.call('rank', {});
  assert.deepEqual(configs.map(({ backend }) => backend), ['auto', 'cpu']);
  await link.dispose();
});

test('a lost device is followed by another twice, and then by the CPU', async () => {
  const said = [];
  const configs = [];
  const lost = { event: 'fatal', detail: { code: 'device_lost', message: 'gone', backend: 'webgpu' } };
  const made = workersThat(({ method, args }) => {
    if (method === 'start') configs.push(args[0]);
    return { result: null };
  });
  const link = new EngineLink(config, entry, (name, detail) => said.push({ name, ...detail }));
  await link.start();
  for (let idx = 0; idx < 3; idx += 1) {
    made[idx].say(lost);
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  assert.deepEqual(configs.map(({ backend }) => backend), ['auto', 'auto', 'auto', 'cpu']);
  assert.deepEqual(configs.map(({ numDeviceLosses = 0 }) => numDeviceLosses), [0, 1, 2, 3]);
  assert.match(configs[3].backendReason, /gone/);
  assert.deepEqual(said.map((line) => line.name), ['restart', 'restart', 'webgpu_failed', 'restart']);
  await link.call('rank', {});
  await link.dispose();
});

test('a host that hangs on WebGPU is followed by one on the CPU', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  const configs = [];
  workersThat(({ worker, generation, method, args }) => {
    if (method === 'start') {
      configs.push(args[0]);
      worker.say({ event: 'backend', detail: { backend: generation === 1 ? 'webgpu' : 'cpu' } });
    }
    return method === 'rank' && generation === 1 ? undefined : { result: generation };
  });
  const link = new EngineLink(config, entry, () => {});
  await link.start();
  const ranking = link.call('rank', {});
  await new Promise((resolve) => setImmediate(resolve));
  t.mock.timers.tick(60_000);
  assert.equal(await ranking, 2);
  assert.deepEqual(configs.map(({ backend }) => backend), ['auto', 'cpu']);
  const ended = link.dispose();
  t.mock.timers.tick(1_000);
  await ended;
});

test('a host that ends in its start is replaced by one, and so is one whose start fails', async () => {
  const said = [];
  const made = workersThat(({ worker, generation, method }) => {
    if (method === 'rank' && generation === 1) return void worker.say(fatal);
    if (method === 'start' && generation === 2) return void worker.say(fatal);
    if (method === 'start' && generation === 3) return { error: { code: 'module_load_failed', message: 'no module' } };
    return { result: `${method} by ${generation}` };
  });
  const link = new EngineLink(config, entry, (name, detail) => said.push([name, detail.code]));
  await link.start();
  assert.equal(await link.call('rank', {}), 'rank by 4');
  assert.deepEqual(made.map(({ terminated }) => terminated), [true, true, true, false]);
  const restarts = said.filter(([name]) => name === 'restart');
  assert.deepEqual(restarts.map(([, code]) => code), ['panic', 'panic', 'module_load_failed']);
  await link.dispose();
  assert.equal(made.length, 4);
  assert.equal(made[3].terminated, true);
});

test('a page that waits for the first host has the one that replaces it', async () => {
  const made = workersThat(({ worker, generation, method }) => {
    if (method === 'start' && generation === 1) return void worker.say(fatal);
    if (method === 'start' && generation === 2) return { error: { code: 'module_load_failed', message: 'no module' } };
    return { result: generation };
  });
  const link = new EngineLink(config, entry, () => {});
  await link.start();
  assert.equal(await link.call('rank', {}), 3);
  assert.equal(made.length, 3);
  await link.dispose();
});

/** Lets minutes pass, half a minute at a time; what was posted meanwhile is answered in between. */
async function minutes(t, count) {
  for (let idx = 0; idx < 2 * count; idx += 1) {
    t.mock.timers.tick(30_000);
    await new Promise((resolve) => setImmediate(resolve));
  }
}

test('a search that downloads for minutes ends no host that answers', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout', 'setInterval'] });
  let searching;
  const made = workersThat(({ worker, method }) => {
    if (method !== 'search') return { result: method };
    searching = worker;
    return undefined;
  });
  const said = [];
  const link = new EngineLink(config, entry, (name) => said.push(name));
  await link.start();
  const found = link.call('search', {});
  await minutes(t, 10);
  assert.deepEqual([made.length, said], [1, []]);
  searching.say({ id: 2, result: 'found' });
  assert.equal(await found, 'found');
  t.mock.timers.reset();
  await link.dispose();
});

test('a host that hangs within a search is replaced', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout', 'setInterval'] });
  workersThat(({ generation, method }) => {
    const isHung = generation === 1 && method !== 'start';
    return isHung ? undefined : { result: generation };
  });
  const said = [];
  const link = new EngineLink(config, entry, (name, detail) => said.push([name, detail.code]));
  await link.start();
  const found = link.call('search', {});
  await minutes(t, 2);
  assert.equal(await found, 2);
  assert.deepEqual(said, [['restart', 'hung']]);
  t.mock.timers.reset();
  await link.dispose();
});

test('after three replacements it gives up with a code', async () => {
  const said = [];
  const made = workersThat(({ worker, method }) => {
    if (method !== 'persist') return { result: null };
    worker.say(fatal);
    return undefined;
  });
  const link = new EngineLink(config, entry, (name, detail) => said.push({ name, ...detail }));
  await link.start();
  for (let idx = 0; idx < 2; idx += 1) {
    await assert.rejects(link.call('persist'), (error) => error.code === 'engine_stopped');
  }
  assert.equal(made.length, 4);
  assert.equal(said.at(-1).code, 'engine_stopped');
  await assert.rejects(link.call('rank', {}), (error) => error.code === 'engine_stopped');
});

test('waiting calls are rejected when the link is disposed', async () => {
  workersThat(({ method }) => (method === 'rank' ? undefined : { result: null }));
  const link = new EngineLink(config, entry, () => {});
  await link.start();
  const waiting = link.call('rank', {});
  const refused = assert.rejects(waiting, (error) => error.code === 'disposed');
  await link.dispose();
  await refused;
  await link.dispose();
});
