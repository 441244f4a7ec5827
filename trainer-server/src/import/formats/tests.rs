//! Claims about the importers by name, on the files in `fixtures`.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::*;
use crate::import::rows::Rows;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("src/import/formats/fixtures")
        .join(name)
}

/// All records of an importer's files, items before events.
fn read(importer: Importer, name: &str, kinds: &[(&str, &str)]) -> (Vec<Value>, Vec<String>) {
    let kinds = kinds
        .iter()
        .map(|(ours, theirs)| ((*ours).to_owned(), (*theirs).to_owned()));
    let mapping = Mapping {
        kinds: kinds.collect(),
        ..Mapping::default()
    };
    let found = importer
        .find(&[fixture(name)], &mapping)
        .expect("its files");
    let mut records = Vec::new();
    for mut part in found.parts {
        let mut rows = Rows::open(&part.path, part.shape, part.header, &[]).expect("opens");
        while let Some(numbered) = rows.next_row().expect("readable") {
            let row = numbered.row.expect("a row");
            part.mapper.map(row, &mut records).expect("mapped");
        }
        part.mapper.finish(&mut records);
    }
    let file_name = |path: &PathBuf| {
        path.file_name()
            .expect("a file")
            .to_string_lossy()
            .into_owned()
    };
    (records, found.skipped.iter().map(file_name).collect())
}

#[test]
fn movielens_is_read_in_all_three_forms() {
    let (records, skipped) = read(Importer::Movielens, "movielens", &[]);
    assert_eq!(skipped, ["README.txt", "tags.csv"]);
    assert_eq!(records.len(), 5);
    assert_eq!(
        records[0],
        json!({
            "item_id": "1", "title": "Two Rivers, One Bridge (1999)", "text": "Drama, Romance",
            "attributes": { "genres": ["Drama", "Romance"] },
        })
    );
    assert_eq!(
        (&records[1]["text"], &records[1]["attributes"]["genres"]),
        (&Value::Null, &json!([]))
    );
    assert_eq!(
        records[2],
        json!({
            "kind": "rating", "user_id": "7", "item_id": "1", "value": 4.5,
            "occurred_at": 1_147_880_044_000_i64,
        })
    );
    for name in ["movielens-1m", "movielens-100k"] {
        let (records, _) = read(Importer::Movielens, name, &[]);
        assert_eq!(records.len(), 4, "{name}");
        assert_eq!(records[0]["title"], "Café Noir (1995)", "{name}");
        assert_eq!(records[0]["text"], "Comedy, Crime", "{name}");
        assert_eq!(
            (&records[3]["user_id"], &records[3]["item_id"]),
            (&json!("8"), &json!("2"))
        );
    }
}

