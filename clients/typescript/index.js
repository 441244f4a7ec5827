//! Client of a Freshet server, on `fetch` alone: Node, Deno, Bun and workers. Pages use the package `freshet` instead.

export { Client } from './lib/client.js';
export { FreshetError, ProblemError, TransportError } from './lib/errors.js';
export { newEventId } from './lib/ids.js';
