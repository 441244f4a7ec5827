//! Claims about the event log: order, idempotency, durability over reopen, limits.

use super::ids::RecentIds;
use super::*;
use shared_model::event::EventKind;
use shared_model::ids::{EventId, UserId};

const DAY_MILLIS: i64 = 86_400_000;

fn config() -> EventLogConfig {
    EventLogConfig {
        queue_batches_max: 4,
        commit_records_max: 100,
        id_memory_secs: 7 * 86_400,
        cache_bytes: 1 << 20,
    }
}

fn open(dir: &tempfile::TempDir) -> EventLog {
    EventLog::open(dir.path(), &config()).expect("opens")
}

fn event(id: &str, received_at: i64) -> LogRecord {
    let event = Event {
        event_id: EventId::new(id).expect("valid"),
        kind: EventKind::Click,
        user_id: UserId::new("u").expect("valid"),
        item_id: ItemId::new("i").expect("valid"),
        occurred_at: 1,
        value: Some(0.1),
        model_version: None,
        impression_id: None,
        position: None,
        propensity: None,
        arm: None,
    };
    LogRecord::Event(StoredEvent {
        event,
        received_at,
        is_vouched: false,
        arm_phase: None,
    })
}

fn item(id: &str, title: &str) -> Item {
    serde_json::from_value(serde_json::json!({ "item_id": id, "title": title })).expect("valid")
}

fn accepted(offset: u64) -> AppendOutcome {
    AppendOutcome::Accepted(LogOffset(offset))
}

fn duplicate(offset: u64) -> AppendOutcome {
    AppendOutcome::Duplicate(LogOffset(offset))
}

#[test]
fn accepts_an_event_id_once_within_a_batch_and_over_reopen() {
    let dir = tempfile::tempdir().expect("temp dir");
    let log = open(&dir);
    let batch = [event("a", 1), event("b", 1), event("a", 1)];
    let outcomes = log.append_blocking(&batch).expect("written");
    assert_eq!(outcomes, [accepted(0), accepted(1), duplicate(0)]);
    drop(log);

    let log = open(&dir);
    assert_eq!(log.end(), LogOffset(2));
    let outcomes = log
        .append_blocking(&[event("b", 9), event("c", 9)])
        .expect("written");
    assert_eq!(outcomes, [duplicate(1), accepted(2)]);
}

#[test]
fn reads_records_back_in_order_from_any_offset() {
    let dir = tempfile::tempdir().expect("temp dir");
    let log = open(&dir);
    let written = vec![
        LogRecord::ItemPut(item("i", "A tea pot")),
        event("a", 5),
        LogRecord::ItemDelete(ItemId::new("i").expect("valid")),
    ];
    log.append_blocking(&written).expect("written");
    let read = log.read(LogOffset(0), 10).expect("read");
    assert_eq!(
        read.iter()
            .map(|(_, record)| record.clone())
            .collect::<Vec<_>>(),
        written
    );
    let read = log.read(LogOffset(1), 1).expect("read");
    assert_eq!(read, [(LogOffset(1), written[1].clone())]);
    assert_eq!(log.read(LogOffset(3), 10).expect("read"), []);
}

#[test]
fn items_are_the_last_puts_without_the_deleted() {
    let dir = tempfile::tempdir().expect("temp dir");
    let log = open(&dir);
    let gone = ItemId::new("gone").expect("valid");
    log.append_blocking(&[
        LogRecord::ItemPut(item("kept", "first")),
        LogRecord::ItemPut(item("gone", "x")),
        LogRecord::ItemPut(item("kept", "second")),
        LogRecord::ItemDelete(gone),
    ])
    .expect("written");
    assert_eq!(
        log.items().expect("read"),
        [(LogOffset(2), item("kept", "second"))]
    );
}

#[test]
fn ids_are_forgotten_after_the_memory_and_not_before() {
    let dir = tempfile::tempdir().expect("temp dir");
    let log = open(&dir);
    log.append_blocking(&[event("a", 0), event("b", 2 * DAY_MILLIS)])
        .expect("written");
    let outcomes = log
        .append_blocking(&[event("c", 8 * DAY_MILLIS)])
        .expect("written");
    assert_eq!(outcomes, [accepted(2)]);
    let outcomes = log
        .append_blocking(&[event("a", 8 * DAY_MILLIS), event("b", 8 * DAY_MILLIS)])
        .expect("written");
    assert_eq!(outcomes, [accepted(3), duplicate(1)]);
}

