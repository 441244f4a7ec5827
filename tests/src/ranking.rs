//! Comparing numbers and rankings of two backends, which may round differently.

use anyhow::{Context, ensure};
use serde_json::Value;
use shared_model::edge::engine::RankedItem;
use shared_model::ids::ItemId;

/// Score difference below which two backends may swap items: f32 sums of some hundred terms of order one, taken in
/// another order, differ by about 1e-5; the exponentials of the attention add a digit.
pub const NEAR_TIE: f32 = 1e-3;

/// Fails unless the page says the expected number, give or take `tolerance`.
///
/// # Errors
/// Names both numbers, or says that the page's is none.
pub fn check_close(tolerance: f64, expected: f64, actual: &Value) -> anyhow::Result<()> {
    let actual = actual.as_f64().context("a number")?;
    let is_close = (expected - actual).abs() <= tolerance;
    ensure!(is_close, "expected {expected}, the page says {actual}");
    Ok(())
}

/// Fails unless both rank alike: at every place the same score, and the same item unless it is a near tie.
///
/// # Errors
/// Names the first place that differs.
pub fn check_alike(expected: &[RankedItem], actual: &[RankedItem]) -> anyhow::Result<()> {
    ensure!(
        expected.len() == actual.len(),
        "{} items ranked, expected {}",
        actual.len(),
        expected.len()
    );
    for (place, (expected, actual)) in expected.iter().zip(actual).enumerate() {
        let difference = (expected.score - actual.score).abs();
        ensure!(
            difference <= NEAR_TIE,
            "place {place}: {actual:?}, expected {expected:?}"
        );
    }
    for (place, item) in actual.iter().enumerate() {
        if let Some(twin) = expected.iter().find(|other| other.item_id == item.item_id) {
            let difference = (twin.score - item.score).abs();
            ensure!(
                difference <= NEAR_TIE,
                "place {place}: {item:?} is {} elsewhere",
                twin.score
            );
        }
    }
    Ok(())
}

/// Zero-based place of an item, the number of items where it is not ranked.
#[must_use]
pub fn place_of(ranked: &[RankedItem], item_id: &ItemId) -> usize {
    ranked
        .iter()
        .position(|item| item.item_id == *item_id)
        .unwrap_or(ranked.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranked(pairs: &[(&str, f32)]) -> Vec<RankedItem> {
        let item = |(item_id, score): &(&str, f32)| RankedItem {
            item_id: ItemId::new(*item_id).expect("valid"),
            score: *score,
        };
        pairs.iter().map(item).collect()
    }

    #[test]
    fn near_ties_may_swap_and_nothing_else_may() {
        let expected = ranked(&[("a", 2.0), ("b", 1.0), ("c", 0.9995)]);
        assert!(check_alike(&expected, &ranked(&[("a", 2.0), ("c", 1.0), ("b", 0.9999)])).is_ok());
        assert!(check_alike(&expected, &ranked(&[("b", 2.0), ("a", 1.0), ("c", 0.9995)])).is_err());
        assert!(check_alike(&expected, &ranked(&[("a", 2.1), ("b", 1.0), ("c", 0.9995)])).is_err());
        assert!(check_alike(&expected, &expected[..2]).is_err());
    }

    #[test]
    fn an_item_that_is_not_ranked_comes_after_all_others() {
        let ranked = ranked(&[("a", 2.0), ("b", 1.0)]);
        assert_eq!(place_of(&ranked, &ItemId::new("b").expect("valid")), 1);
        assert_eq!(place_of(&ranked, &ItemId::new("z").expect("valid")), 2);
    }
}
