//! Ranks of many events under one version: what `rank()` in a page would give for each, in bulk.
//!
//! Every event is ranked from the last `history_len` events of its user, as a page does.
//! As long as a user's whole history fits, consecutive events of the user share one causal forward
//! pass, since position `j` sees only the first `j` events; beyond that each has a window of its own.

use std::collections::HashMap;

use shared_model::codec::state::CodeState;
use shared_model::edge::engine::ReadyVersion;
use shared_model::event::EventKind;
use shared_model::model::scorer::{Query as ScoreQuery, ScoreError};
use shared_model::model::sequence::{Sequence, Token};

use crate::baselines::ranked::{NO_ITEM, Ranked, Scores};
use crate::baselines::timelines::{Query, Seen, Timelines};
use crate::dataset::Dataset;

/// Sequences in one forward pass; they are sorted by length first, so that padding stays short.
const SEQUENCES_PER_PASS: usize = 32;

/// Row of every dataset item in a version, `None` where the version lacks it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ItemRows {
    rows: Vec<Option<u32>>,
    /// The other way: dataset item of every row, [`NO_ITEM`] where the dataset lacks it.
    items: Vec<u32>,
    /// Items of the version, to notice that it grew.
    num_items: usize,
}

impl ItemRows {
    /// Looks up every item of the dataset.
    #[must_use]
    pub fn new(dataset: &Dataset, ready: &ReadyVersion) -> Self {
        let rows: Vec<Option<u32>> = dataset
            .items
            .iter()
            .map(|item| ready.item_idx(&item.item_id))
            .collect();
        let mut items = vec![NO_ITEM; ready.scorer.num_items()];
        for (item_idx, row) in rows.iter().enumerate() {
            if let Some(row) = row {
                items[*row as usize] = item_idx as u32; // fits: NUM_ITEMS_MAX is 2^20
            }
        }
        Self {
            rows,
            items,
            num_items: ready.scorer.num_items(),
        }
    }

    /// Looks again if the version has other items than before.
    pub fn refresh(&mut self, dataset: &Dataset, ready: &ReadyVersion) {
        if ready.scorer.num_items() != self.num_items {
            *self = Self::new(dataset, ready);
        }
    }

    /// A list of rows as a list of dataset items.
    fn to_items(&self, mut ranked: Ranked) -> Ranked {
        for listed in &mut ranked.top {
            *listed = self.items.get(*listed as usize).copied().unwrap_or(NO_ITEM);
        }
        ranked
    }

    /// Row of a dataset item.
    #[must_use]
    pub fn row(&self, item_idx: u32) -> Option<u32> {
        self.rows[item_idx as usize]
    }
}

/// A version and how the dataset's items lie in it.
#[derive(Debug, Clone, Copy)]
pub struct RankModel<'a> {
    /// Scorer and index.
    pub ready: &'a ReadyVersion,
    /// Codes it was built from.
    pub state: &'a CodeState,
    /// Rows of the dataset's items.
    pub rows: &'a ItemRows,
    /// What every event of the dataset is.
    pub kind: EventKind,
}

/// Ranks the queried items among all items; parallel to `queries`.
///
/// An item that the version does not hold is not ranked, which counts as a miss.
///
/// # Errors
/// The device failed.
pub async fn score_chunk(
    model: RankModel<'_>,
    queries: &[Query],
    timelines: &Timelines,
) -> Result<Vec<Ranked>, ScoreError> {
    let mut plan = plan_sequences(model, queries, timelines);
    plan.sort_by_key(|planned| planned.sequence.tokens.len());
    let mut ranked = vec![Ranked::NOTHING; queries.len()];
    for pass in plan.chunks(SEQUENCES_PER_PASS) {
        let sequences: Vec<Sequence> = pass
            .iter()
            .map(|planned| planned.sequence.clone())
            .collect();
        let asked: Vec<(usize, Asked)> = pass
            .iter()
            .enumerate()
            .flat_map(|(sequence_idx, planned)| {
                planned
                    .asked
                    .iter()
                    .map(move |asked| (sequence_idx, *asked))
            })
            .collect();
        let score_queries: Vec<ScoreQuery> = asked
            .iter()
            .map(|(sequence_idx, asked)| ScoreQuery {
                sequence_idx: *sequence_idx,
                num_known: asked.num_known,
                now_millis: queries[asked.query_idx].occurred_at,
            })
            .collect();
        let scores = model.ready.scorer.score(&sequences, &score_queries).await?;
        let rows = scores.chunks_exact(model.ready.scorer.num_items());
        for ((_, asked), row) in asked.iter().zip(rows) {
            let query = &queries[asked.query_idx];
            let removed = timelines
                .removed(query)
                .iter()
                .filter_map(|item_idx| model.rows.row(*item_idx));
            let target = model.rows.row(query.item_idx);
            let of_rows = Ranked::of(row, target, removed, Scores::Logits);
            ranked[asked.query_idx] = model.rows.to_items(of_rows);
        }
    }
    Ok(ranked)
}

/// Which query, and after how many events of its sequence.
#[derive(Debug, Clone, Copy)]
struct Asked {
    query_idx: usize,
    num_known: usize,
}

#[derive(Debug, Clone)]
struct PlannedSequence {
    sequence: Sequence,
    asked: Vec<Asked>,
}

