//! One tab of an origin holds the announcement stream; the others are told over a `BroadcastChannel`.
//!
//! The holder of a Web Lock leads; when its tab closes, the browser hands the lock to the next.
//! Where Web Locks or channels are missing or refused (old browsers, insecure origins) every tab leads for itself.

import { openChannel } from './channel.js';

/**
 * @param {object} options
 * @param {string} options.name the same in all tabs that share a stream
 * @param {AbortSignal} options.signal ends leading and listening
 * @param {(tabs: Tabs) => void} options.onLead open the stream, and tell the other tabs what it says
 * @param {(text: string) => void} options.onVersion an announcement from the leader
 * @param {(isOnline: boolean) => void} options.onState what the leader says about its stream
 *
 * @typedef {{tellVersion: (text: string) => void, tellState: (isOnline: boolean) => void}} Tabs
 */
export function joinTabs({ name, signal, onLead, onVersion, onState }) {
  // Nothing where tabs cannot agree on who leads.
  const channel = globalThis.navigator?.locks && openChannel(name);
  if (!channel) {
    onLead({ tellVersion() {}, tellState() {} });
    return;
  }

  const last = { version: undefined, isOnline: undefined };
  let isLeader = false;
  const tell = (message) => {
    if (!signal.aborted) channel.postMessage(message);
  };

  channel.onmessage = ({ data }) => {
    if (data?.type === 'hello' && isLeader) {
      if (last.isOnline !== undefined) tell({ type: 'state', isOnline: last.isOnline });
      if (last.version !== undefined) tell({ type: 'version', text: last.version });
    }
    if (data?.type === 'version' && !isLeader) onVersion(String(data.text));
    if (data?.type === 'state' && !isLeader) onState(Boolean(data.isOnline));
  };
  tell({ type: 'hello' });
  signal.addEventListener('abort', () => channel.close());

  const tabs = {
    tellVersion(text) {
      last.version = text;
      tell({ type: 'version', text });
    },
    tellState(isOnline) {
      last.isOnline = isOnline;
      tell({ type: 'state', isOnline });
    },
  };
  const hold = () => {
    isLeader = true;
    onLead(tabs);
    return new Promise((release) => signal.addEventListener('abort', release));
  };
  const request = async () => navigator.locks.request(name, { signal }, hold);
  request().catch(() => {
    if (!signal.aborted) hold(); // locks are refused here (for example in a sandboxed frame)
  });
}
