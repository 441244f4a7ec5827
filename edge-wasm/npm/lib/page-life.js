//! What becomes of the page: hidden, left, back as it was, looked at again, online again.

/**
 * @param {object} on
 * @param {() => void} on.onHide it may be going away unseen
 * @param {() => void} on.onLeave it goes; it may come back as it was
 * @param {() => void} on.onReturn it has come back as it was
 * @param {() => void} on.onWake it is looked at again, or online again
 * @returns {() => void} ends listening
 */
export function followPage({ onHide, onLeave, onReturn, onWake }) {
  if (typeof window === 'undefined') return () => {};
  const end = new AbortController();
  const listen = (target, name, listener) => target.addEventListener(name, listener, { signal: end.signal });
  listen(window, 'pagehide', onLeave);
  listen(window, 'pageshow', ({ persisted }) => persisted && onReturn());
  listen(window, 'online', onWake);
  listen(document, 'visibilitychange', () => (document.visibilityState === 'hidden' ? onHide() : onWake()));
  return () => end.abort();
}
