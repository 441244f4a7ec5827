//! Tests of dataset reading.

use super::*;

const ITEMS: &str = "item_id\ttitle\n1\tPEN\n2\tCUP\n";

fn load(events: &str, items: &str) -> Result<Dataset, DatasetError> {
    let dir = tempfile::tempdir().expect("temp dir");
    std::fs::write(dir.path().join("events.tsv"), events).expect("write");
    std::fs::write(dir.path().join("items.tsv"), items).expect("write");
    Dataset::load(dir.path(), 1)
}

fn message(events: &str, items: &str) -> String {
    load(events, items).expect_err("refused").to_string()
}

#[test]
fn quantity_means_purchase_and_rating_means_rating() {
    let dataset = load(
        "user_id\titem_id\tquantity\ttimestamp\nu\t2\t3\t10\n",
        ITEMS,
    )
    .expect("valid");
    assert_eq!(dataset.kind, EventKind::Purchase);
    assert_eq!(
        dataset.events,
        vec![DatasetEvent {
            user_idx: 0,
            item_idx: 1,
            occurred_at: 10_000,
            value: Some(3.0)
        }]
    );
    let dataset = load(
        "timestamp\trating\titem_id\tuser_id\r\n10\t7\t1\tu\r\n",
        ITEMS,
    )
    .expect("any column order");
    assert_eq!(
        (dataset.kind, dataset.events[0].value),
        (EventKind::Rating, Some(7.0))
    );
    let event = dataset.to_event(&dataset.events[0], EventId::new("e").expect("id"));
    assert_eq!(
        (event.item_id.as_str(), event.user_id.as_str(), event.value),
        ("1", "u", Some(7.0))
    );
}

#[test]
fn year_and_genres_become_text_and_the_rest_attributes() {
    let items =
        "item_id\ttitle\tyear\tgenres\tprice\n1\tThe Bank\t1915\tComedy|Short\t0.85\n2\tX\t\t\t\n";
    let dataset = load("user_id\titem_id\ttimestamp\nu\t1\t0\n", items).expect("valid");
    assert_eq!(
        dataset.items[0].text.as_deref(),
        Some("1915, Comedy, Short")
    );
    assert_eq!(dataset.items[0].attributes["price"], "0.85");
    assert_eq!(dataset.items[1].text, None);
}

#[test]
fn errors_name_line_and_field() {
    let header = "user_id\titem_id\tquantity\ttimestamp\n";
    let bad_time = message(&format!("{header}u\t1\t1\t5\nu\t1\t1\tnoon\n"), ITEMS);
    assert!(
        bad_time.contains("line 3") && bad_time.contains("timestamp") && bad_time.contains("noon"),
        "{bad_time}"
    );
    let bad_value = message(&format!("{header}u\t1\tNaN\t5\n"), ITEMS);
    assert!(
        bad_value.contains("line 2") && bad_value.contains("quantity"),
        "{bad_value}"
    );
    let unknown = message(&format!("{header}u\t9\t1\t5\n"), ITEMS);
    assert!(
        unknown.contains("item_id") && unknown.contains("no such item"),
        "{unknown}"
    );
    let short = message(&format!("{header}u\t1\t5\n"), ITEMS);
    assert!(
        short.contains("3 fields") && short.contains("has 4"),
        "{short}"
    );
    let repeated = message(header, "item_id\ttitle\n1\tA\n1\tB\n");
    assert!(
        repeated.contains("line 3") && repeated.contains("line 2 has the same id"),
        "{repeated}"
    );
}

#[test]
fn missing_columns_and_empty_files_are_refused() {
    assert!(message("user_id\ttimestamp\nu\t1\n", ITEMS).contains("no column item_id"));
    assert!(message("user_id\titem_id\ttimestamp\n", ITEMS).contains("no line after the header"));
    assert!(message("", ITEMS).contains("no line after the header"));
    assert!(message("a\ta\n", ITEMS).contains("column a twice"));
    let long = format!(
        "user_id\titem_id\ttimestamp\n{}\t1\t1\n",
        "u".repeat(LINE_BYTES_MAX)
    );
    assert!(message(&long, ITEMS).contains("line 2 is longer"));
}

#[test]
fn ties_are_broken_by_the_seed_and_time_comes_first() {
    let mut text = String::from("user_id\titem_id\ttimestamp\n");
    for user in 0..50 {
        text.push_str(&format!("u{user}\t1\t100\n"));
    }
    text.push_str("early\t1\t99\n");
    let dir = tempfile::tempdir().expect("temp dir");
    std::fs::write(dir.path().join("events.tsv"), text).expect("write");
    std::fs::write(dir.path().join("items.tsv"), ITEMS).expect("write");
    let first = Dataset::load(dir.path(), 1).expect("valid");
    assert_eq!(first, Dataset::load(dir.path(), 1).expect("valid"));
    assert_ne!(
        first.events,
        Dataset::load(dir.path(), 2).expect("valid").events
    );
    assert_eq!(
        first.users[first.events[0].user_idx as usize].as_str(),
        "early"
    );
    assert!(
        first.events[1..]
            .windows(2)
            .any(|pair| pair[0].user_idx > pair[1].user_idx)
    );
}

#[test]
fn split_is_by_number_of_events() {
    let dataset = load(
        "user_id\titem_id\ttimestamp\nu\t1\t0\nu\t1\t1\nu\t1\t2\nu\t1\t3\nu\t1\t4\n",
        ITEMS,
    )
    .expect("valid");
    assert_eq!(
        (
            dataset.split_at(0.8),
            dataset.split_at(0.0),
            dataset.split_at(1.0)
        ),
        (4, 0, 5)
    );
}
