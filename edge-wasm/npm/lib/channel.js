//! A channel over which the tabs of an origin hear each other.

/** @param {string} name @returns {BroadcastChannel | undefined} nothing where channels are missing or refused */
export function openChannel(name) {
  try {
    return new BroadcastChannel(name);
  } catch {
    return undefined; // Firefox refuses them where it is to store nothing
  }
}
