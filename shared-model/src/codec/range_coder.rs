//! Adaptive binary range coder: binary decisions with learned probabilities to bytes and back.
//!
//! The carry-correct range coder of the LZMA SDK (I. Pavlov, `lzma-specification.txt`; after G. N. N. Martin 1979,
//! "Range encoding: an algorithm for removing redundancy from a digitised message"), with two departures:
//!
//! * The first byte, always zero in LZMA, is left out, and the end is the shortest one: of all numbers in the last
//!   interval the one with most trailing zeros, of which up to [`IMPLIED_BYTES_MAX`] zero bytes are not written.
//! * A probability is not an exponentially fading average but counts: `p += (bit − p) / (n + 1.5)` until
//!   `n` reaches [`COUNT_MAX`] (the state map of M. Mahoney's `lpaq1`, "Data Compression Explained" § 4.1.3).
//!   It learns at once, which tiny deltas need, and ends near the entropy of very skewed flags, which sparse ones need;
//!   a fading average with rate `a` loses about `a / (4 ln 2)` bits per decision, 12 % at a flag rate of 0.1 % and
//!   `a = 1/256`.
//!
//! Integers only, so both sides agree in every bit. Not here: what the decisions mean (`symbols`, `rows`).

use super::CodecError;

/// Zero bytes at the end that are not written.
pub const IMPLIED_BYTES_MAX: usize = 4;

/// Observations after which a probability becomes a fading average.
pub const COUNT_MAX: u32 = 1023;

/// Observations that still count after [`Prob::relax`].
const RELAXED_COUNT: u32 = 127;

/// Bits of a probability as the coder uses it.
const PROB_BITS: u32 = 16;

/// The range is kept at or above this.
const RANGE_MIN: u32 = 1 << 24;

/// `2^16 / (n + 1.5)` for a count `n`.
static RECIPROCALS: [u16; COUNT_MAX as usize + 1] = reciprocals();

const fn reciprocals() -> [u16; COUNT_MAX as usize + 1] {
    let mut table = [0; COUNT_MAX as usize + 1];
    let mut count = 0;
    while count < table.len() {
        table[count] = (131_072 / (2 * count + 3)) as u16; // at most 131072 / 3, fits
        count += 1;
    }
    table
}

/// Learned probability that a decision is 1: 22 bits of probability, 10 bits of count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prob(u32);

impl Prob {
    /// Nothing known: one half.
    pub const HALF: Self = Self::new(1, 2, 0);

    /// Starts at `ones / total`, as if `count` decisions had been seen.
    #[must_use]
    pub const fn new(ones: u32, total: u32, count: u32) -> Self {
        assert!(0 < ones && ones < total && total <= 1024 && count < COUNT_MAX);
        Self((((ones << 22) / total) << 10) | count)
    }

    /// Keeps the probability but believes in it less, before it meets decisions of another source.
    pub fn relax(&mut self) {
        self.relax_to(RELAXED_COUNT);
    }

    /// [`Self::relax`] to at most `count_max` observations.
    pub(super) fn relax_to(&mut self, count_max: u32) {
        let count = (self.0 & COUNT_MAX).min(count_max);
        self.0 = self.0 & !COUNT_MAX | count;
    }

    /// In `1 ..= 2^16 − 1`.
    pub(super) fn p16(self) -> u32 {
        (self.0 >> 16).clamp(1, (1 << PROB_BITS) - 1)
    }

    /// Learns one decision.
    pub(super) fn update(&mut self, bit: bool) {
        let (p22, count) = (self.0 >> 10, self.0 & COUNT_MAX);
        let reciprocal = u64::from(RECIPROCALS[count as usize]);
        let moved = |distance: u32| (u64::from(distance) * reciprocal >> 16) as u32; // below 2^22, fits
        let p22 = if bit {
            p22 + moved((1 << 22) - 1 - p22)
        } else {
            p22 - moved(p22)
        };
        self.0 = p22 << 10 | (count + 1).min(COUNT_MAX);
    }
}

/// Both directions of the coder, so that a layout is written down once.
///
/// The encoder writes the given decision and returns it; the decoder ignores it and returns the one it read.
pub trait BinaryCoder {
    /// One decision that is 1 with probability `p16 / 2^16`; `p16` in `1 ..= 2^16 − 1`.
    fn decide(&mut self, p16: u32, bit: bool) -> bool;

    /// One decision with a learned probability.
    #[inline(always)]
    fn bit(&mut self, prob: &mut Prob, bit: bool) -> bool {
        let bit = self.decide(prob.p16(), bit);
        prob.update(bit);
        bit
    }

    /// The low `num_bits` bits of `value`, at most 32, each with probability one half; highest first.
    fn raw_bits(&mut self, value: u32, num_bits: u32) -> u32;