#[test]
fn waiting_ends_when_the_log_moves_or_time_is_up() {
    let dir = tempfile::tempdir().expect("temp dir");
    let log = open(&dir);
    assert_eq!(
        log.wait_beyond(LogOffset(0), Duration::from_millis(1)),
        LogOffset(0)
    );
    let waiter = {
        let log = log.clone();
        std::thread::spawn(move || log.wait_beyond(LogOffset(0), Duration::from_secs(20)))
    };
    log.append_blocking(&[event("a", 1)]).expect("written");
    assert_eq!(waiter.join().expect("no panic"), LogOffset(1));
    assert_eq!(*log.watch().borrow(), LogOffset(1));
}

#[test]
fn shutdown_writes_what_waits_and_refuses_more() {
    let dir = tempfile::tempdir().expect("temp dir");
    let log = open(&dir);
    let writers: Vec<_> = (0..8)
        .map(|writer_idx| {
            let log = log.clone();
            std::thread::spawn(move || log.append_blocking(&[event(&format!("w{writer_idx}"), 1)]))
        })
        .collect();
    let outcomes: Vec<_> = writers
        .into_iter()
        .map(|thread| thread.join().expect("no panic"))
        .collect();
    log.shutdown();
    assert!(outcomes.iter().all(Result::is_ok));
    assert_eq!(log.end(), LogOffset(8));
    assert!(matches!(
        log.append_blocking(&[event("x", 1)]),
        Err(EventLogError::Closed)
    ));
    assert!(!log.is_writable());
    assert_eq!(log.read(LogOffset(0), 100).expect("read").len(), 8);
}

#[test]
fn refuses_a_record_over_the_limit() {
    let dir = tempfile::tempdir().expect("temp dir");
    let log = open(&dir);
    let large = LogRecord::ItemPut(item("i", &"x".repeat(RECORD_BYTES_MAX)));
    let error = log
        .append_blocking(&[event("a", 1), large])
        .expect_err("too large");
    assert!(
        matches!(error, EventLogError::RecordTooLarge { record_idx: 1, .. }),
        "{error}"
    );
    assert_eq!(log.end(), LogOffset(0));
}

#[test]
fn a_second_writer_of_the_same_directory_is_refused() {
    let dir = tempfile::tempdir().expect("temp dir");
    let _log = open(&dir);
    assert!(matches!(
        EventLog::open(dir.path(), &config()),
        Err(EventLogError::InUse)
    ));
}

#[tokio::test]
async fn full_queue_is_backpressure_and_loses_nothing() {
    let dir = tempfile::tempdir().expect("temp dir");
    let log = open(&dir);
    // The store takes one writer at a time: while this one is open, the log's own has to wait.
    let database = log.shared.store.database().expect("open");
    let blocker = database.begin_write().expect("begins");
    let queue_batches_max = config().queue_batches_max as u64;
    let mut waiting = Vec::new();
    let refused = loop {
        let (request, reply) = request(&[event(&format!("{}", waiting.len()), 1)]).expect("valid");
        match log.sender().expect("open").try_send(request) {
            Ok(()) => waiting.push(reply),
            Err(_) => break waiting.len() as u64,
        }
    };
    assert!(
        (queue_batches_max..=queue_batches_max + 2).contains(&refused),
        "{refused}"
    );
    let error = log.append(vec![event("late", 1)]).await.expect_err("full");
    assert!(
        matches!(
            error,
            EventLogError::Backpressure {
                queue_batches_max: 4
            }
        ),
        "{error}"
    );

    blocker.abort().expect("aborts");
    for reply in waiting {
        assert_eq!(reply.await.expect("answered").expect("written").len(), 1);
    }
    assert_eq!(log.end(), LogOffset(refused));
    let outcomes = log.append(vec![event("late", 1)]).await.expect("written");
    assert_eq!(outcomes, [accepted(refused)]);
}

#[test]
fn a_store_that_is_opened_again_holds_what_it_held_and_takes_more() {
    let dir = tempfile::tempdir().expect("temp dir");
    let log = open(&dir);
    log.append_blocking(&[event("a", 1)]).expect("written");
    log.shared.store.reopen().expect("nobody reads");
    let outcomes = log
        .append_blocking(&[event("a", 2), event("b", 2)])
        .expect("written");
    assert_eq!(
        outcomes,
        [
            AppendOutcome::Duplicate(LogOffset(0)),
            AppendOutcome::Accepted(LogOffset(1))
        ]
    );
    assert_eq!(log.read(LogOffset(0), 9).expect("readable").len(), 2);
}

