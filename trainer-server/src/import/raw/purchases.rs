//! From the lines of a shop's invoices to purchases: what is no purchase goes, what was returned goes, and every
//! line is counted where it went.
//!
//! ```text
//! line ─► no user, item or quantity ─► fee ─► price ─► duplicate ─► return ⇄ purchase ─► outlier ─► merged ─► event
//! ```
//!
//! A return is a line with a quantity below zero. It undoes purchases of the same item by the same user that
//! stand before it, the newest first, each as far as the amount goes; what is then left of a purchase stays.
//! Input: rows in any order. Not here: files (`parquet_file`) and where events go.

use std::collections::{BTreeMap, HashMap, HashSet};

use shared_model::ids::check_id;
use shared_model::spec::NUM_ITEMS_MAX;

use super::parquet_file::ROWS_MAX;
use crate::config::ImportConfig;

/// Where a line can end, other than as an event. Every line ends in one place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// No user.
    NoUser,
    /// No item.
    NoItem,
    /// No time.
    NoTime,
    /// No quantity, or one of zero.
    NoQuantity,
    /// A user or item has a name that is longer than ids are, or holds control characters.
    Name,
    /// Postage, charges, samples: not an item that one chooses.
    Fee,
    /// A price of less than `import.price_min`, or none.
    Price,
    /// User, item, time, quantity and price of a line before.
    Duplicate,
    /// A return all of which undid purchases.
    Return,
    /// A return of more than had been bought.
    ReturnInExcess,
    /// A return of something not bought before it in the file.
    ReturnUnmatched,
    /// A return while `import.cancel_returns` is off.
    ReturnIgnored,
    /// A purchase that returns undid.
    Returned,
    /// More pieces than `import.quantity_max`.
    QuantityOutlier,
    /// Part of another line's event: same user, item and time.
    Merged,
}

impl Fate {
    /// All of them, in the order of the rules.
    pub const ALL: [Self; 15] = [
        Self::NoUser,
        Self::NoItem,
        Self::NoTime,
        Self::NoQuantity,
        Self::Name,
        Self::Fee,
        Self::Price,
        Self::Duplicate,
        Self::Return,
        Self::ReturnInExcess,
        Self::ReturnUnmatched,
        Self::ReturnIgnored,
        Self::Returned,
        Self::QuantityOutlier,
        Self::Merged,
    ];

    /// Its key in reports, and what it means in words.
    #[must_use]
    pub fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::NoUser => ("no_user", "no user"),
            Self::NoItem => ("no_item", "no item"),
            Self::NoTime => ("no_time", "no time"),
            Self::NoQuantity => ("no_quantity", "no quantity"),
            Self::Name => ("name", "a user or item whose name can be no id"),
            Self::Fee => ("fee", "fees, postage, samples"),
            Self::Price => ("price", "price below import.price_min"),
            Self::Duplicate => ("duplicate", "the same line again"),
            Self::Return => ("return", "returns that undid purchases"),
            Self::ReturnInExcess => ("return_in_excess", "returns of more than was bought"),
            Self::ReturnUnmatched => ("return_unmatched", "returns without a purchase"),
            Self::ReturnIgnored => ("return_ignored", "returns, which undo nothing here"),
            Self::Returned => ("returned", "purchases undone by returns"),
            Self::QuantityOutlier => ("quantity_outlier", "quantity above import.quantity_max"),
            Self::Merged => ("merged", "merged into the line of the same moment"),
        }
    }
}

/// What became of all lines.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Lines read.
    pub num_lines: u64,
    /// By where they ended; absent is none.
    pub fates: BTreeMap<Fate, u64>,
    /// Purchases of which returns undid a part; they are events all the same.
    pub num_reduced: u64,
    /// Purchases left.
    pub num_events: u64,
}

impl Counts {
    fn end(&mut self, fate: Fate) {
        *self.fates.entry(fate).or_default() += 1;
    }

    /// Lines that ended there.
    #[must_use]
    pub fn of(&self, fate: Fate) -> u64 {
        self.fates.get(&fate).copied().unwrap_or(0)
    }
}

/// A row of the file; `None` where a cell is empty.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Row {
    /// Who.
    pub(super) user: Option<String>,
    /// What, by its title.
    pub(super) item: Option<String>,
    /// How many pieces, below zero for a return.
    pub(super) quantity: Option<f64>,
    /// Of one piece.
    pub(super) price: Option<f64>,
    /// Milliseconds since 1970-01-01.
    pub(super) occurred_at: Option<i64>,
}

