//! Text augmentation: a warm fit reads item texts with words left out, so that it leans on no single word.
//!
//! Every pass reads each item's text either whole or as one of a few views of it, by chance. The views are made
//! and embedded once, before the fit: the encoder is far slower than a pass. Word dropping is the random deletion
//! of Wei and Zou 2019 ("EDA"). Afterwards all texts are whole again, and only whole ones are published.
//! Not here: the encoder (`text_source`).

use rand::Rng;
use rand::rngs::StdRng;
use shared_model::model::parameters::ParameterSet;

/// Embeddings of all items, `[num_items, text_dim]` each; none where texts are read whole.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TextViews {
    views: Vec<Vec<f32>>,
}

impl TextViews {
    /// From embeddings of the texts of all items with words left out.
    ///
    /// # Panics
    /// The views are not of one length.
    #[must_use]
    pub fn new(views: Vec<Vec<f32>>) -> Self {
        let is_even = views.windows(2).all(|pair| pair[0].len() == pair[1].len());
        assert!(is_even, "views are of the same items and encoder");
        Self { views }
    }

    /// The texts as they are; `None` where there are no views and nothing is to be put back.
    pub(super) fn whole(&self, parameters: &ParameterSet) -> Option<Vec<f32>> {
        let text = parameters.tensor("item.text");
        let is_fit = self
            .views
            .first()
            .is_some_and(|view| view.len() == text.len());
        is_fit.then(|| text.to_vec())
    }

    /// Gives every item its whole text or one of the views, each with the same chance.
    pub(super) fn draw(&self, parameters: &mut ParameterSet, whole: &[f32], rng: &mut StdRng) {
        let text_dim = parameters.spec.text_dim as usize; // u32 fits
        let text = parameters.tensor_mut("item.text");
        for (item_idx, row) in text.chunks_exact_mut(text_dim).enumerate() {
            let drawn = rng.random_range(0..=self.views.len());
            let source = self.views.get(drawn).map_or(whole, Vec::as_slice);
            row.copy_from_slice(&source[item_idx * text_dim..][..text_dim]);
        }
    }
}

/// A text without about `share` of its words; one at least is left.
#[must_use]
pub fn drop_words(text: &str, share: f32, rng: &mut StdRng) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    if words.is_empty() {
        return String::new();
    }
    let spared = rng.random_range(0..words.len());
    let words = words.into_iter().enumerate();
    let kept = words.filter(|(idx, _)| *idx == spared || rng.random::<f32>() >= share);
    kept.map(|(_, word)| word).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::init::init_parameters;
    use rand::SeedableRng;
    use shared_model::spec::ModelSpec;

    #[test]
    fn words_go_by_their_share_in_order_and_one_stays() {
        let mut rng = StdRng::seed_from_u64(1);
        let text = "the quick brown fox jumps over lazy dogs";
        let mut num_left = 0;
        for _ in 0..1000 {
            let dropped = drop_words(text, 0.25, &mut rng);
            let mut words = text.split(' ');
            assert!(
                dropped.split(' ').all(|word| words.any(|all| all == word)),
                "{dropped}"
            );
            num_left += dropped.split(' ').count();
        }
        assert!((num_left as f32 / 8000.0 - 0.78).abs() < 0.02, "{num_left}");
        assert_eq!(drop_words(text, 1.0, &mut rng).split(' ').count(), 1);
        assert_eq!(drop_words(text, 0.0, &mut rng), text);
        assert_eq!(drop_words(" ", 0.5, &mut rng), "");
    }

    #[test]
    fn every_item_reads_its_own_text_whole_or_as_a_view() {
        let spec = ModelSpec {
            text_dim: 2,
            ..ModelSpec::default()
        };
        let mut parameters = init_parameters(&spec, 50, 1);
        let text = |source: usize| -> Vec<f32> {
            (0..50)
                .flat_map(|item| [source as f32, item as f32])
                .collect()
        };
        parameters.tensor_mut("item.text").copy_from_slice(&text(2));
        let views = TextViews::new(vec![text(0), text(1)]);
        let whole = views.whole(&parameters).expect("there are views");
        let mut rng = StdRng::seed_from_u64(1);
        views.draw(&mut parameters, &whole, &mut rng);
        let mut num_of = [0; 3];
        for (item, row) in parameters.tensor("item.text").chunks_exact(2).enumerate() {
            assert_eq!(row[1], item as f32);
            num_of[row[0] as usize] += 1;
        }
        assert!(num_of.iter().all(|num| *num > 5), "{num_of:?}");
        assert_eq!(TextViews::default().whole(&parameters), None);
    }
}
