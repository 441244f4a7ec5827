//! What every row without a base begins with: whether it is blank, and its exponent.

use super::{RowMut, Traits};
use crate::codec::CodecError;
use crate::codec::quantize::EXPONENT_MIN;
use crate::codec::range_coder::{BinaryCoder, Prob};
use crate::codec::symbols::BitTree;

/// Model of the beginnings of rows.
#[derive(Debug)]
pub(super) struct RowHead {
    is_blank: [Prob; 2],
    was_blank: bool,
    exponent: BitTree,
}

impl RowHead {
    pub(super) fn new() -> Self {
        Self {
            is_blank: [Prob::HALF; 2],
            was_blank: false,
            exponent: BitTree::new(7),
        }
    }

    /// Before the rows of another tensor.
    pub(super) fn relax(&mut self) {
        self.was_blank = false;
        self.is_blank.iter_mut().for_each(Prob::relax);
        self.exponent.relax();
    }

    /// Whether the row is blank; then a decoder's is overwritten, else its codes follow.
    pub(super) fn code<C: BinaryCoder>(
        &mut self,
        coder: &mut C,
        traits: &Traits,
        row: &mut RowMut<'_>,
    ) -> Result<bool, CodecError> {
        let (blank_exponent, blank_code) = traits.blank;
        let is_blank =
            *row.exponent == blank_exponent && row.codes.iter().all(|code| *code == blank_code);
        let is_blank = coder.bit(&mut self.is_blank[usize::from(self.was_blank)], is_blank);
        self.was_blank = is_blank;
        if is_blank {
            *row.exponent = blank_exponent;
            row.codes.fill(blank_code);
            coder.check()?;
        } else if !traits.is_counts {
            let symbol = (i32::from(*row.exponent) - i32::from(EXPONENT_MIN)) as u32 & 0x7F; // 0 to 80 when valid
            let symbol = self.exponent.code(coder, symbol) as i32; // 7 bits
            *row.exponent = traits.checked_exponent(symbol + i32::from(EXPONENT_MIN))?;
        }
        Ok(is_blank)
    }
}
