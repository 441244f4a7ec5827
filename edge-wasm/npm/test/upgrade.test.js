//! A page moves from the CPU to WebGPU, or stays, for a reason that it tells. Engines and adapter are made up.

import assert from 'node:assert/strict';
import test from 'node:test';

import { GpuDevice } from '../lib/device.js';
import { adapters, page, turn, until } from './fake-host.js';

test('a page moves to WebGPU, and frees engine and device when it is disposed', async (t) => {
  const devices = adapters(t);
  const { host, last, decided, engines } = await page(t, {});
  await decided();
  assert.equal(last('backend').backend, 'webgpu');
  assert.match(last('backend').backendReason, /agrees/);
  assert.deepEqual(engines.map(({ backend, isFreed }) => [backend, isFreed]), [['cpu', true], ['webgpu', false]]);
  await host.dispose();
  await turn();
  assert.equal(engines[1].isFreed, true);
  assert.equal(devices[0].isDestroyed, true);
});

test('a pinned page moves to WebGPU with the version that it is held at', async (t) => {
  adapters(t);
  const { host, last, decided, engines } = await page(t, { isPinned: true });
  await decided();
  assert.equal(last('backend').backend, 'webgpu');
  assert.equal(engines[1].version, 7);
  assert.equal(JSON.parse(engines[1].status()).version, JSON.parse(engines[0].status()).version);
  assert.equal((await host.rank({ k: 1 })).model_version, 7);
});

test('an engine that holds a newer version than a pinned page may have waits, and is freed when the page ends', async (t) => {
  const devices = adapters(t);
  const { host, last, decided, engines, Engine } = await page(t, { isPinned: true });
  const { restore } = Engine.prototype;
  Engine.prototype.restore = function restoreNewer(manifest, snapshot) {
    restore.call(this, manifest, snapshot);
    this.version += 1;
  };
  await decided();
  assert.equal(last('backend').backend, 'cpu');
  assert.match(last('backend').backendReason, /pinned/);
  await host.dispose();
  await until(() => engines.every((engine) => engine.isFreed), 'the waiting engine is kept');
  assert.equal(devices[0].isDestroyed, true);
});

/** The CPU takes another version before the WebGPU engine is to be taken, and at each of its looks for something newer. */
function cpuThatMovesOn(Engine, engines) {
  const movesOn = () => (engines[0].version += 1);
  let numLooks = 0;
  Engine.prototype.explain = async () => (movesOn(), '{}'); // the last that is tried
  Engine.prototype.next_request = function nothingToFetch() {
    if (this.backend !== 'webgpu') return undefined;
    numLooks += 1;
    assert.ok(numLooks < 10, 'it looks for ever');
    movesOn();
    return undefined;
  };
}

test('versions that the CPU takes while WebGPU catches up do not hold the move up', async (t) => {
  adapters(t);
  const { host, last, decided, engines, Engine } = await page(t, {});
  cpuThatMovesOn(Engine, engines);
  await decided();
  assert.equal(last('webgpu_failed'), undefined);
  assert.equal(last('backend').backend, 'webgpu');
  assert.equal((await host.rank({ k: 1 })).model_version, 9);
});

test('a version that WebGPU refuses at the last moment is no failure of the CPU', async (t) => {
  const devices = adapters(t);
  const { host, said, last, decided, engines, Engine } = await page(t, {});
  cpuThatMovesOn(Engine, engines);
  const { restore } = Engine.prototype;
  Engine.prototype.restore = function refusing(manifest, snapshot) {
    if (snapshot.version > 7) throw Object.assign(new Error('the device is full'), { code: 'backend_failed' });
    restore.call(this, manifest, snapshot);
  };
  await decided();
  await until(() => last('webgpu_failed'), 'the refusal was not heard of');
  assert.equal(last('webgpu_failed').code, 'backend_failed');
  assert.deepEqual(said.filter(({ name }) => name === 'fatal'), []);
  assert.equal((await host.rank({ k: 1 })).model_version, 9);
  assert.equal(devices[0].isDestroyed, true);
});

