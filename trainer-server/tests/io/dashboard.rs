//! Claims about what the dashboard and a monitor ask of the admin address.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::harness::{TestServer, new_version};
use shared_model::manifest::VersionKind;
use trainer_server::influence::Reason;
use trainer_server::ingest::RejectCode;

async fn admin(server: &TestServer, path: &str) -> (u16, Value) {
    let url = format!("{}{path}", server.admin_url);
    let answer = server.client.get(url).send().await.expect("an answer");
    let status = answer.status().as_u16();
    (status, answer.json().await.unwrap_or(Value::Null))
}

#[tokio::test]
async fn the_catalogue_is_searched_by_words_of_title_and_id() {
    let dir = tempfile::tempdir().expect("temp dir");
    let server = TestServer::start(dir.path(), &[]).await;
    let items = json!({ "items": [
        { "item_id": "b", "title": "Blue enamel mug" },
        { "item_id": "a", "title": "Green enamel MUG" },
        { "item_id": "c", "title": "Kite" },
    ] });
    let put = server.send(reqwest::Method::PUT, "/v1/items", items.to_string());
    assert_eq!(put.await.0, 200);
    let (_, found) = admin(&server, "/v1/catalogue?query=mug%20ENAMEL&limit=1").await;
    assert_eq!(found["num_matching"], 2);
    assert_eq!(found["items"][0]["item_id"], "a");
    let (_, found) = admin(&server, "/v1/catalogue?id=c&id=b&id=gone").await;
    let ids: Vec<_> = found["items"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|item| &item["item_id"])
        .collect();
    assert_eq!(ids, ["b", "c"]);
    let (_, found) = admin(&server, "/v1/catalogue").await;
    assert_eq!(found["num_matching"], 3);
    let (status, problem) = admin(&server, "/v1/catalogue?limit=0").await;
    assert_eq!(status, 400);
    let detail = problem["errors"][0]["detail"].as_str().unwrap_or_default();
    assert_eq!(detail, "expected 1 to 1000, found 0");
}

#[tokio::test]
async fn series_have_two_resolutions_and_coverage_needs_a_version() {
    let dir = tempfile::tempdir().expect("temp dir");
    let server = TestServer::start(dir.path(), &[]).await;
    let (_, seconds) = admin(&server, "/v1/series").await;
    assert_eq!(seconds, json!({ "resolution_millis": 1000, "samples": [] }));
    let (_, coarse) = admin(&server, "/v1/series?resolution=30s").await;
    assert_eq!(coarse["resolution_millis"], 30_000);
    let (status, _) = admin(&server, "/v1/series?resolution=1h").await;
    assert_eq!(status, 400);
    assert_eq!(admin(&server, "/v1/coverage").await.0, 503);
}

#[tokio::test]
async fn the_page_is_served_whole_under_a_policy_and_nothing_else_is() {
    let dir = tempfile::tempdir().expect("temp dir");
    let server = TestServer::start(dir.path(), &[]).await;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("dashboard");
    for entry in fs::read_dir(folder).expect("listed") {
        let path = entry.expect("listed").path();
        let name = path.file_name().and_then(|name| name.to_str());
        let name = name.expect("a name");
        let url = format!("{}/dashboard/{name}", server.admin_url);
        let answer = server.client.get(url).send().await.expect("an answer");
        assert_eq!(answer.status(), 200, "{name} is not part of the binary");
        assert!(
            answer
                .headers()
                .get("content-security-policy")
                .is_some_and(|policy| policy
                    .to_str()
                    .is_ok_and(|policy| policy.starts_with("default-src 'none'")
                        && !policy.contains("unsafe"))),
            "{name}"
        );
        let expected = fs::read_to_string(&path).expect("read");
        let body = answer.text().await.expect("a body");
        assert!(body == expected, "{name} is not that of the folder");
    }
    assert_eq!(admin(&server, "/dashboard/none.js").await.0, 404);
    let public = server.get("/dashboard/").await.status();
    assert_eq!(public, 404, "the dashboard is not for everyone");
    let docs = server.get("/docs").await;
    assert!(docs.url().path() == "/docs/" && docs.status() == 200);
    for (name, status) in [("docs.js", 200), ("style.css", 200), ("main.js", 404)] {
        let answer = server.get(&format!("/docs/{name}")).await;
        assert_eq!(answer.status(), status, "{name}");
    }
    let root = server
        .client
        .get(format!("{}/", server.admin_url))
        .send()
        .await
        .expect("an answer");
    assert!(root.url().path() == "/dashboard/" && root.status() == 200);
}

/// Words that begin with `freshet_`, without what Prometheus adds to the name of a histogram.
fn metric_names(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let names = words.filter(|word| word.starts_with("freshet_"));
    names
        .map(|name| {
            let base = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|ending| name.strip_suffix(ending));
            base.unwrap_or(name).to_owned()
        })
        .collect()
}

#[tokio::test]
async fn board_and_alerts_name_metrics_that_there_are() {
    let dir = tempfile::tempdir().expect("temp dir");
    let server = TestServer::start(dir.path(), &[]).await;
    server
        .publisher
        .publish(new_version(VersionKind::Release, 1))
        .expect("published");
    let url = format!("{}/metrics", server.admin_url);
    let answer = server.client.get(url).send().await.expect("an answer");
    let there = metric_names(&answer.text().await.expect("a body"));
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/monitoring");
    for file in ["grafana.json", "alerts.yml"] {
        let named = metric_names(&fs::read_to_string(folder.join(file)).expect("read"));
        assert!(named.len() > 5, "{file} names metrics");
        let missing: Vec<_> = named.difference(&there).collect();
        assert!(missing.is_empty(), "{file} names {missing:?}");
    }
}

#[test]
fn every_reason_of_data_quality_is_put_in_words() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("dashboard/quality.js")).expect("readable");
    let refused = RejectCode::ALL.map(RejectCode::as_str);
    let set_aside = Reason::ALL.map(Reason::as_str);
    for reason in refused.iter().chain(&set_aside) {
        assert!(page.contains(&format!("\n  {reason}: '")), "{reason}");
    }
}