/// A log of bare tables whose merge begins after so many ids.
fn tables_with_merge_after(
    dir: &tempfile::TempDir,
    recent_ids_max: usize,
) -> (redb::Database, RecentIds) {
    let database = tables::open(&dir.path().join(LOG_FILE_NAME), 1 << 20).expect("opens");
    let recent = tables::recent_ids(&database).expect("read");
    (database, recent.with_max(recent_ids_max))
}

fn commit_ids(
    (database, recent): &mut (redb::Database, RecentIds),
    ids: std::ops::Range<u32>,
    received_at: i64,
) -> Vec<AppendOutcome> {
    let encode = |id: u32| EncodedRecord::new(&event(&id.to_string(), received_at));
    let records: Vec<_> = ids.map(encode).collect();
    let batch = tables::Batch {
        records: &records,
        is_dry_run: false,
    };
    let committed = tables::commit(database, &[batch], recent, 7 * DAY_MILLIS);
    committed.expect("committed").0.remove(0)
}

#[test]
fn ids_are_known_while_they_wait_for_the_merge_and_after_it_over_any_restart() {
    let dir = tempfile::tempdir().expect("temp dir");
    for round in 0..12 {
        let mut log = tables_with_merge_after(&dir, 200);
        for batch in 0..4 {
            let first = round * 400 + batch * 100;
            let outcomes = commit_ids(&mut log, first..first + 100, 1);
            let offsets: Vec<_> = (first..first + 100)
                .map(|id| accepted(u64::from(id)))
                .collect();
            assert_eq!(outcomes, offsets);
        }
        let again = commit_ids(&mut log, 0..(round + 1) * 400, 2);
        let offsets: Vec<_> = (0..(round + 1) * 400)
            .map(|id| duplicate(u64::from(id)))
            .collect();
        assert_eq!(again, offsets, "round {round}");
    }
}

#[test]
fn ids_that_are_forgotten_leave_the_table_as_the_merge_passes() {
    let dir = tempfile::tempdir().expect("temp dir");
    let mut log = tables_with_merge_after(&dir, 0);
    for batch in 0..10 {
        commit_ids(&mut log, batch * 100..batch * 100 + 100, 1);
    }
    for batch in 10..30 {
        commit_ids(&mut log, batch * 100..batch * 100 + 100, 8 * DAY_MILLIS);
    }
    let num_kept = tables::num_ids_in_table(&log.0).expect("read");
    assert!((1..=2000).contains(&num_kept), "{num_kept} ids");
    assert_eq!(commit_ids(&mut log, 0..1, 8 * DAY_MILLIS), [accepted(3000)]);
    assert_eq!(
        commit_ids(&mut log, 2000..2001, 8 * DAY_MILLIS),
        [duplicate(2000)]
    );
}

#[test]
fn a_log_of_format_1_is_taken_over_with_all_its_ids() {
    let dir = tempfile::tempdir().expect("temp dir");
    drop({
        let mut log = tables_with_merge_after(&dir, 1000);
        for batch in 0..3 {
            commit_ids(&mut log, batch * 10..batch * 10 + 10, 1);
        }
        tables::make_format_1(&log.0, &log.1).expect("written");
        log
    });
    let log = open(&dir);
    let outcomes = log.append_blocking(&[event("0", 2), event("29", 2), event("30", 2)]);
    let expected = [duplicate(0), duplicate(29), accepted(30)];
    assert_eq!(outcomes.expect("written"), expected);
}

#[test]
fn a_dry_run_tells_what_would_be_and_leaves_no_trace() {
    let dir = tempfile::tempdir().expect("temp dir");
    let log = open(&dir);
    log.append_blocking(&[event("a", 1)]).expect("written");
    let batch = [event("a", 2), event("b", 2), event("b", 2)];
    for _ in 0..2 {
        let pending = log.try_out(&batch).expect("room");
        let outcomes = pending.reply.blocking_recv().expect("an answer");
        let expected = [duplicate(0), accepted(1), duplicate(1)];
        assert_eq!(outcomes.expect("read"), expected);
    }
    assert_eq!(log.end(), LogOffset(1));
}
