//! Lists of the Ranker for a scene: a warm fit over the first 80 % of the events, then frozen.
//!
//! Histories go on as pages keep them; nothing is learned from the stream. The learner itself lies in
//! `learner`, and the fit without a server in `evaluate::offline`.

use indicatif::ProgressBar;
use shared_model::model::scorer::Query as ScoreQuery;
use shared_model::model::sequence::{Sequence, Token};

use super::CrossEncoderError;
use super::scene::{Scene, WARM_SHARE, top};
use crate::baselines::timelines::Query;
use crate::dataset::Dataset;
use crate::evaluate::offline::{self, Offline};
use crate::replay::ReplayError;
use crate::replay::walk::FrozenVersion;

/// Ranks the lists of the moments that have one.
pub(super) fn rank(
    dataset: &Dataset,
    scene: &mut Scene,
    list_len: usize,
    progress: &ProgressBar,
) -> Result<(), CrossEncoderError> {
    let config = offline::config(None).map_err(ReplayError::from)?;
    let learned = &dataset.events[..dataset.split_at(WARM_SHARE)];
    let version = Offline::new(config)?.fit(dataset, learned, progress)?;
    for moment_idx in 0..scene.stream.len() {
        if !scene.stream[moment_idx].has_list {
            continue;
        }
        let query = scene.stream[moment_idx].query;
        let scores = scores(dataset, &version, scene, &query)?;
        let removed = scene.timelines.removed(&query);
        scene.stream[moment_idx].list = top(&scores, removed, list_len);
    }
    Ok(())
}

/// Scores of all items of the dataset; minus infinity for those that the version lacks.
fn scores(
    dataset: &Dataset,
    version: &FrozenVersion,
    scene: &Scene,
    query: &Query,
) -> Result<Vec<f32>, CrossEncoderError> {
    let history_len = version.state.spec.history_len as usize; // fits: usize has at least 32 bits here
    let known = scene.timelines.history(query).iter().rev();
    let known = known.filter_map(|seen| {
        Some(Token {
            item_idx: version.rows.row(seen.item_idx)?,
            kind: dataset.kind,
            occurred_at: seen.occurred_at,
        })
    });
    let mut tokens: Vec<Token> = known.take(history_len).collect();
    tokens.reverse();
    let asked = ScoreQuery {
        sequence_idx: 0,
        num_known: tokens.len(),
        now_millis: query.occurred_at,
    };
    let sequence = Sequence {
        tokens,
        now_millis: query.occurred_at,
    };
    let scores = pollster::block_on(version.ready.scorer.score(&[sequence], &[asked]))
        .map_err(ReplayError::from)?;
    let of_item = |item_idx: u32| {
        let row = version.rows.row(item_idx);
        row.map_or(f32::NEG_INFINITY, |row| scores[row as usize])
    };
    let num_items = dataset.items.len() as u32; // fits: NUM_ITEMS_MAX is 2^20
    Ok((0..num_items).map(of_item).collect())
}
