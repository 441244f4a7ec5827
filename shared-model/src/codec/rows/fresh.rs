//! Rows without a base, as in snapshots and for new items; see the parent module.

use super::head::RowHead;
use super::{NARROW_COLS_MAX, RowMut, Traits};
use crate::codec::CodecError;
use crate::codec::range_coder::{BinaryCoder, Prob};
use crate::codec::state::NEVER_CODE;
use crate::codec::symbols::BitTree;

/// Model of rows that have no base.
#[derive(Debug)]
pub(in crate::codec) struct FreshRows {
    traits: Traits,
    head: RowHead,
    /// 4-bit and 8-bit codes.
    symbol: BitTree,
    /// 16-bit codes, by column where narrow.
    wide: Vec<WideCode>,
    is_never: [Prob; 2],
}

/// Model of a 16-bit code.
#[derive(Debug, Clone)]
struct WideCode {
    len: BitTree,
    is_negative: Prob,
    first: [Prob; 16],
    second: [Prob; 32],
}

impl WideCode {
    fn new() -> Self {
        Self {
            len: BitTree::new(4),
            is_negative: Prob::HALF,
            first: [Prob::HALF; 16],
            second: [Prob::HALF; 32],
        }
    }

    fn relax(&mut self) {
        self.len.relax();
        self.is_negative.relax();
    }

    /// A code of −32767 to 32767.
    fn code<C: BinaryCoder>(&mut self, coder: &mut C, code: i16) -> i32 {
        let magnitude = u32::from(code.unsigned_abs()) & 0x7FFF;
        let len = self.len.code(coder, u32::BITS - magnitude.leading_zeros());
        if len == 0 {
            return 0;
        }
        let is_negative = coder.bit(&mut self.is_negative, code < 0);
        let mut decoded = 1;
        let mut num_left = len - 1;
        if num_left > 0 {
            num_left -= 1;
            let bit = coder.bit(
                &mut self.first[len as usize],
                magnitude >> num_left & 1 == 1,
            );
            decoded = decoded << 1 | u32::from(bit);
        }
        if num_left > 0 {
            num_left -= 1;
            let context = (len << 1 | decoded & 1) as usize; // len is at most 15
            let bit = coder.bit(&mut self.second[context], magnitude >> num_left & 1 == 1);
            decoded = decoded << 1 | u32::from(bit);
        }
        let rest = coder.raw_bits(magnitude & ((1 << num_left) - 1), num_left);
        let magnitude = (decoded << num_left | rest) as i32; // 15 bits
        if is_negative { -magnitude } else { magnitude }
    }
}

impl FreshRows {
    pub(super) fn new(traits: Traits) -> Self {
        let num_contexts = if traits.is_narrow { NARROW_COLS_MAX } else { 1 };
        let num_wide = if traits.shape.code_bits == 16 {
            num_contexts
        } else {
            0
        };
        Self {
            traits,
            head: RowHead::new(),
            symbol: BitTree::new(8),
            wide: vec![WideCode::new(); num_wide],
            is_never: [Prob::HALF; 2],
        }
    }

    /// Goes on with another tensor of the class.
    pub(super) fn enter(&mut self, traits: Traits) {
        self.traits = traits;
        self.head.relax();
        self.symbol.relax();
        self.wide.iter_mut().for_each(WideCode::relax);
    }

    /// Codes one row; a decoder's row is overwritten.
    pub(in crate::codec) fn code<C: BinaryCoder>(
        &mut self,
        coder: &mut C,
        mut row: RowMut<'_>,
    ) -> Result<(), CodecError> {
        if self.head.code(coder, &self.traits, &mut row)? {
            return Ok(());
        }
        if self.traits.shape.code_bits == 16 {
            self.wide_codes(coder, row.codes)?;
        } else {
            self.narrow_codes(coder, row.codes)?;
        }
        coder.check()
    }

    fn narrow_codes<C: BinaryCoder>(
        &mut self,
        coder: &mut C,
        codes: &mut [i16],
    ) -> Result<(), CodecError> {
        for code in codes {
            let symbol = (i32::from(*code) + 128) as u32; // 1 to 255
            let symbol = self.symbol.code(coder, symbol) as i32; // 8 bits
            *code = self.traits.checked_code(symbol - 128)?;
        }
        Ok(())
    }

    fn wide_codes<C: BinaryCoder>(
        &mut self,
        coder: &mut C,
        codes: &mut [i16],
    ) -> Result<(), CodecError> {
        let mut was_never = false;
        for (col_idx, code) in codes.iter_mut().enumerate() {
            if self.traits.is_counts {
                was_never = coder.bit(
                    &mut self.is_never[usize::from(was_never)],
                    *code == NEVER_CODE,
                );
                if was_never {
                    *code = NEVER_CODE;
                    continue;
                }
            }
            let model = &mut self.wide[self.traits.column_context(col_idx)];
            *code = self.traits.checked_code(model.code(coder, *code))?;
        }
        Ok(())
    }
}
