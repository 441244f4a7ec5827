//! Recipes, what a workshop makes of them, what the gate says, and which rung is taken.

use std::collections::BTreeMap;

use burn::tensor::Device;

use super::figures::Compared;
use super::scene::opened;
use super::*;
use crate::baselines::text_fidelity::Cosines;
use crate::dataset::Dataset;
use crate::prune::tests::parts;

const DIM: usize = 16;
const NUM_ITEMS: usize = 48;
const NUM_USERS: usize = 40;
/// No event of the first four fifths has an item from here on.
const FIRST_COLD: usize = 36;

/// Users who take items with numbers that follow each other; half of them end with items that nobody had before.
fn dataset() -> Dataset {
    let dir = tempfile::tempdir().expect("a folder");
    let mut items = String::from("item_id\ttitle\n");
    for item in 0..NUM_ITEMS {
        items += &format!("i{item}\tred lamp number{item} of shop{}\n", item % 5);
    }
    let mut events = String::from("user_id\titem_id\ttimestamp\n");
    for step in 0..10 {
        for user in 0..NUM_USERS {
            let item = match (step, user % 2) {
                (8.., 0) => FIRST_COLD + (user + step) % 4,
                (_, 0) => FIRST_COLD - 1 - step % 6,
                _ => (user + step) % FIRST_COLD,
            };
            events += &format!("u{user}\ti{item}\t{}\n", 1_000_000 + step * 1000 + user);
        }
    }
    std::fs::write(dir.path().join("items.tsv"), items).expect("room");
    std::fs::write(dir.path().join("events.tsv"), events).expect("room");
    Dataset::load(dir.path(), 1).expect("sound files")
}

/// Items on a circle: those with numbers near each other are alike.
fn circle(num: usize, at: impl Fn(usize) -> f32) -> Vec<f32> {
    let row = |idx: usize| {
        let mut row = vec![0.0; DIM];
        (row[0], row[1]) = (at(idx).cos(), at(idx).sin());
        row
    };
    (0..num).flat_map(row).collect()
}

fn angle(item: usize) -> f32 {
    item as f32 * 0.1
}

/// Embeddings of titles; those of spoiled ones are the same.
fn answers(scene: &Scene, at: impl Fn(usize) -> f32) -> Answers {
    let spoiled = circle(
        scene.spoiled_items.len(),
        |idx| at(scene.spoiled_items[idx]),
    );
    let spoiled = Noise::ALL.map(|noise| (noise, spoiled.clone()));
    let rows = circle(scene.num_items, at);
    scene
        .of_rows(rows, BTreeMap::from(spoiled))
        .expect("rows of every item")
}

fn judged(scene: &Scene, parent: &Answers, child: &Answers) -> Robustness {
    let all = Compared::new(scene, parent, child).expect("users took something new");
    Robustness::of(scene, parent, child, &all)
}

