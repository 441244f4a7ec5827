//! Fashions: for a while everybody takes more of one category, colour or style.

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

use crate::facets::{Facet, ShopItem};
use crate::taste::Values;

/// One fashion.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Trend {
    facet: Facet,
    value: String,
    starts_at_secs: i64,
    length_secs: i64,
    /// How much more of it is taken at the peak.
    strength: f64,
}

impl Trend {
    /// Rises and falls like half a sine; 1 outside its time.
    fn weight(&self, at_secs: i64) -> f64 {
        let elapsed = at_secs - self.starts_at_secs;
        if elapsed <= 0 || elapsed >= self.length_secs {
            return 1.0;
        }
        // Both are far below 2^53, so nothing is lost.
        let share = elapsed as f64 / self.length_secs as f64;
        1.0 + self.strength * (share * std::f64::consts::PI).sin()
    }
}

/// All fashions of a stretch of time.
#[derive(Debug, Default)]
pub(crate) struct Trends {
    trends: Vec<Trend>,
}

/// Facets that fashions are about.
const FASHIONABLE: [Facet; 3] = [Facet::Category, Facet::Colour, Facet::Style];

impl Trends {
    /// Fashions from `starts_at_secs` to `ends_at_secs` with a mean length of `length_secs`, about two at a time.
    pub(crate) fn new(
        values: &Values,
        starts_at_secs: i64,
        ends_at_secs: i64,
        length_secs: i64,
        rng: &mut StdRng,
    ) -> Self {
        let mut trends = Vec::new();
        let mut at_secs = starts_at_secs - length_secs / 2;
        while at_secs < ends_at_secs {
            let facet = *FASHIONABLE.choose(rng).expect("the list is not empty");
            if let Some(value) = values.facet(facet).choose(rng) {
                let length_secs = rng.random_range(length_secs / 2..=length_secs * 3 / 2);
                let strength = rng.random_range(3.0..9.0);
                trends.push(Trend {
                    facet,
                    value: value.clone(),
                    starts_at_secs: at_secs,
                    length_secs,
                    strength,
                });
            }
            at_secs += (length_secs / 2).max(1);
        }
        Self { trends }
    }

    pub(crate) fn value_weight(&self, facet: Facet, value: &str, at_secs: i64) -> f64 {
        let matching = self
            .trends
            .iter()
            .filter(|trend| trend.facet == facet && trend.value == value);
        matching.map(|trend| trend.weight(at_secs)).product()
    }

    /// The factor of an item, its category left aside.
    pub(crate) fn weight(&self, item: &ShopItem, at_secs: i64) -> f64 {
        let facets = [Facet::Colour, Facet::Style];
        facets
            .iter()
            .map(|facet| self.value_weight(*facet, item.facet(*facet), at_secs))
            .product()
    }

    /// What is in fashion, the strongest first.
    pub(crate) fn current(&self, at_secs: i64) -> Vec<&str> {
        let mut rising: Vec<(&str, f64)> = self
            .trends
            .iter()
            .map(|trend| (trend.value.as_str(), trend.weight(at_secs)))
            .collect();
        rising.retain(|(_, weight)| *weight > 1.5);
        rising.sort_by(|a, b| b.1.total_cmp(&a.1));
        rising.into_iter().map(|(value, _)| value).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trend_comes_and_goes() {
        let trend = Trend {
            facet: Facet::Style,
            value: "Boho".into(),
            starts_at_secs: 100,
            length_secs: 100,
            strength: 4.0,
        };
        assert_eq!(trend.weight(100), 1.0);
        assert!((trend.weight(150) - 5.0).abs() < 1e-9);
        assert_eq!(trend.weight(200), 1.0);
    }
}
