//! The taste of one person: a few liked values of each facet, which change with time.

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

use crate::facets::{Facet, ShopItem};
use crate::shop::Shop;

/// How many values of each facet someone likes, in the order of [`Facet::ALL`].
const NUM_LIKED: [usize; 4] = [2, 3, 3, 2];
/// How much more often a liked value is taken, in the order of [`Facet::ALL`].
const LIKED_WEIGHT: [f64; 4] = [9.0, 4.0, 2.5, 7.0];

/// What someone likes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Taste {
    /// Liked values by facet, in the order of [`Facet::ALL`].
    liked: [Vec<String>; 4],
}

impl Taste {
    pub(crate) fn new(values: &Values, rng: &mut StdRng) -> Self {
        let liked = Facet::ALL.map(|facet| {
            let all = &values.by_facet[facet.idx()];
            all.choose_multiple(rng, NUM_LIKED[facet.idx()])
                .cloned()
                .collect()
        });
        Self { liked }
    }

    /// Gives up one liked value for another.
    pub(crate) fn drift(&mut self, values: &Values, rng: &mut StdRng) {
        let facet = Facet::ALL[rng.random_range(0..Facet::ALL.len())];
        let Some(value) = values.by_facet[facet.idx()].choose(rng) else {
            return;
        };
        let liked = &mut self.liked[facet.idx()];
        if liked.is_empty() || liked.contains(value) {
            return;
        }
        let given_up = rng.random_range(0..liked.len());
        liked[given_up].clone_from(value);
    }

    /// How much more often `value` is taken than one that is not liked.
    pub(crate) fn value_weight(&self, facet: Facet, value: &str) -> f64 {
        let is_liked = self.liked[facet.idx()].iter().any(|liked| liked == value);
        if is_liked {
            LIKED_WEIGHT[facet.idx()]
        } else {
            1.0
        }
    }

    /// How much more often `item` is taken than one with nothing liked, its category left aside.
    pub(crate) fn weight(&self, item: &ShopItem) -> f64 {
        let facets = [Facet::Colour, Facet::Material, Facet::Style];
        facets
            .iter()
            .map(|facet| self.value_weight(*facet, item.facet(*facet)))
            .product()
    }
}

/// All values that a taste can be about.
#[derive(Debug)]
pub(crate) struct Values {
    by_facet: [Vec<String>; 4],
}

impl Values {
    pub(crate) fn of(shop: &Shop) -> Self {
        Self {
            by_facet: Facet::ALL.map(|facet| shop.values(facet)),
        }
    }

    pub(crate) fn facet(&self, facet: Facet) -> &[String] {
        &self.by_facet[facet.idx()]
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;
    use crate::shop::make_items;

    #[test]
    fn a_taste_drifts_but_keeps_its_size() -> anyhow::Result<()> {
        let shop = Shop::new(make_items(300, 1)?, 1);
        let values = Values::of(&shop);
        let mut rng = StdRng::seed_from_u64(2);
        let mut taste = Taste::new(&values, &mut rng);
        let before = taste.clone();
        for _ in 0..50 {
            taste.drift(&values, &mut rng);
        }
        assert_ne!(taste, before);
        assert_eq!(taste.liked.each_ref().map(Vec::len), NUM_LIKED);
        Ok(())
    }
}