    /// Whether decisions were read that nobody wrote.
    ///
    /// # Errors
    /// [`CodecError::Truncated`]; never from an encoder.
    fn check(&self) -> Result<(), CodecError>;
}

/// Writes decisions.
#[derive(Debug)]
pub struct Encoder {
    bytes: Vec<u8>,
    /// Low end of the interval: 32 bits and a carry.
    low: u64,
    range: u32,
    /// Last byte not yet written, since a carry may still reach it; `None` for LZMA's leading zero.
    cache: Option<u8>,
    /// Bytes 255 after `cache` that a carry would turn over.
    num_pending: usize,
}

impl Encoder {
    /// Appends to `bytes`.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self {
            bytes,
            low: 0,
            range: u32::MAX,
            cache: None,
            num_pending: 0,
        }
    }

    /// Ends the stream.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        let last = self.low + u64::from(self.range) - 1;
        let with_trailing_zeros = |num_bits: u32| last >> num_bits << num_bits;
        let num_zero_bits = (0..=32)
            .rev()
            .find(|num_bits| with_trailing_zeros(*num_bits) >= self.low);
        self.low = with_trailing_zeros(num_zero_bits.unwrap_or(0));
        for _ in 0..5 {
            self.shift_low();
        }
        for _ in 0..IMPLIED_BYTES_MAX {
            // The stream itself has at least four bytes, so nothing that was there before is cut.
            if self.bytes.last() == Some(&0) {
                self.bytes.pop();
            }
        }
        self.bytes
    }

    fn shift_low(&mut self) {
        let carry = (self.low >> 32) as u8; // 0 or 1
        let is_settled = carry == 1 || self.low < 0xFF00_0000;
        if !is_settled {
            self.num_pending += 1;
        } else {
            if let Some(cache) = self.cache {
                self.bytes.push(cache.wrapping_add(carry));
            }
            let pending = 0xFF_u8.wrapping_add(carry);
            self.bytes
                .resize(self.bytes.len() + self.num_pending, pending);
            self.num_pending = 0;
            self.cache = Some((self.low >> 24) as u8); // the top byte of the low 32 bits
        }
        self.low = (self.low & 0x00FF_FFFF) << 8;
    }

    fn normalize(&mut self) {
        while self.range < RANGE_MIN {
            self.range <<= 8;
            self.shift_low();
        }
    }
}

impl BinaryCoder for Encoder {
    fn decide(&mut self, p16: u32, bit: bool) -> bool {
        let bound = split(self.range, p16);
        if bit {
            self.range = bound;
        } else {
            self.low += u64::from(bound);
            self.range -= bound;
        }
        self.normalize();
        bit
    }

    fn raw_bits(&mut self, value: u32, num_bits: u32) -> u32 {
        for shift in (0..num_bits).rev() {
            self.range >>= 1;
            if value >> shift & 1 == 1 {
                self.low += u64::from(self.range);
            }
            self.normalize();
        }
        value
    }

    fn check(&self) -> Result<(), CodecError> {
        Ok(())
    }
}

/// Reads decisions.
#[derive(Debug)]
pub struct Decoder<'a> {
    bytes: &'a [u8],
    next: usize,
    /// The number read, less the low end of the interval.
    code: u32,
    range: u32,
}

impl<'a> Decoder<'a> {
    /// Reads a whole stream.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        let mut decoder = Self {
            bytes,
            next: 0,
            code: 0,
            range: u32::MAX,
        };
        for _ in 0..4 {
            decoder.code = decoder.code << 8 | decoder.next_byte();
        }
        decoder
    }

    /// Checks that the stream ends here. Up to [`IMPLIED_BYTES_MAX`] bytes after the end can look like a part of it;
    /// the layouts have a checksum for those.
    ///
    /// # Errors
    /// Bytes are missing or left over.
    pub fn finish(self) -> Result<(), CodecError> {
        self.check()?;
        if self.next < self.bytes.len() {
            return Err(CodecError::TrailingBytes);
        }
        Ok(())
    }

    fn next_byte(&mut self) -> u32 {
        let byte = self.bytes.get(self.next).copied().unwrap_or(0); // counted, see `check`
        self.next += 1;
        u32::from(byte)
    }

    fn normalize(&mut self) {
        while self.range < RANGE_MIN {
            self.range <<= 8;
            self.code = self.code << 8 | self.next_byte();
        }
    }
}

