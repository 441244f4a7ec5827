//! The scene: a dataset's stream, ranked by texts alone, and its titles as people write them.
//!
//! Of the stream the last fifth is asked about, items new to the user, not sampled (`baselines::text_only`). Of the
//! titles a few hundred are spoiled in every way; each should still find its item.

use std::collections::BTreeMap;

use burn::tensor::Device;
use shared_model::text::{HostTextEncoder, PackedEncoder, TextError, TextTokenizer, TokenizedText};

use super::{LadderError, Noise};
use crate::baselines::ranked::{Ranked, TOP_LEN};
use crate::baselines::text_fidelity::{TextQuestions, mean_gain};
use crate::baselines::timelines::Query;
use crate::dataset::{Dataset, DatasetEvent};
use crate::text_pack::PackSource;

/// Titles that are spoiled, evenly spread.
const NUM_SPOILED: usize = 400;
const SEED: u64 = 1;

/// What encoders are compared on.
pub struct Scene<'a> {
    pub(super) past: &'a [DatasetEvent],
    questions: TextQuestions,
    pub(super) num_items: usize,
    pub(super) titles: Vec<String>,
    /// Titles but those of items that nobody took before the last fifth and somebody in it.
    known_titles: Vec<String>,
    /// Items whose titles are spoiled.
    pub(super) spoiled_items: Vec<usize>,
    spoiled: BTreeMap<Noise, Vec<String>>,
}

/// What one encoder makes of a scene.
#[derive(Debug, Clone)]
pub struct Answers {
    /// Embeddings of the titles, `[items, dim]`, of length 1.
    pub rows: Vec<f32>,
    /// By query.
    pub ranked: Vec<Ranked>,
    /// Embeddings of spoiled titles, `[spoiled items, dim]`.
    pub spoiled: BTreeMap<Noise, Vec<f32>>,
}

impl<'a> Scene<'a> {
    /// The last fifth of a stream.
    ///
    /// # Errors
    /// It has no event of an item new to its user, or there are too few items for a list.
    pub fn new(dataset: &'a Dataset) -> Result<Self, LadderError> {
        let num_items = dataset.items.len();
        let nothing = |reason: String| LadderError::NothingToCompare { reason };
        if num_items <= TOP_LEN {
            return Err(nothing(format!("{num_items} items make no list")));
        }
        let questions = TextQuestions::of(dataset);
        if questions.queries().is_empty() {
            let reason = "the last fifth of the stream has no item that is new to its user";
            return Err(nothing(reason.to_owned()));
        }
        let titles: Vec<String> = dataset.items.iter().map(|item| item.full_text()).collect();
        let known_titles = known_titles(&titles, questions.past(dataset), questions.queries());
        let stride = num_items.div_ceil(NUM_SPOILED);
        let spoiled_items: Vec<usize> = (0..num_items).step_by(stride).collect();
        let clean: Vec<String> = spoiled_items
            .iter()
            .map(|item| titles[*item].clone())
            .collect();
        let common = common_words(&titles);
        let spoil = |noise: Noise| (noise, noise.spoil(&clean, &common, SEED));
        Ok(Self {
            past: questions.past(dataset),
            spoiled: Noise::ALL.map(spoil).into(),
            questions,
            num_items,
            titles,
            known_titles,
            spoiled_items,
        })
    }

    /// Texts of all items.
    #[must_use]
    pub fn titles(&self) -> &[String] {
        &self.titles
    }

    /// Texts that an encoder may learn from if what it says of new items is to be measured: not those of items that were
    /// taken in the last fifth for the first time.
    #[must_use]
    pub fn known_titles(&self) -> &[String] {
        &self.known_titles
    }

    /// What is asked of the stream.
    pub(super) fn queries(&self) -> &[Query] {
        self.questions.queries()
    }

