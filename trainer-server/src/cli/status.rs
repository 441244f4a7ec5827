//! `freshet status` and `freshet versions`: where a running server stands, and what it has published.

use clap::Args;
use serde_json::Value;

use super::rollout::{AdminArgs, get};
use crate::clock::now_millis;

/// Flags of `freshet versions`.
#[derive(Debug, Clone, Args)]
pub struct VersionsArgs {
    /// How many rows, newest first
    #[arg(long, value_name = "NUMBER", default_value_t = 20)]
    pub limit: u32,
    /// Those of every question.
    #[command(flatten)]
    pub admin: AdminArgs,
}

/// Prints where the server stands.
///
/// # Errors
/// The server does not answer.
pub fn status(args: &AdminArgs) -> anyhow::Result<()> {
    let status = super::replay::block_on(get(args, "/v1/status"))?;
    if args.json {
        println!("{status}");
    } else {
        print!("{}", described(&status, now_millis()));
    }
    Ok(())
}

/// Prints rows of the ledger.
///
/// # Errors
/// The server does not answer, or refuses the number.
pub fn versions(args: &VersionsArgs) -> anyhow::Result<()> {
    let path = format!("/v1/versions?limit={}", args.limit);
    let listed = super::replay::block_on(get(&args.admin, &path))?;
    if args.admin.json {
        println!("{listed}");
        return Ok(());
    }
    let now_millis = now_millis();
    for row in listed["rows"].as_array().into_iter().flatten() {
        println!("{}", line(row, now_millis));
    }
    Ok(())
}

fn described(status: &Value, now_millis: i64) -> String {
    let number = |value: &Value| value.as_u64().unwrap_or(0);
    let trainer = &status["trainer"];
    let version = match status["version"].as_u64() {
        Some(version) => format!(
            "version {version} ({}), published {} ago",
            word(&status["kind"]),
            age(&status["published_at"], now_millis)
        ),
        None => "no version yet".to_owned(),
    };
    let (end, through) = (
        number(&status["log_offset"]),
        number(&status["learned_through"]),
    );
    let ingest = &status["ingest"];
    let refused: Vec<String> = ingest["rejected"]
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(_, count)| number(count) > 0)
        .map(|(code, count)| format!("{code} {count}"))
        .collect();
    let mut text = format!(
        "{version}\n{} records, {} behind; {} items\ntrainer: {}",
        end,
        end.saturating_sub(through),
        number(&status["num_items"]),
        word(&trainer["phase"]),
    );
    if let Some(hit_rate) = trainer["hit_rate_at_10"].as_f64() {
        let popularity = trainer["popularity_hit_rate_at_10"].as_f64();
        let popularity = popularity.map_or_else(String::new, |popularity| {
            format!(" ({popularity:.4} for popularity)")
        });
        text += &format!(", hit rate at 10 {hit_rate:.4}{popularity}");
    }
    let (done, total) = (
        number(&trainer["refit_steps"]),
        number(&trainer["refit_steps_total"]),
    );
    if total > 0 {
        text += &format!(", refit: step {done} of {total}");
    }
    let num_waiting = number(&trainer["events_to_refit"]);
    if num_waiting > 0 {
        text += &format!(", {num_waiting} events passed over that no refit has learned yet");
    }
    text += &format!(
        "\nsince start: {} events accepted, {} repeats, refused: {}\nstore: {:.1} of {:.1} MB\n",
        number(&ingest["accepted"]),
        number(&ingest["duplicates"]),
        if refused.is_empty() {
            "none".to_owned()
        } else {
            refused.join(", ")
        },
        number(&status["store"]["used_bytes"]) as f64 / 1e6,
        number(&status["store"]["disk_bytes_max"]) as f64 / 1e6,
    );
    for trouble in ["error", "paused", "last_alarm"] {
        if let Some(why) = trainer[trouble].as_str() {
            text += &format!("{}: {why}\n", trouble.replace('_', " "));
        }
    }
    if status["is_log_writable"] == false {
        text += "the event log cannot be written\n";
    }
    text
}

