//! What this browser's WebAssembly can do beyond SIMD128, which every module of the package needs.

/** A module with one function of one relaxed instruction: what validates it, runs it. */
const RELAXED = [
  0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00, // magic, version
  0x01, 0x05, 0x01, 0x60, 0x00, 0x01, 0x7b, // one type: () → v128
  0x03, 0x02, 0x01, 0x00, // one function of it
  0x0a, 0x0f, 0x01, 0x0d, 0x00, // one body of 13 bytes without locals
  0x41, 0x01, 0xfd, 0x0f, // i32.const 1, i8x16.splat
  0x41, 0x02, 0xfd, 0x0f, // i32.const 2, i8x16.splat
  0xfd, 0x80, 0x02, // i8x16.relaxed_swizzle
  0x0b, // end
];

/** Whether a module with relaxed SIMD runs here. */
export function hasRelaxedSimd() {
  return WebAssembly.validate(new Uint8Array(RELAXED));
}