#[test]
fn a_recipe_is_read_as_it_was_written_and_refused_by_field_and_value() {
    let config = parts().config;
    for recipe in candidates(&config, &[8_000_000, 4_000_000], 100) {
        recipe.check(Some(&config)).expect("made for these sizes");
        let json = serde_json::to_vec(&recipe).expect("plain values");
        assert_eq!(Recipe::from_json(&json), Ok(recipe));
    }
    let refused = |json: &str| {
        Recipe::from_json(json.as_bytes())
            .expect_err(json)
            .to_string()
    };
    assert!(refused(r#"{"bytes_max":4,"num_layer":2}"#).contains("num_layer"));
    assert!(refused(r#"{"bytes_max":0}"#).contains("bytes_max is 0"));
    assert!(refused(r#"{"bytes_max":4,"num_heads":0}"#).contains("num_heads is 0"));
    assert!(refused(&" ".repeat(5000)).contains("5000 bytes"));
    let too_many = Recipe {
        num_layers: Some(9),
        bytes_max: 1000,
        ..Recipe::default()
    };
    let error = too_many.check(Some(&config)).expect_err("there are three");
    assert_eq!(
        error.to_string(),
        "recipe field num_layers is 9, expected 1 to 3"
    );
}

#[test]
fn a_workshop_makes_a_smaller_encoder_and_goes_on_from_an_earlier_one() {
    let texts: Vec<String> = [
        "red lamp",
        "blue mugs",
        "the lampshade",
        "green mug",
        "red shade",
    ]
    .map(str::to_owned)
    .into();
    let parent = parts();
    let recipe = Recipe {
        num_layers: Some(2),
        num_neurons: Some(16),
        num_more_tokens: Some(0),
        distill_steps: 4,
        bytes_max: 60_000,
        ..Recipe::default()
    };
    let mut workshop = Workshop::new(&parent, &texts, &Device::flex());
    let mut stages = Vec::new();
    let made = workshop.make(&recipe, None, |stage| {
        stages.push(stage);
        true
    });
    let made = made.expect("sound parts");
    assert_eq!(stages.first(), Some(&Stage::Pruning));
    assert!(stages.contains(&Stage::Learning(4, 4)), "{stages:?}");
    assert_eq!(stages.last(), Some(&Stage::Packing));
    assert!(made.packed.len() <= recipe.bytes_max);
    let (tokenizer, network) = opened(&made.packed).expect("as pages read it");
    let tokens = tokenizer.tokenize("red lamp").expect("a text");
    assert_eq!(
        network.encode(&[tokens]).expect("an embedding").len(),
        parent.config.hidden_size
    );
    assert!(made.parts.config.vocab_size < parent.config.vocab_size);

    let again = workshop
        .make(&recipe, Some(made.parts.clone()), |_| true)
        .expect("its own parts");
    assert_eq!(again.parts.config, made.parts.config);
    assert_ne!(again.parts.tensors, made.parts.tensors, "it learned more");
    let longer = Recipe {
        distill_steps: 5,
        ..recipe
    };
    let ended = workshop.make(&longer, None, |stage| {
        !matches!(stage, Stage::Learning(2, _))
    });
    assert_eq!(ended.map(|_| ()), Err(LadderError::Ended));
}

#[test]
fn the_gate_lets_an_equal_pass_and_names_what_a_worse_one_loses() {
    let dataset = dataset();
    let scene = Scene::new(&dataset).expect("a stream");
    let parent = answers(&scene, angle);
    let same = judged(&scene, &parent, &parent);
    assert!(same.passes(), "{:?}", same.reasons());
    assert!(same.checks.len() >= 10, "{same:?}");
    assert!(
        same.checks.iter().all(|check| check.loss.abs() < 1e-9),
        "{same:?}"
    );

    let worse = answers(&scene, |item| match item {
        FIRST_COLD.. => angle(item) + 1.7,
        _ => angle(item),
    });
    let reasons = judged(&scene, &parent, &worse).reasons().join("\n");
    assert!(reasons.contains("NDCG@10 of cold items"), "{reasons}");
    assert!(
        reasons.contains("texts with typing errors find their item"),
        "{reasons}"
    );
}

#[test]
fn spoiled_texts_are_the_same_in_every_run_and_not_as_they_were() {
    let texts = vec!["white hanging heart holder".to_owned()];
    let common = ["set", "of", "red", "lamp", "gift", "rare"].map(str::to_owned);
    for noise in Noise::ALL {
        let spoiled = noise.spoil(&texts, &common, 3);
        assert_eq!(spoiled, noise.spoil(&texts, &common, 3));
        assert_ne!(spoiled, texts, "{noise:?}");
    }
    let words = |noise: Noise| noise.spoil(&texts, &common, 3)[0].split(' ').count();
    assert_eq!(Noise::ALL.map(words), [4, 2, 4, 9, 40]);
    assert!(!Noise::Stuffed.spoil(&texts, &common, 3)[0].contains("rare"));
}

fn rung(name: &str, bytes: usize, native_ms: f64, ndcg_at_10: f64) -> Rung {
    Rung {
        name: name.to_owned(),
        recipe: Recipe {
            bytes_max: bytes,
            ..Recipe::default()
        },
        bytes,
        num_weights: bytes,
        vocab_size: 10,
        native_ms,
        ndcg_at_10,
        ndcg_at_10_interval: [0.0, 1.0],
        relative_ndcg: ndcg_at_10,
        relative_ndcg_interval: [0.0, 1.0],
        cosine: Cosines {
            mean: 1.0,
            p5: 1.0,
            min: 1.0,
        },
        robustness: Robustness::default(),
    }
}

#[test]
fn the_best_one_that_fits_and_passes_is_taken() {
    let mut rungs = vec![
        rung("whole", 8_000, 6.0, 0.9),
        rung("half", 4_000, 3.0, 0.8),
        rung("as dear and worse", 4_000, 3.0, 0.7),
        rung("third", 3_000, 2.0, 0.75),
    ];
    assert_eq!(frontier(&rungs), [true, true, false, true]);
    let target = |bytes, time_share| Target { bytes, time_share };
    assert_eq!(choose(&rungs, target(8_000, None), 6.0), Some(0));
    assert_eq!(choose(&rungs, target(8_000, Some(0.5)), 6.0), Some(1));
    assert_eq!(choose(&rungs, target(3_500, Some(0.5)), 6.0), Some(3));
    assert_eq!(choose(&rungs, target(100, None), 6.0), None);
    rungs[1].robustness.checks.push(Check {
        name: "NDCG@10 of cold items".to_owned(),
        parent: 0.2,
        child: 0.1,
        loss: 0.5,
        loss_max: 0.05,
        blocks: true,
    });
    assert_eq!(choose(&rungs, target(4_000, Some(0.5)), 6.0), Some(3));
    let told = table(&rungs, &[3], 6.0);
    assert!(
        told.contains("NDCG@10 of cold items: 0.1000 after 0.2000"),
        "{told}"
    );
    assert!(told.contains("**third**"), "{told}");
    assert!(chart(&rungs).contains("half"));
}
