//! One tab of an origin holds the announcement stream; the others are told what it says. Which one is up to `tabs.js`.

import { Tabs } from './tabs.js';

/**
 * @param {object} options
 * @param {string} options.name the same in all tabs that share a stream
 * @param {AbortSignal} options.signal ends leading and listening
 * @param {(stream: Stream) => void} options.onLead open the stream, and tell the other tabs what it says
 * @param {(text: string) => void} options.onVersion an announcement from the leader
 * @param {(revision: number) => void} options.onRules likewise, of another revision of the rules
 * @param {(isOnline: boolean) => void} options.onState what the leader says about its stream
 *
 * @typedef {{tellVersion: (text: string) => void, tellRules: (revision: number) => void, tellState: (isOnline: boolean) => void}} Stream
 */
export function joinTabs({ name, signal, onLead, onVersion, onRules, onState }) {
  const last = { state: undefined, version: undefined, rules: undefined };
  const tell = (message) => {
    last[message.type] = message;
    tabs.post(message);
  };
  const stream = {
    tellVersion: (text) => tell({ type: 'version', text }),
    tellRules: (revision) => tell({ type: 'rules', revision }),
    tellState: (isOnline) => tell({ type: 'state', isOnline }),
  };
  const heard = (message) => {
    if (tabs.isLeader) {
      const isNewTab = message?.type === 'hello';
      if (isNewTab) Object.values(last).forEach((said) => said && tabs.post(said));
    } else {
      if (message?.type === 'version') onVersion(String(message.text));
      if (message?.type === 'rules') onRules(Number(message.revision));
      if (message?.type === 'state') onState(Boolean(message.isOnline));
    }
  };
  const onLost = () => {}; // by leaving alone: nobody takes over a stream
  const tabs = new Tabs(name, { onLead: () => onLead(stream), onLost, onMessage: heard });
  tabs.join();
  tabs.post({ type: 'hello' });
  signal.addEventListener('abort', () => tabs.leave());
}