/// A purchase that is left.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Purchase {
    /// Index into [`Cleaned::users`].
    pub user_idx: u32,
    /// Index into [`Cleaned::items`].
    pub item_idx: u32,
    /// Milliseconds since 1970-01-01.
    pub occurred_at: i64,
    /// Pieces that were kept.
    pub quantity: f64,
    /// Row of the file, from 1; the first where several became one.
    pub row: u64,
}

/// An item that was bought and kept.
#[derive(Debug, Clone, PartialEq)]
pub struct BoughtItem {
    /// Its title, which is its id.
    pub title: String,
    /// Of its lines.
    pub median_price: f64,
}

/// All that is left.
#[derive(Debug, Clone, PartialEq)]
pub struct Cleaned {
    /// Users in the order in which they came.
    pub users: Vec<String>,
    /// Items by title.
    pub items: Vec<BoughtItem>,
    /// By time, then as in the file.
    pub purchases: Vec<Purchase>,
    /// What became of all lines.
    pub counts: Counts,
}

/// More than is kept in memory.
#[derive(Debug, thiserror::Error)]
#[error("more than {max} {what}")]
pub struct TooMany {
    /// Of what.
    pub what: &'static str,
    /// The limit.
    pub max: u64,
}

/// A line that may be a purchase or a return.
#[derive(Debug, Clone, Copy)]
struct Line {
    user_idx: u32,
    item_idx: u32,
    occurred_at: i64,
    row: u64,
    quantity: f64,
    price: f64,
    /// Whether a return undid a part of it.
    is_reduced: bool,
}

/// Takes rows in and cleans them when all are there: a return may be far behind its purchase.
pub(super) struct Purchases<'a> {
    rules: &'a ImportConfig,
    /// In lower case.
    fees: Vec<String>,
    users: Names,
    items: Names,
    lines: Vec<Line>,
    counts: Counts,
}

/// Names by number, in the order in which they came.
#[derive(Default)]
struct Names {
    names: Vec<String>,
    idx_of: HashMap<String, u32>,
}

impl Names {
    fn idx(&mut self, name: String) -> u32 {
        if let Some(idx) = self.idx_of.get(&name) {
            return *idx;
        }
        let idx = self.names.len() as u32; // fits: there are fewer names than rows
        self.names.push(name.clone());
        self.idx_of.insert(name, idx);
        idx
    }
}

impl<'a> Purchases<'a> {
    /// Before the first row.
    #[must_use]
    pub(super) fn new(rules: &'a ImportConfig) -> Self {
        let fees = rules.fees.iter();
        Self {
            rules,
            fees: fees.map(|fee| fee.to_lowercase()).collect(),
            users: Names::default(),
            items: Names::default(),
            lines: Vec::new(),
            counts: Counts::default(),
        }
    }

    /// Takes a row in, numbered from 1.
    ///
    /// # Errors
    /// More rows or items than are kept.
    pub(super) fn push(&mut self, row_number: u64, row: Row) -> Result<(), TooMany> {
        if self.counts.num_lines == ROWS_MAX {
            return Err(TooMany {
                what: "rows",
                max: ROWS_MAX,
            });
        }
        self.counts.num_lines += 1;
        match self.line(row_number, row) {
            Ok(line) => self.lines.push(line),
            Err(fate) => self.counts.end(fate),
        }
        if self.items.names.len() > NUM_ITEMS_MAX {
            return Err(TooMany {
                what: "items",
                max: NUM_ITEMS_MAX as u64, // widening
            });
        }
        Ok(())
    }

    fn line(&mut self, row_number: u64, row: Row) -> Result<Line, Fate> {
        let user = row.user.ok_or(Fate::NoUser)?;
        let item = row.item.ok_or(Fate::NoItem)?;
        if check_id(&user).is_err() || check_id(&item).is_err() {
            return Err(Fate::Name);
        }
        let occurred_at = row.occurred_at.ok_or(Fate::NoTime)?;
        let quantity = row.quantity.filter(|quantity| *quantity != 0.0);
        let quantity = quantity.ok_or(Fate::NoQuantity)?;
        if self.is_fee(&item) {
            return Err(Fate::Fee);
        }
        let price = row.price.filter(|price| *price >= self.rules.price_min);
        let price = price.ok_or(Fate::Price)?;
        Ok(Line {
            user_idx: self.users.idx(user),
            item_idx: self.items.idx(item),
            occurred_at,
            row: row_number,
            quantity,
            price,
            is_reduced: false,
        })
    }