test('an adapter that cannot time its work is used without', async (t) => {
  const devices = adapters(t, { features: ['shader-f16'] });
  const { last, decided } = await page(t, {});
  await decided();
  assert.equal(last('backend').backend, 'webgpu');
  assert.deepEqual(devices[0].requiredFeatures, ['shader-f16']);
  assert.equal(Object.hasOwn(navigator.gpu, 'requestAdapter'), false, 'others get adapters of their own');
});

test('a page that asks for an adapter while the module opens has one of its own, and keeps its device', async (t) => {
  const devices = adapters(t);
  const { openWith } = GpuDevice.prototype;
  t.mock.method(GpuDevice.prototype, 'openWith', function openSlowly(open) {
    return openWith.call(this, async () => {
      const opened = await open();
      const own = await navigator.gpu.requestAdapter();
      await own.requestDevice({ requiredFeatures: [] });
      return opened;
    });
  });
  const { host, decided } = await page(t, {});
  await decided();
  await host.dispose();
  await turn();
  assert.deepEqual(devices.map(({ isDestroyed }) => isDestroyed), [true, false]);
});

test("what a page has put in the place of the browser's `requestAdapter` is put back", async (t) => {
  adapters(t);
  const { requestAdapter } = navigator.gpu;
  const own = (...asked) => requestAdapter(...asked);
  navigator.gpu.requestAdapter = own;
  const { decided } = await page(t, {});
  await decided();
  assert.equal(navigator.gpu.requestAdapter, own);
});

test('a device that is lost while it ranks ends the host at once, with a code', async (t) => {
  const devices = adapters(t);
  const { said, decided } = await page(t, {});
  await decided();
  devices[0].lose({ reason: 'unknown', message: 'driver reset' });
  await until(() => said.at(-1).name === 'fatal', 'the loss was not heard of');
  assert.equal(said.at(-1).code, 'device_lost');
  assert.equal(said.at(-1).backend, 'webgpu');
  assert.match(said.at(-1).message, /driver reset/);
});

test('a read that fails with its device is told as the loss that it is', async (t) => {
  const devices = adapters(t);
  const { host, said, decided, Engine } = await page(t, {});
  await decided();
  Engine.prototype.rank = async () => {
    queueMicrotask(() => devices[0].lose({ reason: 'unknown', message: 'unplugged' }));
    throw Object.assign(new Error('the read failed'), { code: 'backend_failed' });
  };
  await assert.rejects(host.rank({ k: 1 }));
  assert.deepEqual(said.filter(({ name }) => name === 'fatal').map(({ code }) => code), ['device_lost']);
});

test('devices that are lost before they rank are followed by others twice', async (t) => {
  const devices = adapters(t);
  const { said, last, decided, Engine } = await page(t, {});
  const { restore } = Engine.prototype;
  Engine.prototype.restore = function losing(...version) {
    if (this.backend === 'webgpu') devices.at(-1).lose({ reason: 'unknown', message: `device ${devices.length}` });
    restore.apply(this, version);
  };
  await decided();
  await until(() => last('webgpu_failed'), 'it tries for ever');
  assert.equal(devices.length, 3);
  assert.equal(last('webgpu_failed').code, 'device_lost');
  assert.equal(said.filter(({ name }) => name === 'device_lost').length, 3);
  await turn();
  assert.equal(last('backend').backend, 'cpu');
});

const AUTO = { backend: 'auto' };
const remembered = (said) => Object.assign({}, ...said.filter(({ name }) => name === 'remember'));
const webGpuFiles = (fetched) => fetched.filter((url) => url.endsWith('/webgpu'));

test('where the CPU is fast enough nothing of WebGPU is fetched', async (t) => {
  adapters(t);
  const { last, decided, fetched } = await page(t, AUTO, { cpu: 1, webgpu: 0.1 });
  await decided();
  assert.equal(last('backend').backend, 'cpu');
  assert.match(last('backend').backendReason, /1\.0 ms/);
  assert.deepEqual(webGpuFiles(fetched), []);
});