    /// Answers of an encoder in f32.
    ///
    /// # Errors
    /// It is not sound.
    pub fn of_parts(&self, parts: &PackSource, device: &Device) -> Result<Answers, LadderError> {
        let encoder = parts.encoder(device)?;
        self.answers(encoder.tokenizer(), |tokens| {
            encoder.encoder().encode(tokens)
        })
    }

    /// Answers of an encoder with the weights that pages have. It computes in f32: the kernels of pages round what goes
    /// through the network to 14 bits, which moves cosines by some ten-thousandths and takes many times as long here.
    ///
    /// # Errors
    /// It is not sound.
    pub fn of_packed(&self, packed: &[u8], device: &Device) -> Result<Answers, LadderError> {
        let packed = PackedEncoder::from_bytes(packed.to_vec())?;
        self.of_parts(&PackSource::of_packed(packed), device)
    }

    fn answers(
        &self,
        tokenizer: &TextTokenizer,
        encode: impl Fn(&[TokenizedText]) -> Result<Vec<f32>, TextError>,
    ) -> Result<Answers, LadderError> {
        let embed = |texts: &[String]| {
            let tokens = texts.iter().map(|text| tokenizer.tokenize(text));
            encode(&tokens.collect::<Result<Vec<_>, _>>()?)
        };
        let mut spoiled = BTreeMap::new();
        for (noise, texts) in &self.spoiled {
            spoiled.insert(*noise, embed(texts)?);
        }
        self.of_rows(embed(&self.titles)?, spoiled)
    }

    /// Answers by embeddings.
    pub(super) fn of_rows(
        &self,
        rows: Vec<f32>,
        spoiled: BTreeMap<Noise, Vec<f32>>,
    ) -> Result<Answers, LadderError> {
        let ranked = self.questions.ranked(&rows);
        let ranked = ranked.ok_or_else(|| LadderError::NothingToCompare {
            reason: "the titles have no embeddings".to_owned(),
        })?;
        Ok(Answers {
            rows,
            ranked,
            spoiled,
        })
    }

    /// Of ranking by text alone.
    #[must_use]
    pub fn ndcg_at_10(&self, answers: &Answers) -> f64 {
        mean_gain(&answers.ranked)
    }

    /// Share of the spoiled titles whose item is among the ten nearest of `rows`, which an index was made of.
    #[must_use]
    pub fn found(&self, rows: &[f32], spoiled: &[f32]) -> f64 {
        let dim = rows.len() / self.num_items;
        let texts = self.spoiled_items.iter().zip(spoiled.chunks_exact(dim));
        let found = texts.filter(|(item, text)| {
            let own = dot(&rows[*item * dim..][..dim], text);
            let better = rows.chunks_exact(dim).filter(|row| dot(row, text) > own);
            better.count() < TOP_LEN
        });
        found.count() as f64 / self.spoiled_items.len() as f64 // counts fit f64
    }
}

fn known_titles(titles: &[String], past: &[DatasetEvent], asked: &[Query]) -> Vec<String> {
    let mut is_new = vec![false; titles.len()];
    for query in asked {
        is_new[query.item_idx as usize] = true;
    }
    for event in past {
        is_new[event.item_idx as usize] = false;
    }
    let known = titles.iter().zip(is_new).filter(|(_, is_new)| !is_new);
    known.map(|(title, _)| title.clone()).collect()
}

/// Tokenizer and network of a packed file.
///
/// # Errors
/// The file is not sound.
pub(super) fn opened(packed: &[u8]) -> Result<(TextTokenizer, HostTextEncoder), LadderError> {
    Ok(PackedEncoder::from_bytes(packed.to_vec())?.open()?)
}

/// Words of the titles, the most common first; equally common ones in the order of the alphabet.
fn common_words(titles: &[String]) -> Vec<String> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for word in titles.iter().flat_map(|title| title.split_whitespace()) {
        *counts.entry(word).or_default() += 1;
    }
    let mut words: Vec<(&str, usize)> = counts.into_iter().collect();
    words.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    words.into_iter().map(|(word, _)| word.to_owned()).collect()
}

pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}
