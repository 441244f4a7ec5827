//! The made-up catalogue, and how people choose from it.

use std::collections::{BTreeMap, HashSet};

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use crate::facets::{Facet, ShopItem};
use crate::taste::Taste;
use crate::trends::Trends;
use crate::vocabulary::{CATEGORIES, COLLECTIONS, COLOURS, STYLES};

/// Tries for a title that is not taken before the shop is called full.
const TITLE_TRIES_MAX: usize = 1000;

/// Makes up `num_items` items with distinct titles.
///
/// # Errors
/// The words do not give so many titles.
pub(crate) fn make_items(num_items: usize, seed: u64) -> anyhow::Result<Vec<ShopItem>> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut titles = HashSet::new();
    let mut items = Vec::with_capacity(num_items);
    for item_idx in 0..num_items {
        let fresh = (0..TITLE_TRIES_MAX)
            .map(|_| make_item(item_idx, &mut rng))
            .find(|item| !titles.contains(&item.title));
        let Some(item) = fresh else {
            anyhow::bail!("the vocabulary gives only about {item_idx} titles")
        };
        titles.insert(item.title.clone());
        items.push(item);
    }
    Ok(items)
}

fn make_item(item_idx: usize, rng: &mut StdRng) -> ShopItem {
    let category = CATEGORIES.choose(rng).expect("the list is not empty");
    let noun = category.nouns.choose(rng).expect("the list is not empty");
    let material = category
        .materials
        .choose(rng)
        .expect("the list is not empty");
    let (colour, _value) = COLOURS.choose(rng).expect("the list is not empty");
    let collection_idx = rng.random_range(0..COLLECTIONS.len());
    let style = STYLES[collection_idx % STYLES.len()];
    let title = format!(
        "{} {material} {noun}, {colour}",
        COLLECTIONS[collection_idx]
    );
    let price = (category.price * rng.random_range(0.5..1.9)).round() - 0.05;
    let facets = [
        category.name.to_owned(),
        (*colour).to_owned(),
        (*material).to_owned(),
        style.to_owned(),
    ];
    ShopItem {
        item_id: format!("item-{:04}", item_idx + 1),
        title,
        price,
        facets,
    }
}

/// A catalogue made ready for choosing.
pub(crate) struct Shop {
    pub(crate) items: Vec<ShopItem>,
    /// Items by category, both in a fixed order.
    by_category: BTreeMap<String, Vec<usize>>,
    /// Some things sell better than others, whoever comes.
    popularity: Vec<f64>,
}

/// Chance that the next thing looked at is of the same category as the last.
const STAY_CHANCE: f64 = 0.5;
/// Chance that it is of the companion category.
const COMPANION_CHANCE: f64 = 0.2;

impl Shop {
    pub(crate) fn new(items: Vec<ShopItem>, seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed ^ 0x5eed_0001);
        let popularity = items
            .iter()
            .map(|_| rng.random_range(0.02_f64..1.0).powi(2))
            .collect();
        let mut by_category: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (item_idx, item) in items.iter().enumerate() {
            by_category
                .entry(item.facet(Facet::Category).to_owned())
                .or_default()
                .push(item_idx);
        }
        Self {
            items,
            by_category,
            popularity,
        }
    }

    /// All values of a facet, sorted.
    pub(crate) fn values(&self, facet: Facet) -> Vec<String> {
        let mut values: Vec<String> = self
            .items
            .iter()
            .map(|item| item.facet(facet).to_owned())
            .collect();
        values.sort();
        values.dedup();
        values.retain(|value| !value.is_empty());
        values
    }

    /// The item that someone with this taste takes next, after the item at `last`.
    pub(crate) fn choose(
        &self,
        taste: &Taste,
        trends: &Trends,
        last: Option<usize>,
        at_secs: i64,
        rng: &mut StdRng,
    ) -> usize {
        let category = self.choose_category(taste, trends, last, at_secs, rng);
        let item_idxs = &self.by_category[&category];
        let weight = |item_idx: usize| {
            let item = &self.items[item_idx];
            self.popularity[item_idx] * taste.weight(item) * trends.weight(item, at_secs)
        };
        let weights: Vec<f64> = item_idxs.iter().map(|item_idx| weight(*item_idx)).collect();
        item_idxs[draw(&weights, rng)]
    }

    fn choose_category(
        &self,
        taste: &Taste,
        trends: &Trends,
        last: Option<usize>,
        at_secs: i64,
        rng: &mut StdRng,
    ) -> String {
        if let Some(last) = last {
            let current = self.items[last].facet(Facet::Category);
            let lot: f64 = rng.random();
            if lot < STAY_CHANCE {
                return current.to_owned();
            }
            let companion =
                companion_of(current).filter(|name| self.by_category.contains_key(*name));
            if let Some(companion) = companion.filter(|_| lot < STAY_CHANCE + COMPANION_CHANCE) {
                return companion.to_owned();
            }
        }
        let names: Vec<&String> = self.by_category.keys().collect();
        let weight = |name: &str| {
            taste.value_weight(Facet::Category, name)
                * trends.value_weight(Facet::Category, name, at_secs)
        };
        let weights: Vec<f64> = names.iter().map(|name| weight(name)).collect();
        names[draw(&weights, rng)].clone()
    }
}

fn companion_of(category: &str) -> Option<&'static str> {
    let found = CATEGORIES
        .iter()
        .find(|candidate| candidate.name == category)?;
    Some(CATEGORIES[found.companion].name)
}

/// Draws an index with probability proportional to its weight, all of them positive.
pub(crate) fn draw(weights: &[f64], rng: &mut StdRng) -> usize {
    let total: f64 = weights.iter().sum();
    let mut lot = rng.random_range(0.0..1.0) * total;
    for (idx, weight) in weights.iter().enumerate() {
        lot -= weight;
        if lot < 0.0 {
            return idx;
        }
    }
    weights.len() - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_catalogue_with_distinct_titles() -> anyhow::Result<()> {
        let items = make_items(500, 7)?;
        assert_eq!(items, make_items(500, 7)?);
        let titles: HashSet<&str> = items.iter().map(|item| item.title.as_str()).collect();
        assert_eq!(titles.len(), 500);
        Ok(())
    }

    #[test]
    fn draws_follow_their_weights() {
        let mut rng = StdRng::seed_from_u64(1);
        let hits = (0..1000)
            .filter(|_| draw(&[1.0, 0.0, 3.0], &mut rng) == 2)
            .count();
        assert!((650..850).contains(&hits), "{hits}");
    }
}
