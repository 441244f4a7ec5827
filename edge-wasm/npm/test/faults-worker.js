//! The worker of the package with the faults of its address (`faults.js`); `{breakNow: name}` brings another.

import { breakNow } from './faults.js';

// Before the package's own listener.
self.addEventListener('message', (event) => {
  if (event.data.breakNow === undefined) return;
  event.stopImmediatePropagation();
  breakNow(event.data.breakNow);
});
self.addEventListener('unhandledrejection', ({ reason }) => self.postMessage({ event: 'uncaught', detail: String(reason) }));

await import('../worker.js');