#[test]
fn mind_becomes_impressions_at_their_places_and_clicks() {
    let (records, skipped) = read(Importer::Mind, "mind", &[]);
    assert_eq!(skipped, ["entity_embedding.vec"]);
    assert_eq!(records[0]["title"], "The \"quiet\" final");
    assert_eq!(
        records[0]["text"],
        "A match without a crowd., sports, soccer"
    );
    let events = &records[2..];
    let told: Vec<_> = events
        .iter()
        .map(|event| {
            (
                event["kind"].as_str(),
                event["item_id"].as_str(),
                event["position"].as_u64(),
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            (Some("impression"), Some("N1"), Some(0)),
            (Some("impression"), Some("N2"), Some(1)),
            (Some("click"), Some("N1"), Some(0)),
            (Some("impression"), Some("N2"), Some(0)),
            (Some("impression"), Some("N9"), Some(1)),
            (Some("click"), Some("N9"), Some(1)),
        ]
    );
    assert_eq!(events[0]["impression_id"], "1-U7-1573463158000");
    assert_eq!(events[3]["occurred_at"], json!(1_573_582_290_000_i64));
}

#[test]
fn amazon_reviews_are_told_from_metadata_and_packed_ones_are_read() {
    let (records, _) = read(Importer::Amazon, "amazon-2018", &[]);
    assert_eq!(records.len(), 6);
    assert_eq!(records[0]["text"], "Home, Kitchen. A pot. For tea.");
    assert_eq!(
        records[0]["attributes"],
        json!({ "brand": "Example", "price": "$12.99" })
    );
    assert_eq!(records[1]["title"], "0000000002");
    let told = |record: &Value| {
        (
            record["user_id"].clone(),
            record["item_id"].clone(),
            record["occurred_at"].clone(),
        )
    };
    // Of ratings without a header, then of reviews.
    assert_eq!(
        told(&records[2]),
        (
            json!("A1EXAMPLE00001"),
            json!("B000000001"),
            json!(1_441_324_800_000_i64)
        )
    );
    assert_eq!(
        told(&records[5]),
        (
            json!("A1EXAMPLE00002"),
            json!("0000000002"),
            json!(1_441_411_200_000_i64)
        )
    );

    let (records, _) = read(Importer::Amazon, "amazon-2023", &[]);
    assert_eq!(records.len(), 3);
    assert_eq!(records[0]["attributes"]["price"], json!(3.5));
    assert_eq!(
        told(&records[1]),
        (
            json!("AEXAMPLEUSERTWO"),
            json!("B000000010"),
            json!(1_588_687_728_924_i64)
        )
    );
    assert_eq!(
        told(&records[2]),
        (
            json!("AEXAMPLEUSERONE"),
            json!("B000000010"),
            json!(1_588_687_728_923_i64)
        )
    );
}

#[test]
fn gorse_feedback_has_kinds_by_its_type() {
    let (records, skipped) = read(Importer::Gorse, "gorse", &[("like", "favourite")]);
    assert_eq!(skipped, ["users.csv"]);
    assert_eq!(
        (&records[0]["title"], &records[0]["available"]),
        (&json!("o,n,e"), &json!(true))
    );
    assert_eq!(
        records[0]["attributes"]["labels"],
        json!({ "genre": ["comedy", "sci-fi"] })
    );
    assert_eq!(
        (&records[1]["title"], &records[1]["available"]),
        (&json!("t\r\nw\r\no"), &json!(false))
    );
    let kinds: Vec<_> = records[2..]
        .iter()
        .filter_map(|event| event["kind"].as_str())
        .collect();
    assert_eq!(kinds, ["like", "view", "like"]);
    assert_eq!(records[2]["occurred_at"], json!(1_641_085_261_000_i64));
}

#[test]
fn metarank_items_are_put_together_and_rankings_become_impressions() {
    let (records, _) = read(
        Importer::Metarank,
        "metarank/events.jsonl",
        &[("purchase", "bought")],
    );
    assert_eq!(records[0]["title"], "Nice cat");
    assert_eq!(records[0]["attributes"], json!({ "price": 12 }));
    assert_eq!(
        (&records[1]["title"], &records[1]["attributes"]["color"]),
        (&json!("i2"), &json!(["white", "black"]))
    );
    let told: Vec<_> = records[2..]
        .iter()
        .map(|event| {
            (
                event["event_id"].as_str(),
                event["kind"].as_str(),
                event["user_id"].as_str(),
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            (Some("r1-0"), Some("impression"), Some("u1")),
            (Some("r1-1"), Some("impression"), Some("u1")),
            (Some("c1"), Some("click"), Some("s1")),
            (Some("c2"), Some("purchase"), Some("u1")),
        ]
    );
    assert_eq!(records[4]["impression_id"], "r1");
}

#[test]
fn a_file_of_another_system_is_refused_with_the_importer_that_reads_it() {
    let importers = [
        (Importer::Movielens, "movielens/ratings.csv"),
        (Importer::Mind, "mind/behaviors.tsv"),
        (Importer::Amazon, "amazon-2023/reviews.jsonl.gz"),
        (Importer::Gorse, "gorse/items.csv"),
        (Importer::Metarank, "metarank/events.jsonl"),
    ];
    for (owner, name) in importers {
        for other in Importer::ALL {
            let found = other.find(&[fixture(name)], &Mapping::default());
            if other == owner {
                assert!(found.is_ok(), "{name}");
                continue;
            }
            let error = found.err().expect("not its file").to_string();
            assert!(
                error.contains(&format!("--from {} reads it", owner.as_str())),
                "{error}"
            );
        }
        let error = Part::generic(&fixture(name), Content::Items, &Mapping::default());
        let error = error.err().expect("no column of ours").to_string();
        assert!(error.contains(owner.as_str()), "{error}");
    }
    let error = Importer::Mind.find(&[fixture("gorse")], &Mapping::default());
    let error = error.err().expect("a folder of Gorse").to_string();
    assert!(error.contains("--from gorse reads it"), "{error}");
    let error = Importer::Mind.find(&[fixture("movielens/README.txt")], &Mapping::default());
    let error = error.err().expect("no table").to_string();
    assert!(
        error.contains("expected behaviors.tsv and news.tsv"),
        "{error}"
    );
}
