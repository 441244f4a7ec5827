//! Ranking: the engine of the page beside the same graph in onnxruntime-web.
//!
//! What is timed of ours is the whole call, JSON in and JSON out; of the other side the feeds made from numbers that
//! it need not look up, the run, and the best items read out. Both must name the same items. A call with one candidate
//! scores all items too and orders none, which tells what ordering costs.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::SigningKey;
use harness::browser::BrowserPage;
use harness::drawn::{self, NOW_MILLIS};
use harness::signed::{manifest, plan, signed_text};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};
use shared_model::codec::delta::encode_delta;
use shared_model::codec::snapshot::encode_snapshot;
use shared_model::codec::state::{CodeState, NEIGHBOURS_TENSOR};
use shared_model::event::EventKind;
use shared_model::ids::Version;
use shared_model::manifest::public_key_text;
use shared_model::model::neighbours::NUM_RECENT_ITEMS;
use shared_model::model::parameters::ParameterSet;
use shared_model::model::prior::age_in_half_lives;
use shared_model::model::sequence::{Sequence, SequenceBatch, Token};

const NUM_ITEMS: usize = 10_000;
const NUM_EVENTS: usize = 50;
/// Histories that take turns.
const NUM_HISTORIES: usize = 20;
/// Calls of each side that are counted, and those before them that are not.
const NUM_CALLS: usize = 400;
const NUM_WARM_UP_CALLS: usize = 100;
/// Engines that are updated, for the time of a rebuild.
const NUM_REBUILDS: usize = 7;
/// Rows of a fast version after some hundred events.
const FAST_ROWS: usize = 120;
/// f32 sums in another order, and logarithms of another library.
const SCORE_TOLERANCE: f64 = 1e-3;
const SCRIPT: &str = include_str!("ranking.js");

/// Writes the weights of the version, as numbers, for whoever makes the other side's graph.
///
/// # Errors
/// The file cannot be written.
pub(crate) fn prepare(dir: &Path) -> anyhow::Result<()> {
    let state = drawn::draw(NUM_ITEMS);
    let parameters = ParameterSet::from_state(&state);
    let shapes = parameters.shapes();
    let mut bytes: BTreeMap<String, (Vec<usize>, Vec<u8>)> = BTreeMap::new();
    for (shape, values) in shapes.iter().zip(&parameters.tensors) {
        if shape.num_cols > 0 && shape.num_rows > 0 {
            let little: Vec<u8> = values
                .iter()
                .flat_map(|value| value.to_le_bytes())
                .collect();
            bytes.insert(
                shape.name.clone(),
                (vec![shape.num_rows, shape.num_cols], little),
            );
        }
    }
    let table = state
        .tensor(NEIGHBOURS_TENSOR)
        .context("in the default spec")?;
    let codes: Vec<u8> = table
        .codes
        .iter()
        .flat_map(|code| f32::from(*code).to_le_bytes())
        .collect();
    bytes.insert(
        NEIGHBOURS_TENSOR.to_owned(),
        (vec![table.num_rows, table.num_cols], codes),
    );
    let mut views = Vec::new();
    for (name, (shape, bytes)) in &bytes {
        views.push((name, TensorView::new(Dtype::F32, shape.clone(), bytes)?));
    }
    fs::write(
        dir.join("rank.safetensors"),
        safetensors::serialize(views, None)?,
    )?;
    fs::write(
        dir.join("rank-spec.json"),
        serde_json::to_string(&state.spec)?,
    )?;
    Ok(())
}

/// Times of both sides, and of rebuilding after updates.
///
/// # Errors
/// A side fails, or the two do not rank alike.
pub(crate) async fn measure(page: &BrowserPage) -> anyhow::Result<Value> {
    let key = SigningKey::from_bytes(&[9; 32]);
    let base = drawn::draw(NUM_ITEMS);
    let first = manifest(&base, None, NOW_MILLIS).await?;
    let mut updates = Vec::new();
    for target in [drawn::moved(&base, FAST_ROWS), drawn::released(&base)] {
        let delta = encode_delta(&base, Version(1), &target, Version(2))?;
        let second = manifest(&target, Some(&delta), NOW_MILLIS).await?;
        updates.push(json!({
            "plan": plan(&second, &delta, &key)?,
            "delta": STANDARD.encode(&delta),
        }));
    }
    let histories: Vec<Value> = histories()
        .iter()
        .map(|tokens| call_of(&base, tokens))
        .collect();
    let input = json!({
        "trust": json!([public_key_text(&key.verifying_key())]).to_string(),
        "manifest": signed_text(&first, &key)?,
        "snapshot": STANDARD.encode(encode_snapshot(&base, Version(1))?),
        "updates": updates,
        "calls": histories,
        "num_calls": NUM_CALLS,
        "num_warm_up_calls": NUM_WARM_UP_CALLS,
        "num_rebuilds": NUM_REBUILDS,
    });
    let measured = page.run(SCRIPT, vec![input]).await?;
    ensure_alike(&measured)?;
    Ok(json!({
        "rank_10k_ms": spread(&measured["ours"])?,
        "score_10k_ms": spread(&measured["scored"])?,
        "rank_10k_ort_ms": spread(&measured["theirs"])?,
        "rebuild_fast_ms": spread(&measured["rebuilds"][0])?,
        "rebuild_release_ms": spread(&measured["rebuilds"][1])?,
        "first_settle_ms": spread(&measured["first_settles"])?,
        "num_items": NUM_ITEMS,
        "num_events": NUM_EVENTS,
        "clock_step_ms": measured["clock_step"],
    }))
}