fn line(row: &Value, now_millis: i64) -> String {
    match row["row"].as_str() {
        Some("published") => {
            let bytes = row["delta_bytes"]
                .as_u64()
                .or(row["snapshot_bytes"].as_u64());
            format!(
                "{:>8}  {:>8} ago  {:<8} {:<8} {:>10} bytes{}",
                row["version"].as_u64().unwrap_or_default(),
                age(&row["created_at"], now_millis),
                word(&row["kind"]),
                word(&row["channel"]),
                bytes.map_or_else(|| "–".to_owned(), |bytes| bytes.to_string()),
                by(row),
            )
        }
        Some("refused") => format!(
            "       –  {:>8} ago  {} refused: {}",
            age(&row["at"], now_millis),
            word(&row["kind"]),
            word(&row["reason"])
        ),
        _ => format!(
            "       –  {:>8} ago  canary {}{}",
            age(&row["at"], now_millis),
            word(&row["outcome"]),
            by(row)
        ),
    }
}

fn by(row: &Value) -> String {
    let origin = match &row["origin"] {
        Value::String(origin) if origin != "automatic" => format!(", {origin}"),
        Value::Object(origin) => format!(", back to {}", origin["rollback"]["restored"]),
        _ => String::new(),
    };
    let name = row["by"].as_str().map(|by| format!(", by {by}"));
    origin + &name.unwrap_or_default()
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or("unknown")
}

/// `850 ms`, `12 s`, `5 min`, `3 h`, `4 d`; since a moment in milliseconds.
fn age(since: &Value, now_millis: i64) -> String {
    let millis = since
        .as_i64()
        .map_or(0, |since| (now_millis - since).max(0));
    match millis {
        0..1_000 => format!("{millis} ms"),
        1_000..120_000 => format!("{} s", millis / 1_000),
        120_000..7_200_000 => format!("{} min", millis / 60_000),
        7_200_000..172_800_000 => format!("{} h", millis / 3_600_000),
        _ => format!("{} d", millis / 86_400_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_status_is_told_with_its_troubles() {
        let status = json!({
            "version": 7, "kind": "fast", "published_at": 1_000, "log_offset": 20, "learned_through": 18, "num_items": 3,
            "is_log_writable": false,
            "ingest": { "accepted": 10, "duplicates": 2, "rejected": { "malformed": 0, "unknown_item": 4 } },
            "store": { "used_bytes": 2_500_000, "disk_bytes_max": 10_000_000 },
            "trainer": { "phase": "paused", "paused": "the disk is full", "hit_rate_at_10": 0.25, "popularity_hit_rate_at_10": 0.1 },
        });
        let expected = "version 7 (fast), published 4 s ago\n20 records, 2 behind; 3 items\n\
                        trainer: paused, hit rate at 10 0.2500 (0.1000 for popularity)\n\
                        since start: 10 events accepted, 2 repeats, refused: unknown_item 4\nstore: 2.5 of 10.0 MB\n\
                        paused: the disk is full\nthe event log cannot be written\n";
        assert_eq!(described(&status, 5_000), expected);
    }

    #[test]
    fn every_kind_of_row_has_a_line() {
        let rows = [
            (
                json!({ "row": "published", "version": 9, "kind": "fast", "channel": "stable", "created_at": 0,
                        "delta_bytes": 812, "origin": { "rollback": { "restored": 4 } }, "by": "ada" }),
                "       9       3 h ago  fast     stable          812 bytes, back to 4, by ada",
            ),
            (
                json!({ "row": "refused", "kind": "fast", "at": 10_740_000, "reason": "worse" }),
                "       –      60 s ago  fast refused: worse",
            ),
            (
                json!({ "row": "canary", "outcome": "promoted", "at": 10_799_500 }),
                "       –    500 ms ago  canary promoted",
            ),
        ];
        for (row, expected) in rows {
            assert_eq!(line(&row, 10_800_000), expected);
        }
    }
}
