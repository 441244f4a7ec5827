//! Claims about `freshet evaluate` as a program, on datasets of a few hundred generated events.
//!
//! Texts are embedded by hashed words, so that every run takes a second. Not here: quality on real data
//! (`docs/benchmarks`), and the numbers of single metrics, which are tested beside their code.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;

const NUM_ITEMS: u32 = 40;
const SYSTEMS_ALWAYS: [&str; 5] = [
    "freshet",
    "popularity",
    "popularity_7d",
    "item_knn",
    "text_only",
];

/// Item titles and events as `(user, item, unix seconds)`.
struct Lines {
    titles: Vec<String>,
    events: Vec<(u32, u32, i64)>,
}

impl Lines {
    /// Sixty users over eight days, some of whom and some of whose items come late.
    fn generated() -> Self {
        let mut rng = StdRng::seed_from_u64(5);
        let event = |n: u32| {
            let user = rng.random_range(0..20 + n / 15);
            let item = rng.random_range(0..20 + n / 30);
            (user, item, 1_000_000 + i64::from(n) * 1152)
        };
        Self {
            titles: (0..NUM_ITEMS).map(|idx| format!("thing {idx}")).collect(),
            events: (0..600).map(event).collect(),
        }
    }

    fn write(&self, dir: &Path) {
        let mut items = "item_id\ttitle\n".to_owned();
        for (idx, title) in self.titles.iter().enumerate() {
            items.push_str(&format!("i{idx}\t{title}\n"));
        }
        let mut events = "user_id\titem_id\ttimestamp\n".to_owned();
        for (user, item, secs) in &self.events {
            events.push_str(&format!("u{user}\ti{item}\t{secs}\n"));
        }
        std::fs::write(dir.join("items.tsv"), items).expect("the folder is ours");
        std::fs::write(dir.join("events.tsv"), events).expect("the folder is ours");
    }
}

fn evaluate(dir: &Path, flags: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_freshet"))
        .arg("evaluate")
        .arg("--dataset")
        .arg(dir)
        .arg("--json")
        .arg(dir.join("figures.json"))
        .args(flags)
        .env("FRESHET__MODEL__TEXT_ENCODER", "small")
        .output()
        .expect("the program runs")
}

fn figures(dir: &Path, flags: &[&str]) -> Value {
    let output = evaluate(dir, flags);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = std::fs::read_to_string(dir.join("figures.json")).expect("the file was written");
    serde_json::from_str(&text).expect("valid JSON")
}

fn number(system: &Value, field: &str) -> f64 {
    let value = &system[field];
    value
        .as_f64()
        .unwrap_or_else(|| panic!("{field} is {value}"))
}

/// Whatever the data, a reported system has figures that lie where they can lie, and its interval holds them.
fn assert_sound(system: &Value) {
    for field in [
        "hr_at_10",
        "ndcg_at_10",
        "mrr",
        "auc",
        "coverage_at_10",
        "gini",
    ] {
        let value = number(system, field);
        assert!((0.0..=1.0).contains(&value), "{field} is {value}");
    }
    for field in ["hr_at_10", "ndcg_at_10"] {
        let interval = &system[format!("{field}_interval")];
        let (low, high) = (interval[0].as_f64(), interval[1].as_f64());
        let value = system[field].as_f64();
        assert!(
            low <= value && value <= high,
            "{field} is {value:?} of {interval}"
        );
    }
    let recall = &system["recall_at_k"];
    assert_eq!(recall["10"], system["hr_at_10"]);
    assert!(recall["1"].as_f64() <= recall["5"].as_f64());
    let slices = &system["slices"];
    let num = |slice: &str| slices[slice]["num_scored"].as_u64().expect("a count");
    let num_new = system["num_scored"].as_u64().expect("a count");
    assert_eq!(num("cold_item") + num("warm_item"), num_new);
    assert_eq!(num("cold_user") + num("known_user"), num_new);
    assert!(num("cold_item") > 0 && num("cold_user") > 0 && num("repeat") > 0);
}

fn files_below(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).expect("a folder");
    let paths = entries.map(|entry| entry.expect("readable").path());
    paths.collect()
}

#[test]
fn a_prequential_run_reports_every_system_with_costs_page_and_curves() {
    let dir = tempfile::tempdir().expect("temp dir");
    Lines::generated().write(dir.path());
    let (page, curves) = (dir.path().join("page.html"), dir.path().join("curves"));
    let flags = [
        "--refit-days",
        "1",
        "--sasrec",
        "--html",
        page.to_str().expect("a plain path"),
        "--tensorboard",
        curves.to_str().expect("a plain path"),
    ];
    let document = figures(dir.path(), &flags);
    let systems = &document["systems"];
    for name in SYSTEMS_ALWAYS
        .iter()
        .chain(&["frozen", "refit_daily", "sasrec"])
    {
        assert_sound(&systems[name]);
        let is_reference = *name == "freshet";
        assert_eq!(
            systems[name].get("minus_freshet").is_none(),
            is_reference,
            "{name}"
        );
        assert_eq!(files_below(&curves.join(name)).len(), 1, "{name}");
    }
    assert!(number(&systems["freshet"], "log_loss") > 0.0);
    assert!(systems["popularity"]["log_loss"].is_null());
    assert!(systems["popularity"]["log_loss_why"].is_string());
    let costs = &document["costs"];
    assert!(
        costs["refit_daily"]["num_refits"].as_u64() >= Some(1),
        "{costs}"
    );
    assert!(
        costs["refit_daily"]["cpu_secs"].is_number() || costs["refit_daily"]["why"].is_string()
    );
    let html = std::fs::read_to_string(&page).expect("the page was written");
    assert_eq!(html.matches("<svg").count(), 4);
    assert!(
        !html.contains("http://") && !html.contains("https://"),
        "a page that loads nothing"
    );
}