/// Events some hours apart, of random items, oldest first.
fn histories() -> Vec<Vec<Token>> {
    let rng = &mut StdRng::seed_from_u64(7);
    let kinds = [
        EventKind::View,
        EventKind::Click,
        EventKind::AddToCart,
        EventKind::Purchase,
    ];
    let mut histories = Vec::new();
    for _ in 0..NUM_HISTORIES {
        let mut occurred_at = NOW_MILLIS;
        let mut tokens: Vec<Token> = (0..NUM_EVENTS)
            .map(|_| {
                occurred_at -= rng.random_range(60_000..20_000_000);
                Token {
                    item_idx: rng.random_range(0..NUM_ITEMS as u32), // 10,000 fits
                    kind: kinds[rng.random_range(0..kinds.len())],
                    occurred_at,
                }
            })
            .collect();
        tokens.reverse();
        histories.push(tokens);
    }
    histories
}

/// One ranking for both sides: ids for ours, rows and features for the other.
fn call_of(state: &CodeState, tokens: &[Token]) -> Value {
    let history: Vec<Value> = tokens
        .iter()
        .map(|token| {
            let item_id = &state.items[token.item_idx as usize].item_id;
            json!({ "item_id": item_id, "kind": token.kind, "occurred_at": token.occurred_at })
        })
        .collect();
    let sequence = Sequence {
        tokens: tokens.to_vec(),
        now_millis: NOW_MILLIS,
    };
    let batch = SequenceBatch::new(&[sequence], 0);
    let mut recent: Vec<u32> = Vec::new();
    for token in tokens.iter().rev() {
        if !recent.contains(&token.item_idx) && recent.len() < NUM_RECENT_ITEMS {
            recent.push(token.item_idx);
        }
    }
    let ages = state.spec.half_lives_secs.iter();
    let ages: Vec<f64> = ages
        .map(|half_life| age_in_half_lives(NOW_MILLIS, state.landmark_millis, *half_life))
        .collect();
    json!({
        "ours": json!({ "history": history, "k": 10, "nowMillis": NOW_MILLIS }).to_string(),
        "scored": json!({ "history": history, "k": 1, "nowMillis": NOW_MILLIS, "candidates": ["item-0"] }).to_string(),
        "theirs": { "rows": batch.item_rows, "kinds": batch.kinds, "gaps": batch.gaps, "recent": recent, "ages": ages },
    })
}

/// The same items with the same scores, in every history.
fn ensure_alike(measured: &Value) -> anyhow::Result<()> {
    let answers = measured["answers"]
        .as_array()
        .context("the script gave no answers")?;
    ensure!(answers.len() == NUM_HISTORIES, "{} answers", answers.len());
    for answer in answers {
        let (ours, theirs) = (list(&answer["ours"])?, list(&answer["theirs"])?);
        ensure!(
            ours.len() == 10 && theirs.len() == 10,
            "ten items each: {answer}"
        );
        for (ours, theirs) in ours.iter().zip(theirs) {
            let difference = ours["score"].as_f64().zip(theirs["score"].as_f64());
            let difference =
                difference.map_or(f64::INFINITY, |(ours, theirs)| (ours - theirs).abs());
            ensure!(
                difference < SCORE_TOLERANCE,
                "the sides do not score alike: {answer}"
            );
        }
        let ids = |list: &[Value]| {
            let mut ids: Vec<String> = list
                .iter()
                .map(|item| item["item_id"].to_string())
                .collect();
            ids.sort();
            ids
        };
        ensure!(
            ids(ours) == ids(theirs),
            "the sides do not rank alike: {answer}"
        );
    }
    Ok(())
}

fn list(value: &Value) -> anyhow::Result<&Vec<Value>> {
    value.as_array().context("expected a list")
}

/// Least, median, 95th percentile and largest of some times.
pub(crate) fn spread(times: &Value) -> anyhow::Result<Value> {
    let mut times: Vec<f64> = list(times)?.iter().filter_map(Value::as_f64).collect();
    times.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let idx = ((times.len() as f64 - 1.0) * share).round() as usize; // a place in the list
        times.get(idx).copied()
    };
    Ok(
        json!({ "min": at(0.0), "p50": at(0.5), "p95": at(0.95), "max": at(1.0), "count": times.len() }),
    )
}
