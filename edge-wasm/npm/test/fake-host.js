//! An engine host over made-up modules, adapters and storage.

import assert from 'node:assert/strict';

import { EngineHost } from '../lib/host.js';
import { Store } from '../lib/store.js';

const ITEMS = Array.from({ length: 20 }, (_, idx) => ({ item_id: `item-${idx}`, score: 20 - idx }));
export const turn = () => new Promise((resolve) => setTimeout(resolve, 1));

/** Waits until `holds`, for a second. */
export async function until(holds, what) {
  for (let idx = 0; idx < 500; idx += 1) {
    if (holds()) return;
    await turn();
  }
  assert.fail(what);
}

/** An adapter whose devices can be lost; `devices` are those that were made, each with what it was asked for. */
export function adapters(t, { features = ['timestamp-query'], vendor = 'acme' } = {}) {
  const devices = [];
  const make = () => ({
    info: { vendor, architecture: 'fast' },
    features: new Set(features),
    requestDevice: async ({ requiredFeatures }) => {
      let lose;
      const lost = new Promise((resolve) => (lose = resolve));
      const device = { requiredFeatures, lost, lose, isDestroyed: false };
      device.destroy = () => {
        device.isDestroyed = true;
        lose({ reason: 'destroyed', message: '' });
      };
      devices.push(device);
      return device;
    },
  });
  const gpu = Object.create({ requestAdapter: async () => make() });
  const saved = Object.getOwnPropertyDescriptor(globalThis, 'navigator');
  Object.defineProperty(globalThis, 'navigator', { value: { gpu }, configurable: true });
  t.after(() => (saved ? Object.defineProperty(globalThis, 'navigator', saved) : delete globalThis.navigator));
  return devices;
}

/**
 * Both modules; `engines` are those that were opened, of which `onOpen` hears before. Each ranking takes `millis[backend]`
 * by a made-up clock.
 */
function modules(t, millis, onOpen) {
  const engines = [];
  let nowMillis = 0;
  t.mock.method(performance, 'now', () => nowMillis);
  class Engine {
    static async open(_model, trust, backend) {
      onOpen(trust);
      const engine = new Engine(backend);
      if (backend === 'webgpu') await askForDevice();
      engines.push(engine);
      return engine;
    }
    constructor(backend) {
      Object.assign(this, { backend, version: null, isFreed: false, numRankings: 0 });
    }
    restore(_manifest, snapshot) {
      this.version = snapshot.version;
    }
    status() {
      return JSON.stringify({ version: this.version, num_items: Engine.numItems, expires_at: 1e15 });
    }
    rank(text) {
      this.numRankings += 1;
      nowMillis += millis[this.backend];
      const { k } = JSON.parse(text);
      return Promise.resolve(JSON.stringify({ model_version: this.version, items: ITEMS.slice(0, k) }));
    }
    similar() {
      return Promise.resolve('{}');
    }
    explain() {
      return Promise.resolve('{}');
    }
    signed_manifest() {
      return {};
    }
    export_snapshot() {
      return { version: this.version };
    }
    edge_state() {
      return undefined;
    }
    next_request() {
      return undefined;
    }
    free() {
      this.isFreed = true;
    }
  }
  Engine.numItems = 1000;
  const create = async () => ({ Engine, init: async () => {}, on_panic() {} });
  const module = (name) => ({ name, file: name, integrity: 'sha384-x', url: () => new URL(`http://page/${name}`), create });
  const runtimes = {
    cpu: module('cpu'),
    webgpu: { ...module('webgpu'), loadUpgrade: () => import('../lib/upgrade.js') },
  };
  return { engines, runtimes, Engine };
}

/** As the wgpu runtime asks: for all that the adapter says it has, of which it needs timers. */
async function askForDevice() {
  const adapter = await navigator.gpu.requestAdapter();
  assert.ok(adapter.features.has('timestamp-query'), 'the runtime panics without');
  await adapter.requestDevice({ requiredFeatures: [...adapter.features] });
}

/**
 * A page with version 7 in its cache, and a server that is away but for what `server` answers by path. `said` is all that
 * its host said.
 */
export async function page(t, options, millis = { cpu: 50, webgpu: 5 }, { server = {}, onOpen = () => {} } = {}) {
  const made = modules(t, millis, onOpen);
  const fetched = [];
  t.mock.method(globalThis, 'fetch', async (url) => {
    fetched.push(String(url));
    const { host, pathname } = new URL(url);
    if (host === 'page') return new Response('');
    if (!server[pathname]) throw new Error('the server is away');
    return server[pathname]();
  });
  t.mock.method(Store.prototype, 'get', async () => ({ manifest: {}, snapshot: { version: 7 }, version: 7, keys: ['k'] }));
  const said = [];
  const config = { url: 'http://server', model: 'main', backend: 'webgpu', publicKeys: ['k'], cache: true, ...options };
  const host = new EngineHost(config, made.runtimes, (name, detail) => said.push({ name, ...detail }));
  t.after(() => host.dispose());
  await host.start();
  const last = (name) => said.findLast((line) => line.name === name);
  const decided = () => until(() => last('backend') ?? last('webgpu_failed'), 'nothing was decided');
  return { host, said, last, decided, fetched, ...made };
}
