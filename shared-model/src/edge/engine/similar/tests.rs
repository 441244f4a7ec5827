//! Claims about items like others, on made-up codes.

use super::*;
use crate::edge::engine::diversity::cosine;
use crate::edge::engine::made_up::{made_up_state, pollster, ready};
use crate::ids::ItemId;
use crate::model::scorer::Padding;

/// Eight products in another order, in f32.
const TOLERANCE: f64 = 1e-6;

fn ids(state: &CodeState, item_idxs: &[usize]) -> Vec<ItemId> {
    let id = |idx: &usize| state.items[*idx].item_id.clone();
    item_idxs.iter().map(id).collect()
}

fn similar(
    state: &CodeState,
    item_ids: &[ItemId],
    candidates: Option<&[ItemId]>,
) -> Result<Vec<RankedItem>, EngineError> {
    let options = RankOptions {
        k: 100,
        exclude_seen: false,
    };
    let request = SimilarRequest {
        item_ids,
        candidates,
        history: &[],
        options: &options,
        moderation: None,
    };
    pollster(ready(state, Padding::Longest).similar(state, &request))
}

/// All others by their mean cosine with `asked`, straight from the vectors of the version.
fn by_hand(state: &CodeState, asked: &[usize]) -> Vec<(ItemId, f64)> {
    let ready = ready(state, Padding::Longest);
    let all: Vec<u32> = (0..state.items.len() as u32).collect(); // thirty
    let values = pollster(vectors_of(&ready.scorer, &all)).expect("finite");
    let rows: Vec<&[f32]> = values.chunks_exact(8).collect();
    let mean = |row: &[f32]| {
        let cosines = asked.iter().map(|asked| cosine(row, rows[*asked]));
        cosines.sum::<f64>() / asked.len() as f64
    };
    let others = (0..rows.len()).filter(|idx| !asked.contains(idx) && state.items[*idx].available);
    let mut others: Vec<(ItemId, f64)> = others
        .map(|idx| (state.items[idx].item_id.clone(), mean(rows[idx])))
        .collect();
    others.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    others
}

#[test]
fn the_nearest_items_by_mean_cosine_come_first_and_the_asked_are_not_among_them() {
    for seed in 1..4 {
        let mut state = made_up_state(seed);
        state.items[9].available = false;
        for asked in [vec![3], vec![3, 17, 22]] {
            let actual = similar(&state, &ids(&state, &asked), None).expect("known items");
            let expected = by_hand(&state, &asked);
            assert_eq!(actual.len(), expected.len());
            for (actual, (item_id, cosine)) in actual.iter().zip(&expected) {
                assert_eq!(actual.item_id, *item_id);
                assert!((f64::from(actual.score) - cosine).abs() < TOLERANCE);
            }
        }
    }
}

#[test]
fn an_item_with_the_same_codes_has_similarity_one() {
    let mut state = made_up_state(5);
    for name in ["item.text", "item.features", "item.id_rows"] {
        let tensor = state.tensor_mut(name).expect("of the spec");
        let row = tensor.row(2).to_vec();
        tensor.row_mut(11).copy_from_slice(&row);
        tensor.exponents[11] = tensor.exponents[2];
    }
    let nearest = similar(&state, &ids(&state, &[2]), None).expect("known");
    assert_eq!(nearest[0].item_id, state.items[11].item_id);
    assert!(
        (nearest[0].score - 1.0).abs() < 1e-5,
        "{}",
        nearest[0].score
    );
}

#[test]
fn unknown_items_are_passed_over_unless_none_is_known() {
    let state = made_up_state(1);
    let unknown = ItemId::new("not-there").expect("short");
    let both = [unknown.clone(), state.items[4].item_id.clone()];
    let alone = similar(&state, &ids(&state, &[4]), None);
    assert_eq!(similar(&state, &both, None), alone);
    assert_eq!(
        similar(&state, std::slice::from_ref(&unknown), None),
        Err(EngineError::UnknownItem { item_id: unknown })
    );
    assert_eq!(similar(&state, &[], None), Ok(vec![]));
}

#[test]
fn candidates_limit_the_answer_and_a_list_too_long_is_named() {
    let state = made_up_state(1);
    let candidates = ids(&state, &[4, 5, 6]);
    let answer = similar(&state, &ids(&state, &[4]), Some(&candidates)).expect("known");
    let mut named: Vec<ItemId> = answer.into_iter().map(|item| item.item_id).collect();
    named.sort();
    assert_eq!(named, ids(&state, &[5, 6]));
    let many = vec![state.items[0].item_id.clone(); SIMILAR_TO_MAX + 1];
    let error = similar(&state, &many, None).expect_err("one too many");
    assert_eq!(
        error.to_string(),
        "itemIds is 1001 long, at most 1000 are accepted"
    );
}

#[test]
fn a_page_without_a_version_says_so() {
    use crate::edge::sync::Trust;
    let device = burn::tensor::Device::flex();
    let mut engine = EdgeEngine::new("main", Trust::OnFirstUse, device, Padding::Longest);
    let item_ids = [ItemId::new("a").expect("short")];
    let options = RankOptions::default();
    let request = SimilarRequest {
        item_ids: &item_ids,
        candidates: None,
        history: &[],
        options: &options,
        moderation: None,
    };
    assert_eq!(
        pollster(engine.similar(&request)),
        Err(EngineError::NoModel)
    );
}
