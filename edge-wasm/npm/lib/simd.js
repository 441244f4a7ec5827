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

/**
 * A module with two functions (n: i32) → i32 that go round n times, each waiting for the sum before:
 * `r` with i32x4.relaxed_dot_i8x16_i7x16_add_s, `p` with i32x4.dot_i16x8_s and i32x4.add.
 */
const RACE = [
  0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00, // magic, version
  0x01, 0x06, 0x01, 0x60, 0x01, 0x7f, 0x01, 0x7f, // one type: (i32) → i32
  0x03, 0x03, 0x02, 0x00, 0x00, // two functions of it
  0x07, 0x09, 0x02, 0x01, 0x72, 0x00, 0x00, 0x01, 0x70, 0x00, 0x01, // exported as r and p
  0x0a, 0x56, 0x02, // two bodies
  0x28, 0x01, 0x01, 0x7b, // of 40 bytes, with a v128
  0x41, 0x03, 0xfd, 0x11, 0x21, 0x01, // sum = i32x4.splat(3)
  0x03, 0x40, // loop
  0x20, 0x01, 0x41, 0x01, 0xfd, 0x0f, 0x20, 0x01, 0xfd, 0x93, 0x02, 0x21, 0x01, // sum = relaxed_dot(sum, splat(1), sum)
  0x20, 0x00, 0x41, 0x01, 0x6b, 0x22, 0x00, 0x0d, 0x00, 0x0b, // n -= 1, again unless 0, end
  0x20, 0x01, 0xfd, 0x1b, 0x00, 0x0b, // a lane of the sum, end
  0x2b, 0x01, 0x01, 0x7b, // of 43 bytes, with a v128
  0x41, 0x03, 0xfd, 0x11, 0x21, 0x01,
  0x03, 0x40,
  0x20, 0x01, 0x20, 0x01, 0x41, 0x01, 0xfd, 0x10, 0xfd, 0xba, 0x01, 0xfd, 0xae, 0x01, 0x21, 0x01, // sum += dot(sum, splat(1))
  0x20, 0x00, 0x41, 0x01, 0x6b, 0x22, 0x00, 0x0d, 0x00, 0x0b,
  0x20, 0x01, 0xfd, 0x1b, 0x00, 0x0b,
];
/** Some milliseconds, so that a clock of tenths tells them apart. */
const RACE_ROUNDS = 2_000_000;
const RACE_RUNS = 3;
/**
 * The relaxed kernels go round as often as the plain ones, so they win where their instruction is one of the processor's
 * (VNNI, dot product of ARM); where it is made of three, it takes 1.7 times as long.
 */
const RACE_RATIO_MAX = 1.15;

/** Whether a module with relaxed SIMD runs here. */
export function hasRelaxedSimd() {
  return WebAssembly.validate(new Uint8Array(RELAXED));
}

/** Whether the relaxed product runs here and is worth it: some processors have it, others put it together. */
export function isRelaxedFaster() {
  if (!hasRelaxedSimd()) return false;
  try {
    const { exports } = new WebAssembly.Instance(new WebAssembly.Module(new Uint8Array(RACE)));
    const best = (run) => {
      let least = Infinity;
      for (let count = 0; count < RACE_RUNS; count += 1) {
        const startedAt = performance.now();
        run(RACE_ROUNDS);
        least = Math.min(least, performance.now() - startedAt);
      }
      return least;
    };
    return best(exports.r) <= RACE_RATIO_MAX * best(exports.p);
  } catch {
    return false; // the plain module runs everywhere
  }
}