impl BinaryCoder for Decoder<'_> {
    #[inline(always)]
    fn decide(&mut self, p16: u32, _bit: bool) -> bool {
        let bound = split(self.range, p16);
        let bit = self.code < bound;
        if bit {
            self.range = bound;
        } else {
            self.code = self.code.wrapping_sub(bound);
            self.range -= bound;
        }
        self.normalize();
        bit
    }

    fn raw_bits(&mut self, _value: u32, num_bits: u32) -> u32 {
        let mut value = 0;
        for _ in 0..num_bits {
            self.range >>= 1;
            let bit = self.code >= self.range;
            if bit {
                self.code -= self.range;
            }
            value = value << 1 | u32::from(bit);
            self.normalize();
        }
        value
    }

    fn check(&self) -> Result<(), CodecError> {
        if self.next > self.bytes.len() + IMPLIED_BYTES_MAX {
            return Err(CodecError::Truncated);
        }
        Ok(())
    }
}

/// Size of the part of the range that means 1; at least 256 and less than the range.
fn split(range: u32, p16: u32) -> u32 {
    (u64::from(range) * u64::from(p16) >> PROB_BITS) as u32 // below the range, fits
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    fn encoded(bits: &[bool]) -> Vec<u8> {
        let mut encoder = Encoder::new(Vec::new());
        let mut prob = Prob::HALF;
        for bit in bits {
            encoder.bit(&mut prob, *bit);
        }
        encoder.finish()
    }

    fn decoded(bytes: &[u8], num_bits: usize) -> Result<Vec<bool>, CodecError> {
        let mut decoder = Decoder::new(bytes);
        let mut prob = Prob::HALF;
        let bits = (0..num_bits)
            .map(|_| decoder.bit(&mut prob, false))
            .collect();
        decoder.finish().map(|()| bits)
    }

    fn random_bits(num_bits: usize, rate: f64) -> Vec<bool> {
        let mut rng = StdRng::seed_from_u64(1);
        (0..num_bits).map(|_| rng.random_bool(rate)).collect()
    }

    #[test]
    fn decisions_survive_at_every_length_and_rate() {
        for rate in [0.0, 0.001, 0.3, 0.5, 0.9, 1.0] {
            for num_bits in (0..200).chain([20_000]) {
                let bits = random_bits(num_bits, rate);
                assert_eq!(
                    decoded(&encoded(&bits), num_bits),
                    Ok(bits),
                    "{num_bits} bits at rate {rate}"
                );
            }
        }
    }

    #[test]
    fn carries_reach_back_over_pending_bytes() {
        // Nearly certain ones keep the low end, then a zero adds nearly the whole range: the longest carries.
        let mut rng = StdRng::seed_from_u64(2);
        for _ in 0..2_000 {
            let values: Vec<u32> = (0..40)
                .map(|_| {
                    if rng.random_bool(0.9) {
                        u32::MAX
                    } else {
                        rng.random()
                    }
                })
                .collect();
            let mut encoder = Encoder::new(Vec::new());
            for value in &values {
                encoder.raw_bits(*value, 32);
                encoder.bit(&mut Prob::new(1, 1024, 0), value % 2 == 0);
            }
            let bytes = encoder.finish();
            let mut decoder = Decoder::new(&bytes);
            for value in &values {
                assert_eq!(decoder.raw_bits(0, 32), *value);
                assert_eq!(
                    decoder.bit(&mut Prob::new(1, 1024, 0), false),
                    value % 2 == 0
                );
            }
            assert_eq!(decoder.finish(), Ok(()));
        }
    }

    #[test]
    fn comes_within_four_percent_of_the_entropy() {
        for rate in [0.001_f64, 0.01, 0.1, 0.5] {
            let num_bits = 400_000;
            let bits = random_bits(num_bits, rate);
            let num_ones = bits.iter().filter(|bit| **bit).count() as f64;
            let share = num_ones / num_bits as f64;
            let entropy_bits =
                -(share.log2() * share + (1.0 - share).log2() * (1.0 - share)) * num_bits as f64;
            let actual_bits = encoded(&bits).len() as f64 * 8.0;
            assert!(
                actual_bits < entropy_bits * 1.04,
                "{actual_bits} bits for an entropy of {entropy_bits}"
            );
        }
    }

    #[test]
    fn refuses_truncated_and_longer_streams() {
        let bits = random_bits(1_000, 0.3);
        let mut bytes = encoded(&bits);
        let truncated = &bytes[..bytes.len() - IMPLIED_BYTES_MAX - 1];
        assert_eq!(decoded(truncated, bits.len()), Err(CodecError::Truncated));
        bytes.extend([0; IMPLIED_BYTES_MAX + 1]);
        assert_eq!(decoded(&bytes, bits.len()), Err(CodecError::TrailingBytes));
    }

    #[test]
    fn nothing_costs_nothing() {
        assert_eq!(encoded(&[]), Vec::<u8>::new());
        assert_eq!(
            encoded(&[true]).len(),
            0,
            "the shortest number in the first half is zero"
        );
    }
}
