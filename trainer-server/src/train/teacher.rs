//! Teachers: whose probabilities over items a step stays near, beside what happened (Hinton et al. 2015).
//!
//! A version of the Ranker speaks about every target and every candidate of a batch. A teacher that reads texts
//! costs a pass over two texts for each answer, so it is asked about few: the last target with a history of each
//! of some windows, over some of the candidates. Both enter the loss as the cross-entropy of the student's softmax
//! over the same items. Not here: what a teacher knows (`cross_encoder::teacher`), and the loss (`losses`).

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use shared_model::model::parameters::ParameterSet;

use super::TrainError;
use super::full_batch::Batch;

/// Windows of a batch that a teacher of texts is asked about.
const LESSON_TARGETS_MAX: usize = 8;
/// Candidates that it is asked about, for each of them.
const LESSON_CANDIDATES_MAX: usize = 16;

/// Scores items for a user by what they are called.
pub trait TextTeacher: Debug + Send + Sync {
    /// Probabilities over `candidates`, which sum to 1, for a user who had `history`, oldest first; both are item
    /// indices.
    ///
    /// # Errors
    /// Why it cannot tell.
    fn shares(&self, history: &[u32], candidates: &[u32]) -> Result<Vec<f32>, String>;
}

/// Who teaches.
#[derive(Debug, Clone)]
pub enum Teacher {
    /// Weights of good versions, with the items of the student: the mean of their probabilities, an ensemble where there
    /// are several.
    Versions(Vec<Arc<ParameterSet>>),
    /// Somebody who reads texts.
    Texts(Arc<dyn TextTeacher>),
}

impl PartialEq for Teacher {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Versions(own), Self::Versions(other)) => own == other,
            (Self::Texts(own), Self::Texts(other)) => Arc::ptr_eq(own, other),
            (Self::Versions(_), Self::Texts(_)) | (Self::Texts(_), Self::Versions(_)) => false,
        }
    }
}

/// What a teacher of texts says of a batch.
pub(super) struct Lesson {
    /// Which targets, at least one.
    pub(super) targets: Vec<i32>,
    /// Which of the candidates.
    pub(super) candidates: Vec<i32>,
    /// `[targets.len(), candidates.len()]`.
    pub(super) shares: Vec<f32>,
}

impl Lesson {
    /// Asks about a batch; `None` where no target has a history. Draws nothing: which candidates follows from the
    /// batch's seed.
    ///
    /// # Errors
    /// The teacher cannot tell, or says no probabilities.
    pub(super) fn of(
        teacher: &dyn TextTeacher,
        batch: &Batch,
        step: u64,
    ) -> Result<Option<Self>, TrainError> {
        let num_candidates = batch.candidates.len();
        let num_asked = num_candidates.min(LESSON_CANDIDATES_MAX);
        let (first, stride) = (
            (batch.dropout_seed % num_candidates as u64) as usize, // below it
            num_candidates / num_asked,
        );
        let candidates: Vec<i32> = (0..num_asked)
            .map(|idx| ((first + idx * stride) % num_candidates) as i32) // fits: NUM_ITEMS_MAX is 2^20
            .collect();
        let item_of = |row: i32| batch.rows[row as usize];
        let asked: Vec<u32> = candidates
            .iter()
            .map(|place| item_of(batch.candidates[*place as usize]))
            .collect();
        let mut lesson = Self {
            targets: Vec::new(),
            candidates,
            shares: Vec::new(),
        };
        for (target_idx, history) in last_targets(batch).into_values().take(LESSON_TARGETS_MAX) {
            let history: Vec<u32> = history.iter().map(|row| item_of(*row)).collect();
            let refused = |reason| TrainError::Teacher { step, reason };
            let shares = teacher.shares(&history, &asked).map_err(refused)?;
            if shares.len() != asked.len() {
                let reason = format!("{} probabilities for {} items", shares.len(), asked.len());
                return Err(refused(reason));
            }
            let is_share = |share: &f32| (0.0..=1.0).contains(share);
            if let Some(place) = shares.iter().position(|share| !is_share(share)) {
                let (item_idx, share) = (asked[place], shares[place]);
                let reason =
                    format!("the probability of item {item_idx} is {share}, expected 0 to 1");
                return Err(refused(reason));
            }
            lesson.targets.push(target_idx);
            lesson.shares.extend(shares);
        }
        Ok((!lesson.targets.is_empty()).then_some(lesson))
    }
}

/// By sequence: its last next-item target that has a history, and the rows of that history.
fn last_targets(batch: &Batch) -> BTreeMap<usize, (i32, &[i32])> {
    let sequences = &batch.sequences;
    let (num_positions, num_events) = (sequences.num_positions(), sequences.num_events);
    let mut last = BTreeMap::new();
    for (target_idx, target) in batch.targets.iter().enumerate() {
        let position = target.position as usize; // not negative
        let (sequence, num_known) = (position / num_positions, position % num_positions);
        if target.target_weight > 0.0 && num_known > 0 {
            let rows = &sequences.item_rows[sequence * num_events..][..num_known];
            last.insert(sequence, (target_idx as i32, rows)); // fits: a batch is small
        }
    }
    last
}
