//! The graphics adapter and the device that the WebGPU module makes on it.
//!
//! The module asks the browser itself. It is lent the adapter that was found here, so that the device is known too:
//! that it is lost is heard at once, and its memory is freed when it is given up.

/** Adapters that compute on the CPU: correct, but slower than the CPU module. */
const SOFTWARE_ADAPTER = /swiftshader|llvmpipe|lavapipe|basic render|software/i;
/**
 * The module's runtime refuses adapters that cannot time their work, and times nothing where no kernels are tuned.
 * So they are said to have it, and the device is asked for without.
 */
const TIMER = 'timestamp-query';
/** A read that failed with the device may be heard of before its loss. */
const LOSS_MILLIS_MAX = 100;

/**
 * Asks the browser for a WebGPU adapter.
 * @param {boolean} isSoftwareAllowed
 * @returns {Promise<{adapter?: any, reason: string}>} `reason`: a sentence on why there is none worth using
 */
export async function findAdapter(isSoftwareAllowed) {
  if (typeof navigator === 'undefined' || !navigator.gpu) return { reason: 'This browser has no WebGPU.' };
  let adapter;
  try {
    adapter = await navigator.gpu.requestAdapter({ powerPreference: 'high-performance' });
  } catch (error) {
    return { reason: `The browser refused a WebGPU adapter: ${error}` };
  }
  if (!adapter) return { reason: 'This device has no graphics adapter for WebGPU.' };
  const isFallback = Boolean(adapter.info?.isFallbackAdapter ?? adapter.isFallbackAdapter);
  const isSoftware = isFallback || SOFTWARE_ADAPTER.test(nameOf(adapter));
  if (isSoftware && !isSoftwareAllowed) return { reason: 'The graphics adapter is computed in software.' };
  return { adapter, reason: '' };
}

/** The adapter as far as the browser tells. */
export function nameOf({ info = {} }) {
  return [info.vendor, info.architecture, info.device, info.description].filter(Boolean).join(' ');
}

/** One lends after the other: there is one `navigator.gpu`. */
let lending = Promise.resolve();

/**
 * Runs `body`, in which the first who asks for an adapter gets this one: the module, which asks as soon as it is opened,
 * and once. Where the host runs in the page itself, scripts of the page have adapters of their own again after that.
 * @template T
 * @param {any} adapter
 * @param {() => Promise<T>} body
 * @returns {Promise<T>}
 */
function lend(adapter, body) {
  const outcome = lending.then(async () => {
    const { gpu } = navigator;
    const lent = async () => {
      takeBack();
      return adapter;
    };
    const before = Object.getOwnPropertyDescriptor(gpu, 'requestAdapter'); // a page may have put one of its own there
    const takeBack = () => {
      if (gpu.requestAdapter !== lent) return; // not there any more, or replaced by the page
      if (before) Object.defineProperty(gpu, 'requestAdapter', before);
      else delete gpu.requestAdapter;
    };
    gpu.requestAdapter = lent;
    try {
      return await body();
    } finally {
      takeBack();
    }
  });
  lending = outcome.then(
    () => {},
    () => {}, // the caller gets the error
  );
  return outcome;
}

export class GpuDevice {
  #adapter;
  #device;
  #hasEnded = false;
  #tellLost = (_message) => {};

  /** Resolves with the browser's words when the device is lost; never where it was given up. @type {Promise<string>} */
  lost = new Promise((resolve) => (this.#tellLost = resolve));

  /** @param {any} adapter from `findAdapter`; it makes one device */
  constructor(adapter) {
    this.#adapter = adapter;
  }

  /**
   * Runs `open`, in which a module makes its device.
   * @template T
   * @param {() => Promise<T>} open
   * @returns {Promise<T>}
   */
  openWith(open) {
    const adapter = this.#adapter;
    const { features } = adapter;
    const requestDevice = adapter.requestDevice.bind(adapter);
    Object.defineProperty(adapter, 'features', { value: new Set([...features, TIMER]) });
    adapter.requestDevice = async (descriptor) => {
      const requiredFeatures = [...(descriptor?.requiredFeatures ?? [])].filter((name) => features.has(name));
      const device = await requestDevice({ ...descriptor, requiredFeatures });
      this.#made(device);
      return device;
    };
    return lend(adapter, open);
  }

  /** Whether the device is lost, or is so in a moment. */
  isLost() {
    const later = new Promise((resolve) => setTimeout(resolve, LOSS_MILLIS_MAX, false));
    return Promise.race([this.lost.then(() => true), later]);
  }

  /** Gives the device up with all its memory. */
  end() {
    this.#hasEnded = true;
    this.#device?.destroy();
  }

  #made(device) {
    this.#device = device;
    void device.lost.then(({ reason, message }) => {
      if (!this.#hasEnded) this.#tellLost(message || reason);
    });
    if (this.#hasEnded) device.destroy();
  }
}
