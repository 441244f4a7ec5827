//! Impressions: an item counts as shown once enough of its element was visible for long enough, without a break.
//!
//! Loaded when something is first observed. Events go through `feedback`, so consent holds for them as for all others.

/** Finer steps than the share that is asked for, for elements that are larger than the screen. */
const STEPS = Array.from({ length: 20 }, (_, idx) => (idx + 1) / 20);

/**
 * @typedef {object} Watch one element with the item that it shows
 * @property {Element} element
 * @property {string | import('../index.d.ts').RankedItem} item
 * @property {number} share of the element
 * @property {number} millis
 * @property {() => void} log
 * @property {boolean} isVisible
 * @property {ReturnType<typeof setTimeout> | undefined} timer
 */

export class Impressions {
  #observer;
  /** @type {WeakMap<Element, Set<Watch>>} */
  #watches = new WeakMap();
  /** @type {Set<Watch>} */
  #visible = new Set();
  /** Items of rankings that were shown: one impression for each, also where a framework makes its element anew. */
  #shown = new WeakSet();
  #turned = () => this.#visible.forEach((watch) => this.#tick(watch));

  constructor() {
    this.#observer = new IntersectionObserver((entries) => entries.forEach((entry) => this.#moved(entry)), { threshold: STEPS });
    document.addEventListener('visibilitychange', this.#turned);
  }

  /**
   * @param {Pick<Watch, 'element' | 'item' | 'share' | 'millis' | 'log'>} asked
   * @returns {() => void} ends it
   */
  observe(asked) {
    const watch = { ...asked, isVisible: false, timer: undefined };
    const watches = this.#watches.get(watch.element) ?? new Set();
    watches.add(watch);
    this.#watches.set(watch.element, watches);
    this.#observer.unobserve(watch.element); // so that it is told of anew
    this.#observer.observe(watch.element);
    return () => this.#end(watch);
  }

  dispose() {
    this.#observer.disconnect();
    document.removeEventListener('visibilitychange', this.#turned);
    for (const { timer } of this.#visible) clearTimeout(timer);
    this.#visible.clear();
  }

  /** @param {IntersectionObserverEntry} entry */
  #moved({ target, isIntersecting, intersectionRatio, intersectionRect, rootBounds }) {
    for (const watch of this.#watches.get(target) ?? []) {
      const isOnScreen = rootBounds !== null && areaOf(intersectionRect) >= watch.share * areaOf(rootBounds);
      watch.isVisible = isIntersecting && (intersectionRatio >= watch.share || isOnScreen);
      if (watch.isVisible) this.#visible.add(watch);
      else this.#visible.delete(watch);
      this.#tick(watch);
    }
  }

  /** Starts, stops or leaves its clock, which runs while the element and the page are visible. */
  #tick(watch) {
    const isRunning = watch.isVisible && document.visibilityState === 'visible';
    if (isRunning) {
      watch.timer ??= setTimeout(() => this.#saw(watch), watch.millis);
    } else {
      clearTimeout(watch.timer);
      watch.timer = undefined;
    }
  }

  #saw(watch) {
    this.#end(watch);
    if (typeof watch.item === 'object') {
      if (this.#shown.has(watch.item)) return;
      this.#shown.add(watch.item);
    }
    watch.log();
  }

  #end(watch) {
    clearTimeout(watch.timer);
    this.#visible.delete(watch);
    const watches = this.#watches.get(watch.element);
    watches?.delete(watch);
    if (watches?.size === 0) this.#observer.unobserve(watch.element);
  }
}

const areaOf = ({ width, height }) => width * height;
