//! Ids of events.

/** A UUID of version 7 (RFC 9562, 5.7): 48 bits of milliseconds, then chance. */
export function newEventId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  const millis = BigInt(Date.now());
  for (let idx = 0; idx < 6; idx += 1) bytes[idx] = Number((millis >> BigInt(40 - 8 * idx)) & 0xffn);
  bytes[6] = (bytes[6] & 0x0f) | 0x70;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const text = Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
  return text.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
}
