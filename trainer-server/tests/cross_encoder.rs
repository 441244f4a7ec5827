//! Claims about `freshet cross-encoder` as a program, on generated data where the text decides.
//!
//! The small network learns from nothing in seconds, so no weights are needed. Not here: quality on real
//! data (`docs/benchmarks/cross-encoder.md`), and single figures, which are tested beside their code.

use std::path::Path;
use std::process::{Command, Output};

use burn::tensor::Device;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use serde_json::Value;
use trainer_server::cross_encoder::CrossScorer;

const COLOURS: [&str; 4] = ["red", "green", "blue", "white"];
const THINGS: [&str; 16] = [
    "mug", "bag", "clock", "lamp", "towel", "plate", "spoon", "chair", "shelf", "candle", "basket",
    "mirror", "pillow", "kettle", "bottle", "frame",
];

/// Each user takes things of one colour; a rating is 9 for every other thing and 3 for the rest.
fn write_dataset(dir: &Path, num_users: usize, has_ratings: bool) {
    let mut rng = StdRng::seed_from_u64(11);
    let mut items = "item_id\ttitle\n".to_owned();
    for idx in 0..COLOURS.len() * THINGS.len() {
        let (colour, thing) = (COLOURS[idx % COLOURS.len()], THINGS[idx / COLOURS.len()]);
        items.push_str(&format!("i{idx}\t{colour} {thing}\n"));
    }
    let value = if has_ratings { "\trating" } else { "" };
    let mut events = format!("user_id\titem_id\ttimestamp{value}\n");
    let mut taken: Vec<(usize, usize, u32)> = Vec::new();
    for user in 0..num_users {
        let mut own: Vec<usize> = (0..THINGS.len()).collect();
        own.shuffle(&mut rng);
        for item in own.into_iter().take(10) {
            let at = rng.random_range(0..864_000);
            taken.push((user, item * COLOURS.len() + user % COLOURS.len(), at));
        }
    }
    for (user, item, at) in taken {
        let grade = if item / COLOURS.len() % 2 == 0 { 9 } else { 3 };
        let value = if has_ratings {
            format!("\t{grade}")
        } else {
            String::new()
        };
        events.push_str(&format!("u{user}\ti{item}\t{at}{value}\n"));
    }
    std::fs::write(dir.join("items.tsv"), items).expect("the folder is ours");
    std::fs::write(dir.join("events.tsv"), events).expect("the folder is ours");
}

fn cross_encoder(dir: &Path, flags: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_freshet"))
        .args(["cross-encoder", "--encoder", "small", "--tokens-max", "24"])
        .arg("--dataset")
        .arg(dir)
        .arg("--json")
        .arg(dir.join("figures.json"))
        .args(flags)
        .env("FRESHET__MODEL__TEXT_ENCODER", "small") // of the Ranker
        .output()
        .expect("the program runs")
}

fn figures(dir: &Path, flags: &[&str]) -> Value {
    let output = cross_encoder(dir, flags);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let json = std::fs::read(dir.join("figures.json")).expect("it wrote them");
    serde_json::from_slice(&json).expect("JSON")
}

/// A figure of one system in one table.
fn value(table: &Value, system: &str, figure: &str) -> f64 {
    let value = &table["systems"][system][figure]["value"];
    let number = value.as_f64();
    number.unwrap_or_else(|| panic!("{system} {figure}: {table:#}"))
}

#[test]
fn clicks_and_ratings_that_the_text_decides_are_learned_and_the_network_is_saved() {
    let dir = tempfile::tempdir().expect("tempdir");
    write_dataset(dir.path(), 200, true);
    let saved = dir.path().join("saved");
    let flags = [
        "--strategy",
        "full",
        "--passes",
        "4",
        "--learning-rate",
        "0.003",
        "--history-len",
        "2",
        "--lists-max",
        "60",
        "--save",
        saved.to_str().expect("text"),
    ];
    let found = figures(dir.path(), &flags);
    let auc = |system| value(&found["clicks"], system, "auc");
    assert!(auc("tuned") > 0.75, "{}", auc("tuned"));
    assert!(
        auc("tuned") > auc("popularity_7d") + 0.1,
        "counts know no colours"
    );
    let rmse = |system| value(&found["ratings"], system, "rmse");
    assert!(
        rmse("tuned") < 0.5 * rmse("global_mean"),
        "{}",
        rmse("tuned")
    );
    assert!(found["ratings"]["systems"]["frozen"]["rmse"]["first_minus_this_interval"].is_array());
    assert!(found["lists"]["weight"].is_number());
    assert!(value(&found["lists"]["figures"], "base", "ndcg_at_10") > 0.0);

    let scorer = CrossScorer::load(&saved, &Device::flex()).expect("it saved one");
    let scores = scorer
        .score_items("loved red mug", &["red clock", "red bag"])
        .expect("finite");
    assert!(scores[0].rating > scores[1].rating + 3.0, "{scores:?}");
}

#[test]
fn purchases_have_no_ratings_and_one_user_no_intervals() {
    let dir = tempfile::tempdir().expect("tempdir");
    write_dataset(dir.path(), 1, false);
    let found = figures(dir.path(), &["--strategy", "head", "--passes", "1"]);
    assert!(found["ratings"].is_null());
    assert_eq!(found["stream"]["events"], 2);
    let notes = found["clicks"]["notes"].to_string();
    assert!(notes.contains("there are 1"), "{notes}");
    // Everything that anybody took was taken by this user, so there is no negative.
    assert!(notes.contains("no AUC"), "{notes}");
    assert!(found["clicks"]["systems"]["tuned"]["auc"]["value"].is_null());
}

#[test]
fn lists_of_the_ranker_hold_items_and_are_reranked() {
    let dir = tempfile::tempdir().expect("tempdir");
    write_dataset(dir.path(), 60, false);
    let flags = ["--strategy", "head", "--passes", "1", "--base", "ranker"];
    let found = figures(dir.path(), &flags);
    let lists = &found["lists"];
    assert_eq!(lists["base"], "ranker (frozen)");
    let share = lists["share_with_taken"].as_f64().expect("a number");
    assert!(share > 0.3, "a third of the catalogue is listed: {share}");
    assert!(value(&lists["figures"], "cross", "ndcg_at_10") > 0.0);
}

#[test]
fn flags_and_datasets_that_make_no_sense_are_refused_by_name() {
    let dir = tempfile::tempdir().expect("tempdir");
    write_dataset(dir.path(), 3, false);
    let refused = |flags: &[&str]| {
        let output = cross_encoder(dir.path(), flags);
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let said = refused(&["--negatives", "0"]);
    assert!(
        said.contains("--negatives is 0, expected 1 to 100"),
        "{said}"
    );
    let said = refused(&["--learning-rate", "NaN"]);
    assert!(said.contains("--learning-rate is NaN"), "{said}");

    std::fs::write(
        dir.path().join("events.tsv"),
        "user_id\titem_id\ttimestamp\nu0\ti0\t5\nu1\ti1\t6\n",
    )
    .expect("the folder is ours");
    let said = refused(&[]);
    assert!(said.contains("nothing to learn"), "{said}");
}
