//! What can be wrong with a browser, by name: each fault breaks something of the page or of the worker that this runs in.
//!
//! Imported before the package. Those named `fault` in the address are there from the beginning; `breakNow` brings others.

/** As they were before any fault, for the test itself. */
export const { setTimeout: trueSetTimeout, Date: TrueDate } = globalThis;

const DAY_MILLIS = 24 * 3600 * 1000;
const never = () => new Promise(() => {});
const refuse = (name = 'SecurityError') => {
  throw new DOMException('refused by the test', name);
};

function put(target, name, value) {
  Object.defineProperty(target, name, { value, configurable: true, writable: true });
}

function putGetter(target, name, get) {
  Object.defineProperty(target, name, { get, configurable: true });
}

const without = (name) => put(globalThis, name, undefined);

// ---- storage ---------------------------------------------------------------------------------

/** A request to IndexedDB that ends by `event`, or never. */
function requestThat(event, error) {
  const request = { error };
  if (event) trueSetTimeout(() => request[`on${event}`]?.({ target: request, preventDefault() {} }), 1);
  return request;
}

const openThat = (event, error) => put(IDBFactory.prototype, 'open', () => requestThat(event, error));

function transactionsThatAbort() {
  const put = IDBObjectStore.prototype.put;
  IDBObjectStore.prototype.put = function (...args) {
    const request = put.apply(this, args);
    this.transaction.abort(); // as where the quota is exceeded
    return request;
  };
}

// ---- time ------------------------------------------------------------------------------------

function clockOffBy(days) {
  const offset = days * DAY_MILLIS;
  globalThis.Date = class extends TrueDate {
    constructor(...args) {
      if (args.length === 0) super(TrueDate.now() + offset);
      else super(...args);
    }
    static now() {
      return TrueDate.now() + offset;
    }
  };
}

// ---- wasm ------------------------------------------------------------------------------------

let numTraps = 0;

/** Lets the next `num` calls into a wasm module trap, as a panic does. The module has to be loaded after this. */
function traps(num) {
  numTraps = num;
  const instantiate = WebAssembly.instantiateStreaming;
  if (instantiate.isTrapping) return;
  const guarded = (exported) => (...args) => {
    if (numTraps > 0) {
      numTraps -= 1;
      throw new WebAssembly.RuntimeError('unreachable');
    }
    return exported(...args);
  };
  const guard = ([name, exported]) => [name, /^engine_(rank|restore|settle)/.test(name) ? guarded(exported) : exported];
  WebAssembly.instantiateStreaming = async (...args) => {
    const { instance, module } = await instantiate(...args);
    return { module, instance: { exports: Object.fromEntries(Object.entries(instance.exports).map(guard)) } };
  };
  WebAssembly.instantiateStreaming.isTrapping = true;
}

const compileRefused = async () => {
  throw new WebAssembly.CompileError('refused by the test');
};

function refuseCompiling() {
  for (const name of ['instantiateStreaming', 'instantiate', 'compile', 'compileStreaming']) WebAssembly[name] = compileRefused;
}

// ---- graphics --------------------------------------------------------------------------------

const devices = new Set();

/** Changes adapters as they are handed out. */
function adapters(change) {
  const requestAdapter = navigator.gpu.requestAdapter.bind(navigator.gpu);
  put(navigator.gpu, 'requestAdapter', async (...args) => {
    const adapter = await requestAdapter(...args);
    if (adapter) change(adapter);
    return adapter;
  });
}

/** Remembers every device, and destroys it `millis` after it was made, if that is a number. */
function devicesLive(millis) {
  adapters((adapter) => {
    const requestDevice = adapter.requestDevice.bind(adapter);
    put(adapter, 'requestDevice', async (...args) => {
      const device = await requestDevice(...args);
      devices.add(device);
      if (millis === 0) device.destroy();
      else if (millis > 0) trueSetTimeout(() => device.destroy(), millis);
      return device;
    });
  });
}

// ---- all -------------------------------------------------------------------------------------

