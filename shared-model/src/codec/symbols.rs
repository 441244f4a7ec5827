//! Symbols as binary decisions: bit trees, unbounded numbers, identifiers.
//!
//! Each function serves both directions; see [`BinaryCoder`].

use super::CodecError;
use super::range_coder::{BinaryCoder, Prob};
use crate::ids::{ID_BYTES_MAX, IdError, ItemId};

/// A symbol of a fixed number of bits, highest first, each decision with its own probability per prefix.
#[derive(Debug, Clone)]
pub(super) struct BitTree {
    probs: Vec<Prob>,
    num_bits: u32,
}

impl BitTree {
    pub(super) fn new(num_bits: u32) -> Self {
        Self {
            probs: vec![Prob::HALF; 1 << num_bits],
            num_bits,
        }
    }

    /// See [`Prob::relax`].
    pub(super) fn relax(&mut self) {
        self.probs.iter_mut().for_each(Prob::relax);
    }

    pub(super) fn code<C: BinaryCoder>(&mut self, coder: &mut C, symbol: u32) -> u32 {
        let mut node = 1_u32;
        for shift in (0..self.num_bits).rev() {
            let prob = &mut self.probs[node as usize]; // a prefix of less than num_bits bits after the leading one
            let bit = coder.bit(prob, symbol >> shift & 1 == 1);
            node = node << 1 | u32::from(bit);
        }
        node - (1 << self.num_bits)
    }
}

/// Numbers below `2^31` in Exp-Golomb form: the bit length of `value + 1` in unary with learned decisions,
/// then its bits after the leading one, the first of them learned.
#[derive(Debug, Clone)]
pub(super) struct Number {
    len: [Prob; 31],
    first: [Prob; 32],
}

impl Number {
    pub(super) fn new() -> Self {
        Self {
            len: [Prob::HALF; 31],
            first: [Prob::HALF; 32],
        }
    }

    pub(super) fn code<C: BinaryCoder>(&mut self, coder: &mut C, value: u32) -> u32 {
        let shifted = value.wrapping_add(1).max(1);
        let mut num_bits = 0;
        for prob in &mut self.len {
            if !coder.bit(prob, shifted >> num_bits > 1) {
                break;
            }
            num_bits += 1;
        }
        if num_bits == 0 {
            return 0;
        }
        let first = coder.bit(
            &mut self.first[num_bits as usize],
            shifted >> (num_bits - 1) & 1 == 1,
        );
        let rest_mask = (1_u32 << (num_bits - 1)) - 1;
        let rest = coder.raw_bits(shifted & rest_mask, num_bits - 1);
        (1_u32 << num_bits | u32::from(first) << (num_bits - 1) | rest) - 1
    }
}

/// All 64 bits of `value`, without a model.
pub(super) fn code_i64<C: BinaryCoder>(coder: &mut C, value: i64) -> i64 {
    let bits = value as u64; // two's complement
    let high = coder.raw_bits((bits >> 32) as u32, 32); // the high half
    let low = coder.raw_bits(bits as u32, 32); // the low half
    (u64::from(high) << 32 | u64::from(low)) as i64
}

/// Item ids, each as what it shares with the one before and the bytes that follow.
#[derive(Debug)]
pub(super) struct ItemIds {
    shared_len: Number,
    rest_len: Number,
    first_byte: BitTree,
    next_bytes: BitTree,
    previous: Vec<u8>,
}

impl ItemIds {
    pub(super) fn new() -> Self {
        Self {
            shared_len: Number::new(),
            rest_len: Number::new(),
            first_byte: BitTree::new(8),
            next_bytes: BitTree::new(8),
            previous: Vec::new(),
        }
    }

