//! The server's publishable key in an address: beacons have no headers, and a header of its own would cost a preflight.

/**
 * @param {string} url without a query
 * @param {string} [key] of characters that stand for themselves in a URL
 */
export function withKey(url, key) {
  return key === undefined ? url : `${url}?key=${key}`;
}
