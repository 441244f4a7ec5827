//! A CrossEncoder as teacher of the Ranker's releases: soft scores from the texts of a catalogue.

use burn::tensor::Device;

use super::texts::user_text;
use super::{CrossEncoderError, CrossScorer};
use crate::config::Config;
use crate::train::teacher::TextTeacher;

/// Newest items of a history that are named to it, as `freshet cross-encoder` does where nothing else is said.
const HISTORY_LEN: usize = 3;
/// Of its probabilities: as they are.
const TEMPERATURE: f32 = 1.0;

/// A network and the texts that it reads.
#[derive(Debug, Clone)]
pub struct CrossTeacher {
    scorer: CrossScorer,
    /// By item index.
    texts: Vec<String>,
}

impl CrossTeacher {
    /// Teaches by `texts`, one for each item. Words for ratings are not among them: a history of events has none.
    #[must_use]
    pub fn new(scorer: CrossScorer, texts: Vec<String>) -> Self {
        Self { scorer, texts }
    }

    fn text(&self, item_idx: u32) -> &str {
        self.texts.get(item_idx as usize).map_or("", String::as_str)
    }
}

impl TextTeacher for CrossTeacher {
    fn shares(&self, history: &[u32], candidates: &[u32]) -> Result<Vec<f32>, String> {
        let newest = history.iter().rev().take(HISTORY_LEN);
        let user = user_text(newest.map(|item_idx| (self.text(*item_idx), None)));
        let items: Vec<&str> = candidates.iter().map(|idx| self.text(*idx)).collect();
        let shares = self.scorer.soft_scores(&user, &items, TEMPERATURE);
        shares.map_err(|error| error.to_string())
    }
}

/// The network in `release.teacher_dir`; `None` where none is named.
///
/// # Errors
/// A file is missing, too large or damaged, or they do not belong together.
pub fn from_config(
    config: &Config,
    device: &Device,
) -> Result<Option<CrossScorer>, CrossEncoderError> {
    let dir = config.release.teacher_dir.as_deref();
    dir.map(|dir| CrossScorer::load(dir, device)).transpose()
}