    /// An encoder is given the id, a decoder `None`.
    pub(super) fn code<C: BinaryCoder>(
        &mut self,
        coder: &mut C,
        item_id: Option<&ItemId>,
    ) -> Result<ItemId, CodecError> {
        let given = item_id.map_or(&[][..], |item_id| item_id.as_str().as_bytes());
        let shared_len = given
            .iter()
            .zip(&self.previous)
            .take_while(|(byte, previous)| byte == previous)
            .count();
        let rest = &given[shared_len..];

        let shared_len = self.shared_len.code(coder, shared_len as u32) as usize; // at most ID_BYTES_MAX, fits
        let rest_len = self.rest_len.code(coder, rest.len() as u32) as usize; // likewise
        if shared_len > self.previous.len() {
            return Err(CodecError::Corrupt {
                what: "shared length of an item id",
            });
        }
        let id_len = shared_len.saturating_add(rest_len);
        if id_len > ID_BYTES_MAX {
            return Err(CodecError::ItemId(IdError::TooLong { actual: id_len }));
        }
        self.previous.truncate(shared_len);
        for byte_idx in 0..rest_len {
            let tree = if byte_idx == 0 {
                &mut self.first_byte
            } else {
                &mut self.next_bytes
            };
            let byte = rest.get(byte_idx).copied().unwrap_or(0); // a decoder has none to give
            self.previous.push(tree.code(coder, u32::from(byte)) as u8); // 8 bits
        }
        let text = std::str::from_utf8(&self.previous);
        let text = text.map_err(|_| CodecError::Corrupt {
            what: "item id is not UTF-8",
        })?;
        Ok(ItemId::new(text)?)
    }
}

/// Ascending positions as gaps. An encoder is given all of them, a decoder none, but their number.
pub(super) struct Positions<'a> {
    given: &'a [usize],
    num_left: usize,
    gap: Number,
    next: usize,
}

impl<'a> Positions<'a> {
    pub(super) fn new(given: &'a [usize], num_positions: usize) -> Self {
        Self {
            given,
            num_left: num_positions,
            gap: Number::new(),
            next: 0,
        }
    }

    /// The next position, below `len`; `None` after the last.
    pub(super) fn code<C: BinaryCoder>(
        &mut self,
        coder: &mut C,
        len: usize,
    ) -> Result<Option<usize>, CodecError> {
        if self.num_left == 0 {
            return Ok(None);
        }
        self.num_left -= 1;
        let mut gap = 0;
        if let Some((position, rest)) = self.given.split_first() {
            gap = position - self.next;
            self.given = rest;
        }
        let gap = self.gap.code(coder, gap as u32) as usize; // below NUM_CODES_MAX, fits
        let position = self.next.saturating_add(gap);
        if position >= len {
            return Err(CodecError::Corrupt {
                what: "position beyond the end",
            });
        }
        self.next = position + 1;
        coder.check()?;
        Ok(Some(position))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::range_coder::{Decoder, Encoder};

    #[test]
    fn numbers_survive_from_zero_to_the_largest() {
        let values = [0, 1, 2, 3, 7, 8, 100, 65_535, 65_536, (1 << 31) - 2, 5];
        let mut encoder = Encoder::new(Vec::new());
        let mut model = Number::new();
        for value in values {
            assert_eq!(model.code(&mut encoder, value), value);
        }
        let bytes = encoder.finish();
        let mut decoder = Decoder::new(&bytes);
        let mut model = Number::new();
        for value in values {
            assert_eq!(model.code(&mut decoder, 0), value);
        }
        assert_eq!(decoder.finish(), Ok(()));
    }

    #[test]
    fn any_bytes_decode_to_a_number_without_overflow() {
        for byte in 0..=255 {
            let bytes = [byte; 40];
            let mut decoder = Decoder::new(&bytes);
            let mut model = Number::new();
            for _ in 0..40 {
                model.code(&mut decoder, 0);
            }
        }
    }

    #[test]
    fn ids_survive_with_shared_beginnings_and_other_scripts() {
        let ids = ["item-1", "item-12", "item-1", "x", "größe-ü", "größe-ß"]
            .map(|id| ItemId::new(id).expect("valid"));
        let mut encoder = Encoder::new(Vec::new());
        let mut model = ItemIds::new();
        for id in &ids {
            model
                .code(&mut encoder, Some(id))
                .expect("an encoder does not fail");
        }
        let bytes = encoder.finish();
        let mut decoder = Decoder::new(&bytes);
        let mut model = ItemIds::new();
        for id in &ids {
            assert_eq!(model.code(&mut decoder, None).as_ref(), Ok(id));
        }
        assert_eq!(decoder.finish(), Ok(()));
    }

    #[test]
    fn signed_64_bit_numbers_survive() {
        for value in [0, -1, i64::MIN, i64::MAX, 1_700_000_000_000] {
            let mut encoder = Encoder::new(Vec::new());
            code_i64(&mut encoder, value);
            assert_eq!(code_i64(&mut Decoder::new(&encoder.finish()), 0), value);
        }
    }
}