fn plan_sequences(
    model: RankModel<'_>,
    queries: &[Query],
    timelines: &Timelines,
) -> Vec<PlannedSequence> {
    let history_len = model.state.spec.history_len as usize;
    let mut plan: Vec<PlannedSequence> = Vec::new();
    let mut shared_of_user: HashMap<u32, usize> = HashMap::new();
    for (query_idx, query) in queries.iter().enumerate() {
        let history = timelines.history(query);
        let tokens = tokens(model, history, history_len);
        let is_shareable = tokens.len() == history.len();
        let asked = Asked {
            query_idx,
            num_known: tokens.len(),
        };
        let sequence = Sequence {
            tokens,
            now_millis: query.occurred_at,
        };
        match shared_of_user.get(&query.user_idx) {
            Some(plan_idx) if is_shareable => {
                plan[*plan_idx].sequence = sequence; // extends what was planned: same user, whole history
                plan[*plan_idx].asked.push(asked);
            }
            _ => {
                if is_shareable {
                    shared_of_user.insert(query.user_idx, plan.len());
                }
                plan.push(PlannedSequence {
                    sequence,
                    asked: vec![asked],
                });
            }
        }
    }
    plan
}

/// The newest events as the model reads them; those of items that the version lacks are skipped, as in a page.
fn tokens(model: RankModel<'_>, history: &[Seen], len_max: usize) -> Vec<Token> {
    let known = history.iter().rev().filter_map(|seen| {
        let item_idx = model.rows.row(seen.item_idx)?;
        Some(Token {
            item_idx,
            kind: model.kind,
            occurred_at: seen.occurred_at,
        })
    });
    let mut newest: Vec<Token> = known.take(len_max).collect();
    newest.reverse();
    newest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::DatasetEvent;
    use burn::tensor::Device;
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};
    use shared_model::codec::state::ItemEntry;
    use shared_model::edge::engine::{K_MAX, RankOptions, RankRequest};
    use shared_model::event::{HistoryEvent, Item};
    use shared_model::ids::{ItemId, UserId};
    use shared_model::model::scorer::Padding;
    use shared_model::spec::ModelSpec;

    const NUM_ITEMS: usize = 30;
    const HISTORY_LEN: u32 = 4;

    fn dataset(rng: &mut StdRng) -> Dataset {
        let item = |idx: usize| -> Item {
            serde_json::from_value(serde_json::json!({"item_id": format!("i{idx}"), "title": "x"}))
                .expect("item")
        };
        let event = |minute: i64| DatasetEvent {
            user_idx: rng.random_range(0..3),
            item_idx: rng.random_range(0..NUM_ITEMS as u32),
            occurred_at: minute * 60_000,
            value: None,
        };
        let events = (0..40).map(event).collect();
        Dataset {
            name: "toy".to_owned(),
            kind: EventKind::Purchase,
            items: (0..NUM_ITEMS).map(item).collect(),
            users: ["a", "b", "c"]
                .map(|id| UserId::new(id).expect("id"))
                .to_vec(),
            events,
            tie_seed: 1,
        }
    }

    /// Random codes; rows lie in another order than the dataset, and one item is missing.
    fn state(rng: &mut StdRng) -> CodeState {
        let spec = ModelSpec {
            embedding_dim: 8,
            text_dim: 6,
            history_len: HISTORY_LEN,
            ff_dim: 8,
            ..ModelSpec::default()
        };
        let mut state = CodeState::empty(spec);
        let entry = |idx| ItemEntry {
            item_id: ItemId::new(format!("i{idx}")).expect("id"),
            available: true,
        };
        state.append_items((1..NUM_ITEMS).rev().map(entry));
        for (shape, tensor) in state.shapes().iter().zip(&mut state.tensors) {
            if shape.name == "item.counts" || shape.num_cols == 0 {
                continue;
            }
            tensor.exponents.fill(-6);
            for code in &mut tensor.codes {
                *code = rng.random_range(-127..=127);
            }
        }
        state.check().expect("valid");
        state
    }

    #[tokio::test]
    async fn bulk_ranks_are_those_of_a_page_that_ranks_one_by_one() {
        let mut rng = StdRng::seed_from_u64(3);
        let (dataset, state) = (dataset(&mut rng), state(&mut rng));
        let ready = ReadyVersion::new(&state, &Device::flex(), Padding::Longest);
        let rows = ItemRows::new(&dataset, &ready);
        let model = RankModel {
            ready: &ready,
            state: &state,
            rows: &rows,
            kind: dataset.kind,
        };
        let mut timelines = Timelines::new(dataset.users.len());
        let queries: Vec<Query> = dataset
            .events
            .iter()
            .map(|event| timelines.push(event))
            .collect();

        let answers = score_chunk(model, &queries, &timelines)
            .await
            .expect("scores");

        for (query, ranked) in queries.iter().zip(answers) {
            let to_history = |seen: &Seen| HistoryEvent {
                item_id: dataset.items[seen.item_idx as usize].item_id.clone(),
                kind: dataset.kind,
                occurred_at: seen.occurred_at,
            };
            let history: Vec<HistoryEvent> =
                timelines.history(query).iter().map(to_history).collect();
            let options = RankOptions {
                k: K_MAX,
                exclude_seen: query.is_new,
            };
            let request = RankRequest {
                history: &history,
                candidates: None,
                options: &options,
                now_millis: query.occurred_at,
                moderation: None,
            };
            let ranking = ready.rank(&state, &request).await.expect("ranks");
            let wanted = &dataset.items[query.item_idx as usize].item_id;
            let position = ranking.iter().position(|ranked| ranked.item_id == *wanted);
            let ten: Vec<u32> = ranking
                .iter()
                .take(10)
                .filter_map(|one| one.item_id.as_str()[1..].parse().ok())
                .collect();
            assert_eq!(ranked.top[..], ten[..], "{query:?}");
            assert_eq!(
                ranked.rank,
                position.map(|position| position as u32 + 1),
                "{query:?}"
            );
        }
    }
}