/** @type {Record<string, () => void>} */
const FAULTS = {
  'IndexedDB is missing': () => without('indexedDB'),
  'IndexedDB may not be looked at': () => putGetter(globalThis, 'indexedDB', refuse),
  'opening IndexedDB throws': () => put(IDBFactory.prototype, 'open', () => refuse()),
  'opening IndexedDB fails': () => openThat('error', new DOMException('refused by the test', 'UnknownError')),
  'opening IndexedDB is blocked': () => openThat('blocked'),
  'opening IndexedDB is never answered': () => openThat(undefined),
  'IndexedDB never ends a transaction': () => {
    for (const event of ['complete', 'abort', 'error']) {
      Object.defineProperty(IDBTransaction.prototype, `on${event}`, { set() {}, configurable: true });
    }
  },
  'IndexedDB closes by itself': () => put(IDBDatabase.prototype, 'transaction', () => refuse('InvalidStateError')),
  'the quota of IndexedDB is exceeded': transactionsThatAbort,
  'local storage may not be looked at': () => putGetter(globalThis, 'localStorage', refuse),
  'local storage is full': () => put(Storage.prototype, 'setItem', () => refuse('QuotaExceededError')),
  'BroadcastChannel is missing': () => without('BroadcastChannel'),
  'BroadcastChannel is refused': () => put(globalThis, 'BroadcastChannel', class { constructor() { refuse(); } }),
  'Web Locks are missing': () => put(navigator, 'locks', undefined),
  'Web Locks are refused': () => put(navigator, 'locks', { request: async () => refuse() }),
  'Web Locks throw': () => put(navigator, 'locks', { request: () => refuse() }),
  'Web Locks are never granted': () => put(navigator, 'locks', { request: never }),

  'workers are missing': () => without('Worker'),
  'workers are refused': () => put(globalThis, 'Worker', class { constructor() { refuse(); } }),
  'a worker throws': () => trueSetTimeout(() => { throw new Error('thrown by the test'); }),
  'WebAssembly is missing': () => without('WebAssembly'),
  'WebAssembly has no SIMD': refuseCompiling,
  'WebAssembly cannot compile while it is loaded': () => delete WebAssembly.instantiateStreaming,
  'the module traps once': () => traps(1),
  'the module can trap': () => traps(0),
  'the module traps always': () => traps(Infinity),

  'WebGPU is missing': () => put(navigator, 'gpu', undefined),
  'WebGPU has no adapter': () => put(navigator.gpu, 'requestAdapter', async () => null),
  'WebGPU refuses an adapter': () => put(navigator.gpu, 'requestAdapter', async () => refuse('OperationError')),
  'WebGPU never answers': () => put(navigator.gpu, 'requestAdapter', never),
  'the adapter has no timestamp queries': () => adapters((adapter) => put(adapter, 'features', new Set())),
  'the adapter refuses a device': () => adapters((adapter) => put(adapter, 'requestDevice', async () => refuse('OperationError'))),
  'the device is lost before it is used': () => devicesLive(0),
  'the device is lost while it is set up': () => devicesLive(100),
  'devices are remembered': () => devicesLive(undefined),
  'the device is lost': () => devices.forEach((device) => device.destroy()),

  'fetch throws': () => put(globalThis, 'fetch', () => refuse()),
  'fetch is refused': () => put(globalThis, 'fetch', async () => { throw new TypeError('Failed to fetch'); }),
  'answers have no streams': () => putGetter(Response.prototype, 'body', () => null),
  'the clock is a day ahead': () => clockOffBy(1),
  'the clock is a day behind': () => clockOffBy(-1),
  'the clock is ten years ahead': () => clockOffBy(3650),
  'the clock is ten years behind': () => clockOffBy(-3650),
  'timers are throttled': () => {
    put(globalThis, 'setTimeout', (callback, millis, ...args) => trueSetTimeout(callback, Math.max(1000, millis ?? 0), ...args));
  },
  'randomUUID is missing': () => put(crypto, 'randomUUID', undefined),
  'structuredClone is missing': () => without('structuredClone'),
  'AbortSignal has neither any nor timeout': () => ['any', 'timeout'].forEach((name) => put(AbortSignal, name, undefined)),
  'URL.canParse is missing': () => put(URL, 'canParse', undefined),
  'beacons are refused': () => put(navigator, 'sendBeacon', () => refuse()),
  'the browser says that it is offline': () => {
    putGetter(navigator, 'onLine', () => false);
    globalThis.dispatchEvent(new Event('offline'));
  },
  'the tab is hidden': () => {
    putGetter(document, 'visibilityState', () => 'hidden');
    document.dispatchEvent(new Event('visibilitychange'));
  },
  'the page is left and comes back': () => {
    globalThis.dispatchEvent(new PageTransitionEvent('pagehide', { persisted: true }));
    globalThis.dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true }));
  },
  'the history in storage is garbled': () => localStorage.setItem('freshet:history:main', '[{"itemId":'),
  'the history in storage is of something else': () => {
    localStorage.setItem('freshet:history:main', JSON.stringify([null, 7, { itemId: 5 }, { itemId: 'x'.repeat(500), kind: 'click', occurredAt: 0.5 }]));
  },
};

/** @param {string} name of a fault */
export function breakNow(name) {
  if (!Object.hasOwn(FAULTS, name)) throw new Error(`there is no fault "${name}"`);
  FAULTS[name]();
}

for (const name of new URLSearchParams(location.search).getAll('fault')) breakNow(name);