test('the faster backend is taken, and both times are remembered', async (t) => {
  const devices = adapters(t);
  const { said, last, decided } = await page(t, AUTO, { cpu: 50, webgpu: 5 });
  await decided();
  assert.equal(last('backend').backend, 'webgpu');
  assert.match(last('backend').backendReason, /50\.0 ms.*5\.0 ms/);
  const { device, measured } = remembered(said);
  assert.match(device, /acme fast sha384-x/);
  assert.deepEqual([measured[9].cpuMillis, measured[9].webGpuMillis], [50, 5]);
  assert.equal(devices[0].isDestroyed, false);
});

test('the slower backend is given up with its device, and not even fetched the next time', async (t) => {
  const devices = adapters(t);
  const first = await page(t, AUTO, { cpu: 50, webgpu: 45 });
  await first.decided();
  assert.equal(first.last('backend').backend, 'cpu');
  assert.equal(webGpuFiles(first.fetched).length, 1);
  assert.equal(first.engines.find(({ backend }) => backend === 'webgpu').isFreed, true);
  assert.equal(devices[0].isDestroyed, true);
  t.mock.restoreAll();
  const next = await page(t, { ...AUTO, remembered: remembered(first.said) }, { cpu: 50, webgpu: 5 });
  await next.decided();
  assert.equal(next.last('backend').backend, 'cpu');
  assert.match(next.last('backend').backendReason, /45\.0 ms/);
  assert.deepEqual(webGpuFiles(next.fetched), []);
});

test('another adapter forgets what was measured', async (t) => {
  adapters(t);
  const atMillis = Date.now();
  const known = { device: 'other', failure: { message: 'x', atMillis }, measured: { 9: { cpuMillis: 50, webGpuMillis: 90, atMillis } } };
  const { said, last, decided } = await page(t, { ...AUTO, remembered: known });
  await decided();
  assert.equal(last('backend').backend, 'webgpu');
  assert.equal(remembered(said).failure, undefined);
  assert.match(remembered(said).device, /acme/);
});

test('WebGPU that is asked for by name is taken whatever is remembered, and however slow', async (t) => {
  adapters(t, { vendor: 'Google SwiftShader' });
  const failure = { message: 'driver reset', atMillis: Date.now() };
  const known = { device: 'Google SwiftShader fast sha384-x', failure };
  const { last, decided } = await page(t, { remembered: known }, { cpu: 1, webgpu: 900 });
  await decided();
  assert.equal(last('backend').backend, 'webgpu');
});

test('it is decided anew when the catalogue has doubled', async (t) => {
  adapters(t);
  const millis = { cpu: 1, webgpu: 0.5 };
  const { host, last, decided, engines, Engine } = await page(t, AUTO, millis);
  await decided();
  assert.equal(last('backend').backend, 'cpu');
  const [cpu] = engines;
  let isSettled = false;
  cpu.settle = async () => !isSettled && (isSettled = true);
  millis.cpu = 8;
  Engine.numItems = 2000;
  await host.unpin(); // looks for what may be taken
  await until(() => last('backend').backend === 'webgpu', 'it was not decided anew');
  assert.match(last('backend').backendReason, /8\.0 ms/);
});

test('no shader is left to compile when the engine is taken', async (t) => {
  adapters(t);
  const { decided, engines, Engine } = await page(t, AUTO);
  const asked = [];
  for (const method of ['rank', 'similar', 'explain']) {
    const answer = Engine.prototype[method];
    Engine.prototype[method] = function counted(...args) {
      asked.push(`${method} on ${this.backend}`);
      return answer.apply(this, args);
    };
  }
  await decided();
  for (const method of ['rank', 'similar', 'explain']) assert.ok(asked.includes(`${method} on webgpu`), method);
  assert.equal(engines.length, 2);
});
