//! The report: measured values as a JSON document, and a table for people.
//!
//! A figure that could not be taken is null, with a `why` beside it.

use serde_json::{Map, Value, json};
use shared_model::manifest::VersionKind;

use super::effect::{EFFECT_SECS_MAX, PlantOutcome, following_secs};
use super::quality::quantile;
use super::steady::SteadyOutcome;
use super::{Measured, STEADY_RATE, WARM_SHARE};
use crate::baselines::item_knn::ITEM_KNN_ITEMS_MAX;
use crate::evaluate::document::{header as document_header, systems_document};
use crate::evaluate::systems::Systems;
use crate::page_client::Applied;

/// The document of `freshet replay`.
pub(super) fn replay_report(measured: &Measured, systems: &Systems) -> Value {
    let mut report = header(measured);
    report.insert(
        "versions_published".to_owned(),
        versions_published(measured).into(),
    );
    report.insert(
        "delta_bytes".to_owned(),
        delta_bytes(measured, |applied| applied.delta_bytes_downloaded),
    );
    report.insert(
        "delta_bytes_encoded".to_owned(),
        delta_bytes(measured, |applied| applied.delta_bytes),
    );
    report.insert(
        "announcement_bytes".to_owned(),
        delta_bytes(measured, |applied| applied.announcement_bytes),
    );
    report.insert(
        "bytes_per_1000_events".to_owned(),
        bytes_per_1000_events(measured),
    );
    report.insert("snapshot_bytes".to_owned(), json!(measured.snapshot_bytes));
    report.insert(
        "learned_code_bytes".to_owned(),
        measured.learned_code_bytes.into(),
    );
    report.insert("freshness_secs".to_owned(), freshness(measured));
    report.insert(
        "hash_mismatches".to_owned(),
        hash_mismatches(measured).into(),
    );
    report.insert("quality".to_owned(), systems.to_json());
    report.insert("durability".to_owned(), durability(measured));
    report.insert("pages".to_owned(), pages(measured));
    report.insert("steady".to_owned(), steady(measured));
    Value::Object(report)
}

/// The document of `freshet evaluate --protocol prequential`, without the cost of systems that learn offline.
pub(crate) fn evaluation(measured: &Measured, systems: &Systems) -> Map<String, Value> {
    let mut document = header(measured);
    document.extend(systems_document(systems));
    document.insert(
        "versions_published".to_owned(),
        versions_published(measured).into(),
    );
    document.insert(
        "hash_mismatches".to_owned(),
        hash_mismatches(measured).into(),
    );
    document
}

fn header(measured: &Measured) -> Map<String, Value> {
    let dataset = &measured.dataset;
    let walk = &measured.walk;
    let mut header = document_header(dataset, "prequential", protocol_notes(measured));
    let own = json!({
        "dataset_counts": {
            "users": dataset.users.len(), "items": dataset.items.len(), "events": dataset.events.len(),
            "warm_events": measured.split, "stream_events": dataset.events.len() - measured.split,
        },
        "server": measured.options.server_url.as_deref().unwrap_or("started by this command"),
        "stream": {
            "rate": measured.options.rate,
            "num_streamed": walk.num_streamed,
            "num_left_out": walk.num_left_out,
            "left_out_why": (walk.num_left_out > 0).then_some("the time budget was used up"),
            "num_rejected": walk.rejected.len(),
            "first_rejection": walk.first_rejection,
            "num_chunks_not_learned_in_time": walk.num_waits_given_up,
            "secs": walk.secs,
            "events_per_sec": walk.num_streamed as f64 / walk.secs.max(1e-9), // counts fit f64
            "scoring_secs": walk.scoring_secs,
        },
        "warm_secs": measured.warm_secs,
        "total_secs": measured.total_secs,
    });
    let Value::Object(own) = own else {
        unreachable!("the literal above is an object")
    };
    header.extend(own);
    header
}

