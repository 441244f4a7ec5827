//! Claims about channels: who hears of which version, how a page changes channel, and what a crash leaves of a canary.

use std::path::Path;

use serde_json::{Value, json};
use shared_model::codec::delta::apply_delta;
use shared_model::codec::snapshot::decode_snapshot;
use shared_model::codec::state::CodeState;
use shared_model::ids::Version;
use shared_model::manifest::{Channel, PlanStepKind, UpdatePlan, VersionKind};
use trainer_server::publish::Publisher;

use crate::harness::{NOW_MILLIS, TestServer, config, new_version, state};

/// Two stable versions, then a canary as version 3, then a stable one as version 4.
fn publish_both(publisher: &Publisher) {
    let stable = |kind, step| {
        publisher
            .publish(new_version(kind, step))
            .expect("published")
    };
    stable(VersionKind::Release, 1);
    stable(VersionKind::Fast, 2);
    let canary = publisher.publish_canary(new_version(VersionKind::Release, 2));
    assert_eq!(canary.expect("published").manifest.channel, Channel::Canary);
    stable(VersionKind::Fast, 4);
}

/// The payload of the signed manifest that a page with this query gets.
async fn manifest(server: &TestServer, query: &str) -> Value {
    let response = server
        .get(&format!("/v1/models/main/manifest{query}"))
        .await;
    assert_eq!(response.status(), 200, "{query}");
    let envelope: Value = response.json().await.expect("JSON");
    serde_json::from_str(envelope["payload"].as_str().expect("text")).expect("JSON")
}

/// What a page that has `base` comes to by its plan.
fn followed(publisher: &Publisher, base: Option<&CodeState>, plan: &UpdatePlan) -> CodeState {
    let mut reached = base.cloned();
    for step in &plan.steps {
        let bytes = publisher
            .blobs()
            .get(step.blob.id)
            .expect("readable")
            .expect("there");
        reached = Some(match step.kind {
            PlanStepKind::Snapshot => decode_snapshot(&bytes).expect("sound").1,
            PlanStepKind::Delta => apply_delta(&reached.expect("a base"), &bytes).expect("sound"),
        });
    }
    reached.expect("a way")
}

