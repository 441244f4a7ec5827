//! Eight sums in i32 and the two steps that add products to them: vector instructions where the target has them,
//! plain loops elsewhere. Both give the same integers; the native tests run the loops, the page's tests the vectors.
//!
//! No `unsafe`: the compiler turns a vector that is made of sixteen neighbouring bytes into one load.

/// Columns of a panel.
pub(super) const COLS: usize = 8;

pub(super) use implementation::Sums;

#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod implementation {
    use std::arch::wasm32::{
        i8x16, i16x8_extend_high_i8x16, i16x8_extend_low_i8x16, i32x4, i32x4_add, i32x4_dot_i16x8,
        i32x4_extract_lane, i32x4_splat, v128,
    };

    use super::COLS;

    /// Sums of eight columns.
    #[derive(Debug, Clone, Copy)]
    pub(crate) struct Sums([v128; 2]);

    impl Sums {
        pub(crate) const ZERO: Self = Self([i32x4(0, 0, 0, 0); 2]);

        /// `sum_c += pair[0]·weights[c][0] + pair[1]·weights[c][1]`, the pair as two i16.
        #[inline]
        pub(crate) fn add_pairs(&mut self, pair: i32, weights: &[i8; 2 * COLS]) {
            let (pair, weights) = (i32x4_splat(pair), load(weights));
            let low = i32x4_dot_i16x8(pair, i16x8_extend_low_i8x16(weights));
            let high = i32x4_dot_i16x8(pair, i16x8_extend_high_i8x16(weights));
            self.0 = [i32x4_add(self.0[0], low), i32x4_add(self.0[1], high)];
        }

        /// `sum_c += Σ four[i]·weights[c][i]`, the four as bytes from 0 to 127.
        #[cfg(feature = "relaxed-simd")]
        #[target_feature(enable = "relaxed-simd")]
        #[inline]
        pub(crate) fn add_fours(&mut self, four: i32, weights: &[i8; 4 * COLS]) {
            use std::arch::wasm32::i32x4_relaxed_dot_i8x16_i7x16_add as dot_add;
            let four = i32x4_splat(four);
            let (halves, _) = weights.as_chunks::<16>();
            // Seven bits in the second operand, so that nothing is left to the implementation.
            self.0 = [
                dot_add(load(&halves[0]), four, self.0[0]),
                dot_add(load(&halves[1]), four, self.0[1]),
            ];
        }

        /// The same without the instruction, in pairs.
        #[cfg(not(feature = "relaxed-simd"))]
        #[inline]
        pub(crate) fn add_fours(&mut self, four: i32, weights: &[i8; 4 * COLS]) {
            let [a, b, c, d] = four.to_le_bytes().map(i32::from);
            for (first, second, at) in [(a, b, 0), (c, d, 2)] {
                let half = |col: usize| [weights[4 * col + at], weights[4 * col + at + 1]];
                let halves: [[i8; 2]; COLS] = std::array::from_fn(half);
                let mut pairs = [0; 2 * COLS];
                pairs.copy_from_slice(halves.as_flattened());
                self.add_pairs(first | second << 16, &pairs);
            }
        }

        #[inline]
        pub(crate) fn to_array(self) -> [i32; COLS] {
            let [low, high] = self.0.map(|sums| {
                [
                    i32x4_extract_lane::<0>(sums),
                    i32x4_extract_lane::<1>(sums),
                    i32x4_extract_lane::<2>(sums),
                    i32x4_extract_lane::<3>(sums),
                ]
            });
            std::array::from_fn(|col| if col < 4 { low[col] } else { high[col - 4] })
        }
    }

    #[inline]
    #[rustfmt::skip]
    fn load(b: &[i8; 16]) -> v128 {
        i8x16(
            b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7],
            b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15],
        )
    }
}

#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
mod implementation {
    use super::COLS;

    /// Sums of eight columns.
    #[derive(Debug, Clone, Copy)]
    pub(crate) struct Sums([i32; COLS]);

    impl Sums {
        pub(crate) const ZERO: Self = Self([0; COLS]);

        /// `sum_c += pair[0]·weights[c][0] + pair[1]·weights[c][1]`, the pair as two i16.
        #[inline]
        pub(crate) fn add_pairs(&mut self, pair: i32, weights: &[i8; 2 * COLS]) {
            let (low, high) = (i32::from(pair as i16), pair >> 16); // the low half is meant
            for (sum, [first, second]) in self.0.iter_mut().zip(weights.as_chunks::<2>().0) {
                *sum += low * i32::from(*first) + high * i32::from(*second);
            }
        }

        /// `sum_c += Σ four[i]·weights[c][i]`, the four as bytes from 0 to 127.
        #[inline]
        pub(crate) fn add_fours(&mut self, four: i32, weights: &[i8; 4 * COLS]) {
            let four = four.to_le_bytes().map(i32::from);
            for (sum, weights) in self.0.iter_mut().zip(weights.as_chunks::<4>().0) {
                for (factor, weight) in four.iter().zip(weights) {
                    *sum += factor * i32::from(*weight);
                }
            }
        }

        #[inline]
        pub(crate) fn to_array(self) -> [i32; COLS] {
            self.0
        }
    }
}