fn protocol_notes(measured: &Measured) -> Vec<String> {
    let split_share = (1.0 - WARM_SHARE) * 100.0;
    vec![
        format!("the last {split_share:.0} % of the events by time are streamed, those before are learned first"),
        format!(
            "events of the same second are in a random order, seed {}; all items are in the catalogue from the start",
            measured.dataset.tie_seed
        ),
        "headline: items new to the user, ranked among all items without those the user already had; \
         repeats are ranked among all items and reported apart"
            .to_owned(),
        format!(
            "every event is ranked by the live version before it is posted, in chunks of {}; histories include \
             the earlier events of the chunk, counting baselines learn event by event",
            measured.options.chunk_len
        ),
        "ties in score go to the lower item index; item_knn and text_only rank nothing without a history, \
         which counts as a miss"
            .to_owned(),
        "an effect is a rise of the planted item further than that of 99 % of the items that were far down with it, \
         on a version that learned the planted events; num_plants_halving_the_position is how many of them also \
         went to half their position or better by then"
            .to_owned(),
        "pages that follow apply and verify every version but build no scorer; they are timed by the version \
         in which a ranking page saw the effect"
            .to_owned(),
    ]
}

/// Every version that any phase saw become live in a ranking page, in order, each once.
fn applied(measured: &Measured) -> Vec<Applied> {
    let mut applied = vec![measured.first];
    applied.extend(&measured.walk.applied);
    if let Some(first_page) = measured
        .steady
        .as_ref()
        .ok()
        .and_then(|steady| steady.applied.first())
    {
        applied.extend(first_page);
    }
    applied.dedup_by_key(|applied| applied.version);
    applied
}

pub(super) fn versions_published(measured: &Measured) -> u64 {
    let last = applied(measured)
        .last()
        .map_or(measured.first.version, |applied| applied.version);
    last.0 - measured.first.version.0 + 1
}

pub(super) fn hash_mismatches(measured: &Measured) -> usize {
    let ranking = applied(measured)
        .iter()
        .filter(|applied| !applied.hash_matches)
        .count();
    let following = measured
        .followers
        .iter()
        .flat_map(|follower| &follower.applied);
    let other_ranking = measured
        .steady
        .iter()
        .flat_map(|steady| steady.applied.iter().skip(1).flatten());
    ranking
        + following
            .chain(other_ranking)
            .filter(|applied| !applied.hash_matches)
            .count()
}

/// Median and 95th percentile over the fast versions.
pub(super) fn delta_bytes(measured: &Measured, size_of: impl Fn(&Applied) -> Option<u64>) -> Value {
    let fast = applied(measured)
        .into_iter()
        .filter(|applied| applied.kind == VersionKind::Fast);
    let mut sizes: Vec<u64> = fast.filter_map(|applied| size_of(&applied)).collect();
    sizes.sort_unstable();
    let Some(largest) = sizes.last() else {
        return json!({"median": null, "p95": null, "count": 0, "why": "no fast version arrived"});
    };
    json!({"median": quantile(&sizes, 0.5), "p95": quantile(&sizes, 0.95), "max": largest, "count": sizes.len()})
}

pub(super) fn bytes_per_1000_events(measured: &Measured) -> Value {
    let walk = &measured.walk;
    if walk.num_streamed == 0 {
        return Value::Null;
    }
    json!(walk.downloaded_bytes as f64 * 1000.0 / walk.num_streamed as f64) // both fit f64
}

pub(super) fn freshness(measured: &Measured) -> Value {
    let steady = match &measured.steady {
        Ok(steady) if !steady.plants.is_empty() => steady,
        Ok(_) => return json!({"p50": null, "p95": null, "why": "no event could be planted"}),
        Err(why) => return json!({"p50": null, "p95": null, "why": why}),
    };
    let ranking: Vec<Option<f64>> = steady
        .plants
        .iter()
        .flat_map(|plant| plant.effect_secs.clone())
        .collect();
    let following: Vec<Option<f64>> = steady
        .plants
        .iter()
        .flat_map(|plant| following_secs(plant, &measured.followers))
        .collect();
    let browser: Vec<Option<f64>> = steady
        .plants
        .iter()
        .flat_map(|plant| plant.browser_secs.clone())
        .collect();
    let all: Vec<Option<f64>> = ranking
        .iter()
        .chain(&following)
        .chain(&browser)
        .copied()
        .collect();
    let mut figures = secs_figures(&all);
    if let Value::Object(figures) = &mut figures {
        let learned: Vec<Option<f64>> = steady
            .plants
            .iter()
            .map(|plant| plant.learned_secs)
            .collect();
        figures.insert("learned".to_owned(), secs_figures(&learned));
        figures.insert("num_plants".to_owned(), steady.plants.len().into());
        let is_halved = |plant: &&PlantOutcome| plant.position_after * 2 <= plant.position_before;
        let num_halved = steady.plants.iter().filter(is_halved).count();
        figures.insert(
            "num_plants_halving_the_position".to_owned(),
            num_halved.into(),
        );
        figures.insert("ranking_pages".to_owned(), secs_figures(&ranking));
        figures.insert("following_pages".to_owned(), secs_figures(&following));
        figures.insert("chromium_pages".to_owned(), secs_figures(&browser));
        figures.insert("lost_counts_as_secs".to_owned(), EFFECT_SECS_MAX.into());
    }
    figures
}