#[tokio::test]
async fn a_page_hears_of_a_canary_by_its_bucket_alone() {
    let dir = tempfile::tempdir().expect("temp dir");
    let server = TestServer::start(dir.path(), &[("rollout.canary_share", "10")]).await;
    publish_both(&server.publisher);
    let own = manifest(&server, "?bucket=9").await;
    assert_eq!(
        (&own["version"], &own["channel"]),
        (&json!(3), &json!("canary"))
    );
    for query in ["", "?bucket=10", "?bucket=99"] {
        let everyones = manifest(&server, query).await;
        assert_eq!(everyones["version"], 4, "{query}");
        assert_eq!(
            everyones.get("channel"),
            None,
            "as it was before there were channels"
        );
    }
    for route in ["manifest", "plan", "watch"] {
        for bucket in ["100", "-1", "x", ""] {
            let path = format!("/v1/models/main/{route}?bucket={bucket}");
            let response = server.get(&path).await;
            assert_eq!(response.status(), 400, "{path}");
            let problem: Value = response.json().await.expect("JSON");
            assert_eq!(problem["errors"][0]["pointer"], "bucket", "{path}");
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn with_a_share_of_nothing_no_bucket_hears_of_a_canary() {
    let dir = tempfile::tempdir().expect("temp dir");
    let server = TestServer::start(dir.path(), &[("rollout.canary_share", "0")]).await;
    publish_both(&server.publisher);
    assert_eq!(manifest(&server, "?bucket=0").await["version"], 4);
    server.stop().await;
}

/// Reads the stream until it has told of `version`; the versions told of before.
async fn watched_until(response: &mut reqwest::Response, version: u64, seen: &mut String) {
    while !seen.contains(&format!("id: {version}\n")) {
        let piece = response.chunk().await.expect("goes on").expect("bytes");
        seen.push_str(std::str::from_utf8(&piece).expect("text"));
    }
}

#[tokio::test]
async fn the_stream_of_everyone_is_silent_about_a_canary_and_the_cohort_hears_of_its_end() {
    let dir = tempfile::tempdir().expect("temp dir");
    let server = TestServer::start(dir.path(), &[]).await;
    let publisher = &server.publisher;
    publisher
        .publish(new_version(VersionKind::Release, 1))
        .expect("published");
    assert_eq!(publisher.num_cohort_pages(), 0);
    let mut everyone = server.get("/v1/models/main/watch?bucket=99").await;
    let mut cohort = server.get("/v1/models/main/watch?bucket=0").await;
    let (mut told, mut told_cohort) = (String::new(), String::new());
    watched_until(&mut everyone, 1, &mut told).await;
    watched_until(&mut cohort, 1, &mut told_cohort).await;
    assert_eq!(publisher.num_cohort_pages(), 1);

    publisher
        .publish_canary(new_version(VersionKind::Release, 2))
        .expect("published");
    watched_until(&mut cohort, 2, &mut told_cohort).await;
    let again = publisher.take_back_canary(NOW_MILLIS).expect("published");
    assert_eq!(again.map(|again| again.manifest.version), Some(Version(3)));
    watched_until(&mut cohort, 3, &mut told_cohort).await;
    watched_until(&mut everyone, 3, &mut told).await;
    assert!(!told.contains("id: 2\n"), "{told}");

    publisher
        .publish(new_version(VersionKind::Fast, 4))
        .expect("published");
    watched_until(&mut cohort, 4, &mut told_cohort).await;
    server.stop().await;
}

#[tokio::test]
async fn a_page_changes_channel_both_ways_and_never_goes_back_in_number() {
    let dir = tempfile::tempdir().expect("temp dir");
    let publisher = Publisher::open(dir.path(), "main", &config(&[]).publish).expect("opens");
    publish_both(&publisher);
    let plan = async |channel, base| {
        let plan = publisher.plan_for(channel, base, NOW_MILLIS).await;
        plan.expect("a way")
    };

    let onto = plan(Channel::Canary, Some(Version(1))).await;
    assert_eq!(onto.target_version, Version(3));
    assert_eq!(followed(&publisher, Some(&state(1)), &onto), *state(2));
    let fresh = plan(Channel::Canary, None).await;
    assert_eq!(followed(&publisher, None, &fresh), *state(2));

    let promoted = publisher
        .publish_for_all(new_version(VersionKind::Release, 5))
        .expect("published");
    assert_eq!(promoted.manifest.version, Version(5));
    let back = plan(Channel::Canary, Some(Version(3))).await;
    assert_eq!(back.target_version, Version(5));
    assert_eq!(followed(&publisher, Some(&state(2)), &back), *state(5));
    assert!(!publisher.has_canary());
}

#[tokio::test]
async fn a_canary_that_is_older_than_everyones_newest_ends_without_another_version() {
    let dir = tempfile::tempdir().expect("temp dir");
    let publisher = Publisher::open(dir.path(), "main", &config(&[]).publish).expect("opens");
    publish_both(&publisher);
    let ended = publisher
        .take_back_canary(NOW_MILLIS)
        .expect("nothing to write");
    assert!(ended.is_none(), "version 4 is above it already");
    let cohort = publisher.newest(Channel::Canary).expect("published");
    assert_eq!(cohort.manifest.version, Version(4));
    let plan = publisher
        .plan_for(Channel::Canary, Some(Version(3)), NOW_MILLIS)
        .await;
    let reached = followed(&publisher, Some(&state(2)), &plan.expect("a way"));
    assert_eq!(reached, *state(4));
}

#[tokio::test]
async fn after_a_crash_everyones_newest_is_restored_and_the_cohort_comes_back_to_it() {
    let dir = tempfile::tempdir().expect("temp dir");
    let settings = config(&[]).publish;
    {
        let publisher = Publisher::open(dir.path(), "main", &settings).expect("opens");
        publisher
            .publish(new_version(VersionKind::Release, 1))
            .expect("published");
        publisher
            .publish(new_version(VersionKind::Fast, 2))
            .expect("published");
        publisher
            .publish_canary(new_version(VersionKind::Release, 3))
            .expect("published");
    }
    let publisher = Publisher::open(dir.path(), "main", &settings).expect("opens again");
    let latest = publisher.latest().expect("restored");
    assert_eq!(
        (latest.manifest.version, &latest.state),
        (Version(2), &state(2))
    );

    let again = publisher.take_back_canary(NOW_MILLIS).expect("published");
    let again = again.expect("the canary was newer");
    assert_eq!(
        (again.manifest.version, &again.state),
        (Version(4), &state(2))
    );
    assert!(
        publisher
            .take_back_canary(NOW_MILLIS)
            .expect("nothing")
            .is_none()
    );
    let plan = publisher
        .plan_for(Channel::Canary, Some(Version(3)), NOW_MILLIS)
        .await;
    let reached = followed(&publisher, Some(&state(3)), &plan.expect("a way"));
    assert_eq!(reached, *state(2));
}

#[tokio::test]
async fn a_long_canary_keeps_what_its_new_pages_start_from() {
    let dir = tempfile::tempdir().expect("temp dir");
    let settings = config(&[
        ("publish.keep_versions_min", "2"),
        ("publish.keep_secs_min", "0"),
        ("publish.snapshot_every_versions", "4"),
    ]);
    let publisher = Publisher::open(dir.path(), "main", &settings.publish).expect("opens");
    publisher
        .publish(new_version(VersionKind::Release, 1))
        .expect("published");
    publisher
        .publish_canary(new_version(VersionKind::Release, 1))
        .expect("published");
    for step in 2..40 {
        let new = |kind| new_version(kind, step);
        publisher
            .publish(new(VersionKind::Fast))
            .expect("published");
    }
    let cohort = publisher.plan_for(Channel::Canary, None, NOW_MILLIS).await;
    let cohort = followed(&publisher, None, &cohort.expect("a way"));
    assert_eq!(cohort, *state(1));
    let everyone = publisher.plan_for(Channel::Stable, None, NOW_MILLIS).await;
    assert_eq!(
        followed(&publisher, None, &everyone.expect("a way")),
        *state(39)
    );
}

async fn report(server: &TestServer, body: impl Into<reqwest::Body>) -> u16 {
    let url = format!("{}/v1/models/main/reports", server.url);
    let request = server
        .client
        .post(url)
        .header("content-type", "application/json");
    let response = request.body(body).send().await.expect("an answer");
    response.status().as_u16()
}

#[tokio::test]
async fn reports_are_counted_by_code_and_what_is_no_report_is_refused() {
    let dir = tempfile::tempdir().expect("temp dir");
    let server = TestServer::start(dir.path(), &[]).await;
    publish_both(&server.publisher);
    for code in ["self_test", "hash", "hash"] {
        let body = json!({ "version": 3, "code": code, "bucket": 9 });
        assert_eq!(report(&server, body.to_string()).await, 204);
    }
    let refused = [
        (json!({ "version": 99, "code": "hash" }).to_string(), 404),
        (json!({ "version": 3, "code": "mood" }).to_string(), 400),
        (
            json!({ "version": 3, "code": "hash", "bucket": 100 }).to_string(),
            400,
        ),
        (
            json!({ "version": 3, "code": "hash", "user_id": "u" }).to_string(),
            400,
        ),
        (json!({ "code": "hash" }).to_string(), 400),
        (String::new(), 400),
        (
            json!({ "version": 3, "code": "hash" }).to_string() + &" ".repeat(2000),
            413,
        ),
    ];
    for (body, expected) in refused {
        assert_eq!(report(&server, body.clone()).await, expected, "{body}");
    }
    let status: Value = server.get("/v1/status").await.json().await.expect("JSON");
    assert_eq!(status["canary"]["version"], 3);
    assert_eq!(
        status["canary"]["faults"],
        json!({ "self_test": 1, "hash": 2 })
    );
    server.stop().await;
}

/// While the folder of the manifests is elsewhere, none can be written.
fn without_manifests(dir: &Path, act: impl FnOnce()) {
    let (manifests, elsewhere) = (dir.join("manifests"), dir.join("elsewhere"));
    std::fs::rename(&manifests, &elsewhere).expect("moved");
    act();
    std::fs::rename(&elsewhere, &manifests).expect("moved back");
}

#[test]
fn a_canary_that_could_not_be_written_was_told_to_nobody() {
    let dir = tempfile::tempdir().expect("temp dir");
    let publisher = Publisher::open(dir.path(), "main", &config(&[]).publish).expect("opens");
    publisher
        .publish(new_version(VersionKind::Release, 1))
        .expect("published");
    without_manifests(dir.path(), || {
        let refused = publisher.publish_canary(new_version(VersionKind::Release, 2));
        assert!(refused.is_err_and(|error| error.may_pass()));
    });
    let told = |channel| {
        publisher
            .newest(channel)
            .expect("published")
            .manifest
            .version
    };
    assert!(!publisher.has_canary());
    assert_eq!(told(Channel::Canary), Version(1));

    let canary = publisher.publish_canary(new_version(VersionKind::Release, 2));

    let canary = canary.expect("published");
    let delta = canary.manifest.delta.as_ref().expect("a way");
    assert_eq!(delta.base_version, Version(1));
    assert_eq!(told(Channel::Canary), Version(3));
    assert_eq!(told(Channel::Stable), Version(1));
}

#[test]
fn a_canary_whose_end_could_not_be_written_runs_on() {
    let dir = tempfile::tempdir().expect("temp dir");
    let settings = config(&[]).publish;
    let publisher = Publisher::open(dir.path(), "main", &settings).expect("opens");
    publisher
        .publish(new_version(VersionKind::Release, 1))
        .expect("published");
    publisher
        .publish_canary(new_version(VersionKind::Release, 2))
        .expect("published");
    let told = |channel| {
        publisher
            .newest(channel)
            .expect("published")
            .manifest
            .version
    };
    without_manifests(dir.path(), || {
        let promoted = publisher.publish_for_all(new_version(VersionKind::Release, 2));
        assert!(promoted.is_err_and(|error| error.may_pass()));
        assert!(publisher.take_back_canary(NOW_MILLIS).is_err());
    });
    assert!(publisher.has_canary());
    assert_eq!(
        (told(Channel::Stable), told(Channel::Canary)),
        (Version(1), Version(2))
    );
    // What everyone learns meanwhile is not for the cohort.
    publisher
        .publish(new_version(VersionKind::Fast, 3))
        .expect("published");
    assert_eq!(told(Channel::Canary), Version(2));

    let ended = publisher.publish_for_all(new_version(VersionKind::Release, 4));

    let version = ended.expect("published").manifest.version;
    assert!(!publisher.has_canary());
    assert_eq!(
        (told(Channel::Stable), told(Channel::Canary)),
        (version, version)
    );
}

#[test]
fn a_canary_that_was_cut_off_counts_as_one_until_it_is_taken_back() {
    let dir = tempfile::tempdir().expect("temp dir");
    let settings = config(&[]).publish;
    let open = || Publisher::open(dir.path(), "main", &settings).expect("opens");
    {
        let publisher = open();
        publisher
            .publish(new_version(VersionKind::Release, 1))
            .expect("published");
        assert!(!open().has_canary(), "there was none");
        publisher
            .publish_canary(new_version(VersionKind::Release, 2))
            .expect("published");
    }
    let publisher = open();
    without_manifests(dir.path(), || {
        assert!(publisher.take_back_canary(NOW_MILLIS).is_err());
    });
    assert!(publisher.has_canary(), "its pages are still out there");

    let again = publisher.take_back_canary(NOW_MILLIS).expect("published");

    let again = again.expect("above the canary").manifest.version;
    assert!(again > Version(2));
    assert!(!publisher.has_canary());
    assert_eq!(
        publisher
            .newest(Channel::Canary)
            .map(|one| one.manifest.version),
        Some(again)
    );
}
