//! The worker's side of the messages: an engine host behind them. The page's side is `link.js`.
//!
//! In: `{id, method, args}`. Out: `{id, result}` or `{id, error}`, and `{event, detail}`.

import { EngineHost } from './host.js';
import { toFreshetError } from './errors.js';
import { holdLife } from './life.js';

/**
 * Answers the page for as long as the worker lives.
 * @param {import('./backend.js').Runtimes} runtimes
 */
export function serve(runtimes) {
  /** @type {EngineHost | undefined} */
  let host;
  const methods = {
    start(config) {
      host = new EngineHost(config, runtimes, (event, detail) => self.postMessage({ event, detail }));
      return host.start();
    },
    rank: (request) => host?.rank(request),
    similar: (request) => host?.similar(request),
    search: (request) => host?.search(request),
    rankNew: (request) => host?.rankNew(request),
    prepareSearch: () => host?.prepareSearch(),
    explain: (request) => host?.explain(request),
    itemIds: () => host?.itemIds(),
    pin: () => host?.pin(),
    unpin: () => host?.unpin(),
    persist: () => host?.persist(),
    wake: () => host?.wake(),
    ping: () => host?.ping(),
    dispose: () => host?.dispose(),
  };
  self.onmessage = async ({ data: { id, method, args } }) => {
    try {
      const result = await methods[method](...args);
      self.postMessage({ id, result });
    } catch (thrown) {
      const { code, message } = toFreshetError(thrown);
      self.postMessage({ id, error: { code, message } });
    }
  };
  self.postMessage({ event: 'loaded', detail: {} });
  holdLife((lock) => self.postMessage({ event: 'alive', detail: { lock } }));
}