#[test]
fn nothing_is_learned_from_what_a_frozen_protocol_holds_out() {
    let dir = tempfile::tempdir().expect("temp dir");
    let mut lines = Lines::generated();
    lines.write(dir.path());
    let document = figures(dir.path(), &["--protocol", "time-split"]);
    for name in SYSTEMS_ALWAYS {
        assert_sound(&document["systems"][name]);
    }
    for name in ["frozen", "refit_daily", "sasrec"] {
        assert!(document["systems"][name]["why"].is_string(), "{name}");
    }
    assert_eq!(document["dataset_counts"]["held_out_events"], 120);
    // A hit of the last fifth, taken by users without a past: only who learns from the stream can know it.
    let before = (0..120).map(|n| (n % 30, n % 12, i64::from(n)));
    let hit = (120..150).map(|n| (n, 12, i64::from(n)));
    lines.events = before.chain(hit).collect();
    lines.write(dir.path());
    let frozen = figures(dir.path(), &["--protocol", "time-split"]);
    let learning = figures(dir.path(), &["--protocol", "prequential"]);
    let hit_rate = |document: &Value, name: &str| number(&document["systems"][name], "hr_at_10");
    for name in ["popularity", "popularity_7d"] {
        assert_eq!(hit_rate(&frozen, name), 0.0, "{name}");
        assert!(hit_rate(&learning, name) > 0.5, "{name}");
    }
    assert_eq!(
        hit_rate(&frozen, "freshet"),
        hit_rate(&learning, "frozen"),
        "the same version and the same events"
    );
}

#[test]
fn leave_one_out_asks_once_per_user() {
    let dir = tempfile::tempdir().expect("temp dir");
    let lines = Lines::generated();
    lines.write(dir.path());
    let document = figures(dir.path(), &["--protocol", "leave-one-out"]);
    let users: std::collections::BTreeSet<u32> = lines.events.iter().map(|event| event.0).collect();
    assert_eq!(document["num_users_scored"], users.len());
    assert_eq!(document["dataset_counts"]["held_out_events"], users.len());
    for name in SYSTEMS_ALWAYS {
        assert!(document["systems"][name]["hr_at_10"].is_number(), "{name}");
    }
}

#[test]
fn one_user_one_item_one_second_and_empty_titles_give_reasons_in_place_of_figures() {
    let every_second = |num_users: u32, num_items: u32| {
        let event = |n: u32| (n % num_users, n % num_items, i64::from(n) * 1500);
        (0..60).map(event).collect::<Vec<_>>()
    };
    let titles = |num: u32, title: &str| (0..num).map(|_| title.to_owned()).collect::<Vec<_>>();
    let mut at_once = every_second(20, 12);
    for event in &mut at_once {
        event.2 = 7;
    }
    let cases = [
        (titles(12, "x"), every_second(1, 12)),
        (titles(1, "x"), every_second(20, 1)),
        (titles(12, "x"), at_once),
        (titles(12, ""), every_second(20, 12)),
    ];
    for (titles, events) in cases {
        let dir = tempfile::tempdir().expect("temp dir");
        Lines { titles, events }.write(dir.path());
        for protocol in ["prequential", "time-split", "leave-one-out"] {
            let document = figures(dir.path(), &["--protocol", protocol]);
            let freshet = &document["systems"]["freshet"];
            if freshet["hr_at_10"].is_null() {
                assert!(freshet["why"].is_string(), "{freshet}");
            }
            if freshet["hr_at_10_interval"].is_null() {
                assert!(freshet["interval_why"].is_string(), "{freshet}");
            }
        }
    }
}

#[test]
fn what_cannot_be_evaluated_is_refused_with_the_reason() {
    let dir = tempfile::tempdir().expect("temp dir");
    let refusal = |lines: &Lines, flags: &[&str]| {
        lines.write(dir.path());
        let output = evaluate(dir.path(), flags);
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let mut lines = Lines::generated();
    let unasked = refusal(&lines, &["--protocol", "time-split", "--sasrec"]);
    assert!(
        unasked.contains("--sasrec") && unasked.contains("prequential"),
        "{unasked}"
    );
    let no_days = refusal(&lines, &["--refit-days", "0"]);
    assert!(
        no_days.contains("refit-days") && no_days.contains('0'),
        "{no_days}"
    );
    lines.events[17].1 = 4711;
    let unknown = refusal(&lines, &[]);
    assert!(
        unknown.contains("i4711") && unknown.contains("line 19"),
        "{unknown}"
    );
    lines.events.truncate(1);
    let too_few = refusal(&lines, &["--protocol", "leave-one-out"]);
    assert!(
        too_few.contains('1') && too_few.contains("too few"),
        "{too_few}"
    );
    // Every user once: the last event of each is all there is.
    lines.events = (0..10).map(|n| (n, n, i64::from(n))).collect();
    let nothing_left = refusal(&lines, &["--protocol", "leave-one-out"]);
    assert!(
        nothing_left.contains("leave-one-out learns 0 of 10"),
        "{nothing_left}"
    );
}