    fn is_fee(&self, item: &str) -> bool {
        let item = item.to_lowercase();
        self.fees.iter().any(|fee| match fee.strip_suffix('*') {
            Some(beginning) => item.starts_with(beginning),
            None => item == *fee,
        })
    }

    /// Cleans what came in.
    #[must_use]
    pub(super) fn finish(mut self) -> Cleaned {
        let by_user_and_item = |line: &Line| (line.user_idx, line.item_idx);
        let mut lines = std::mem::take(&mut self.lines);
        lines.sort_unstable_by_key(|line| (by_user_and_item(line), line.occurred_at, line.row));
        let mut left = Vec::new();
        for group in lines.chunk_by(|a, b| by_user_and_item(a) == by_user_and_item(b)) {
            self.clean(group, &mut left);
        }
        drop(lines);
        self.counts.num_events = left.len() as u64; // widening
        let items = self.catalogue(&mut left);
        left.sort_unstable_by_key(|line| (line.occurred_at, line.row));
        let purchases = left.iter().map(|line| Purchase {
            user_idx: line.user_idx,
            item_idx: line.item_idx,
            occurred_at: line.occurred_at,
            quantity: line.quantity,
            row: line.row,
        });
        Cleaned {
            purchases: purchases.collect(),
            users: self.users.names,
            items,
            counts: self.counts,
        }
    }

    /// What is left of the lines of one user and item, which are in order of time.
    fn clean(&mut self, group: &[Line], left: &mut Vec<Line>) {
        let mut seen = HashSet::new();
        let mut open: Vec<Line> = Vec::new();
        let first_left = left.len();
        for line in group {
            let same = (
                line.occurred_at,
                line.quantity.to_bits(),
                line.price.to_bits(),
            );
            if self.rules.drop_duplicates && !seen.insert(same) {
                self.counts.end(Fate::Duplicate);
            } else if line.quantity > 0.0 {
                open.push(*line);
            } else {
                let fate = self.take_back(-line.quantity, &mut open);
                self.counts.end(fate);
            }
        }
        for line in open {
            if self.rules.quantity_max > 0.0 && line.quantity > self.rules.quantity_max {
                self.counts.end(Fate::QuantityOutlier);
                continue;
            }
            let merges = self.rules.merge_lines;
            match left[first_left..].last_mut() {
                Some(last) if merges && last.occurred_at == line.occurred_at => {
                    last.quantity += line.quantity;
                    last.is_reduced |= line.is_reduced;
                    self.counts.end(Fate::Merged);
                }
                _ => left.push(line),
            }
        }
        let reduced = left[first_left..].iter().filter(|line| line.is_reduced);
        self.counts.num_reduced += reduced.count() as u64; // usize fits u64
    }

    /// Undoes the newest of the open purchases by what was returned.
    fn take_back(&mut self, returned: f64, open: &mut Vec<Line>) -> Fate {
        if !self.rules.cancel_returns {
            return Fate::ReturnIgnored;
        }
        if open.is_empty() {
            return Fate::ReturnUnmatched;
        }
        let mut amount = returned;
        while let Some(newest) = open.last_mut() {
            if amount < newest.quantity {
                if amount > 0.0 {
                    newest.quantity -= amount;
                    newest.is_reduced = true;
                }
                return Fate::Return;
            }
            amount -= newest.quantity;
            open.pop();
            self.counts.end(Fate::Returned);
        }
        if amount > 0.0 {
            Fate::ReturnInExcess
        } else {
            Fate::Return
        }
    }

    /// Items that are left, by title; `left` ← their indices there.
    fn catalogue(&mut self, left: &mut [Line]) -> Vec<BoughtItem> {
        let mut prices: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
        let title = |line: &Line| self.items.names[line.item_idx as usize].as_str();
        for line in left.iter() {
            prices.entry(title(line)).or_default().push(line.price);
        }
        let idx_of: HashMap<&str, u32> = prices.keys().copied().zip(0..).collect();
        for line in left.iter_mut() {
            line.item_idx = idx_of[title(line)];
        }
        let items = prices.into_iter().map(|(title, mut prices)| {
            prices.sort_unstable_by(f64::total_cmp);
            BoughtItem {
                title: title.to_owned(),
                median_price: prices[prices.len() / 2],
            }
        });
        items.collect()
    }
}

#[cfg(test)]
mod tests;