fn secs_figures(secs: &[Option<f64>]) -> Value {
    if secs.is_empty() {
        return json!({"p50": null, "p95": null, "why": "no page of this kind"});
    }
    let mut sorted: Vec<f64> = secs
        .iter()
        .map(|secs| secs.unwrap_or(EFFECT_SECS_MAX))
        .collect();
    sorted.sort_unstable_by(f64::total_cmp);
    json!({
        "p50": quantile(&sorted, 0.5), "p95": quantile(&sorted, 0.95), "max": sorted.last(),
        "num_measured": secs.len(), "num_lost": secs.iter().filter(|secs| secs.is_none()).count(),
    })
}

/// Why a system of the walk was not scored in it.
pub(crate) fn absence(name: &str) -> String {
    match name {
        "item_knn" => format!("the catalogue has more than {ITEM_KNN_ITEMS_MAX} items"),
        "text_only" => "the model has no text embeddings".to_owned(),
        _ => "it was not scored".to_owned(),
    }
}

fn durability(measured: &Measured) -> Value {
    let mut figures = match &measured.audit {
        Ok(audit) => audit.figures(),
        Err(why) => json!({"why": why}),
    };
    if let Value::Object(figures) = &mut figures {
        figures.insert("kills".to_owned(), measured.restart_secs.len().into());
        figures.insert("restart_secs".to_owned(), json!(measured.restart_secs));
    }
    figures
}

fn pages(measured: &Measured) -> Value {
    let followers = &measured.followers;
    let sum = |count: fn(&super::FollowerRecord) -> u64| followers.iter().map(count).sum::<u64>();
    json!({
        "ranking": measured.steady.as_ref().map_or(1, |steady| steady.applied.len()),
        "following": followers.len(),
        "versions_applied_by_followers": sum(|one| one.applied.len() as u64), // usize fits u64
        "follower_downloaded_bytes": sum(|one| one.downloads.total_bytes()),
        "num_disconnects": sum(|one| one.troubles.num_disconnects),
        "num_fetch_failures": sum(|one| one.troubles.num_fetch_failures),
        "num_refusals": sum(|one| one.troubles.num_refusals),
        "last_trouble": followers.iter().find_map(|one| one.troubles.last.clone()),
    })
}

fn steady(measured: &Measured) -> Value {
    let outcome: &SteadyOutcome = match &measured.steady {
        Ok(outcome) => outcome,
        Err(why) => return json!({"secs": null, "why": why}),
    };
    let background = &outcome.background;
    let mut acks = background.ack_millis.clone();
    acks.sort_unstable_by(f64::total_cmp);
    json!({
        "secs": outcome.secs,
        "wanted_rate": STEADY_RATE,
        "background_events": background.num_posted,
        "background_rate": background.num_posted as f64 / background.secs.max(1e-9), // counts fit f64
        "background_failure": background.failure,
        "ack_millis": {"p50": quantile(&acks, 0.5), "p95": quantile(&acks, 0.95), "max": acks.last()},
        "downloaded_bytes_per_page": outcome.downloaded_bytes,
        "positions_after": outcome.plants.iter().map(|plant| plant.position_after).collect::<Vec<_>>(),
        "positions_before": outcome.plants.iter().map(|plant| plant.position_before).collect::<Vec<_>>(),
    })
}
