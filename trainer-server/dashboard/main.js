// The dashboard: tabs, and the page that the address names. Each page is a function that fills the main element and
// answers what to do every few seconds.

import { request } from './api.js';
import { make, duration } from './elements.js';
import { live } from './live.js';
import { learning } from './learning.js';
import { versions } from './versions.js';
import { experiments } from './experiments.js';
import { quality } from './quality.js';
import { simulator } from './simulator.js';
import { bias } from './bias.js';
import { moderation } from './moderation.js';
import { uncertain } from './uncertain.js';

const REFRESH_MILLIS = 2000;

/** @type {Record<string, { name: string, open: (page: HTMLElement) => Promise<(() => Promise<void>) | void> }>} */
const PAGES = {
  live: { name: 'Live', open: live },
  learning: { name: 'Learning', open: learning },
  versions: { name: 'Versions', open: versions },
  experiments: { name: 'Experiments', open: experiments },
  quality: { name: 'Data quality', open: quality },
  simulator: { name: 'Catalogue and simulator', open: simulator },
  bias: { name: 'Bias and coverage', open: bias },
  moderation: { name: 'Moderation', open: moderation },
  uncertain: { name: 'To be tried', open: uncertain },
};

const [tabs, page, state] = ['tabs', 'page', 'state'].map((id) => document.getElementById(id));
/** @type {(() => Promise<void>) | undefined} */
let refresh;
let visit = 0;

function fail(error) {
  page.replaceChildren(make('p.bad', { role: 'alert' }, error.message));
}

async function show() {
  const wanted = location.hash.slice(1);
  const id = wanted in PAGES ? wanted : 'live';
  const own = ++visit;
  for (const tab of tabs.children) {
    tab.toggleAttribute('aria-current', tab.getAttribute('href') === `#${id}`);
  }
  document.title = `${PAGES[id].name} – Freshet`;
  refresh = undefined;
  const fresh = make('div');
  page.replaceChildren(fresh);
  try {
    const again = await PAGES[id].open(fresh);
    if (own === visit) refresh = again ?? undefined;
  } catch (error) {
    if (own === visit) fail(error);
  }
}

async function tick() {
  try {
    const status = await request('/v1/status');
    const { error, paused, phase } = status.trainer;
    const trouble = error ?? paused ?? (status.is_log_writable ? null : 'the event log cannot be written');
    state.classList.toggle('bad', trouble !== null);
    const age = status.published_at ? duration(Date.now() - status.published_at) : null;
    state.textContent = trouble ?? `${phase}${status.version ? ` · version ${status.version}, ${age} old` : ', no version yet'}`;
    if (!document.hidden) await refresh?.();
  } catch (error) {
    state.classList.add('bad');
    state.textContent = error.message;
  }
  setTimeout(tick, REFRESH_MILLIS);
}

tabs.append(...Object.entries(PAGES).map(([id, { name }]) => make('a', { href: `#${id}` }, name)));
addEventListener('hashchange', show);
await show();
await tick();
