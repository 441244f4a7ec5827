//! Claims about distillation with tiny networks on made-up texts.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use shared_model::text::packed::{self, POSITIONS, TensorKind, WORDS};
use shared_model::text::{BertConfig, LowRankChange, NamedTensor, TextEncoder, TextTokenizer};

use super::*;
use crate::text_pack::Steps;

const DIM: usize = 16;
const NUM_WORDS: usize = 40;
const LEN_MAX: usize = 16;

fn config(num_layers: usize) -> BertConfig {
    let json = format!(
        r#"{{"vocab_size":{NUM_WORDS},"hidden_size":{DIM},"num_hidden_layers":{num_layers},"num_attention_heads":2,
        "intermediate_size":32,"max_position_embeddings":{LEN_MAX},"type_vocab_size":1,"layer_norm_eps":1e-12}}"#
    );
    BertConfig::from_json(json.as_bytes()).expect("a small config")
}

/// Words `w0`, `w1`, … below `num_words`; all others are `w0`.
fn tokenizer_json(num_words: usize) -> Vec<u8> {
    let vocab: serde_json::Map<_, _> = (0..num_words)
        .map(|idx| (format!("w{idx}"), idx.into()))
        .collect();
    let tokenizer = serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": { "type": "Whitespace" }, "post_processor": null, "decoder": null,
        "model": { "type": "WordLevel", "vocab": vocab, "unk_token": "w0" },
    });
    serde_json::to_vec(&tokenizer).expect("JSON")
}

/// Nearly normal, of mean 0 and deviation 1.
fn standard_normal(rng: &mut StdRng) -> f32 {
    (0..12).map(|_| rng.random::<f32>()).sum::<f32>() - 6.0
}

/// A network of two layers with weights drawn by chance.
fn teacher_parts() -> PackSource {
    let mut rng = StdRng::seed_from_u64(7);
    let types = TensorKind::Matrix {
        num_rows: 1,
        num_cols: DIM,
    };
    let types = ("embeddings.token_type_embeddings.weight".to_owned(), types);
    let mut tensors = Vec::new();
    for (name, kind) in packed::layout(&config(2)).into_iter().chain([types]) {
        let (shape, scale) = match kind {
            TensorKind::Matrix { num_rows, num_cols } => (vec![num_rows, num_cols], 0.4),
            TensorKind::Vector { len } => (vec![len], 0.05),
        };
        let center = if name.ends_with("LayerNorm.weight") {
            1.0
        } else {
            0.0
        };
        let values =
            (0..shape.iter().product()).map(|_| center + scale * standard_normal(&mut rng));
        let values = values.collect();
        tensors.push(NamedTensor {
            name,
            shape,
            values,
        });
    }
    PackSource {
        config: config(2),
        tokenizer_json: tokenizer_json(NUM_WORDS),
        tensors,
        len_max: LEN_MAX,
    }
}

/// The teacher without its second layer.
fn student_parts() -> PackSource {
    let mut parts = teacher_parts();
    parts.config = config(1);
    let second = |name: &str| name.starts_with("encoder.layer.1.");
    parts.tensors.retain(|tensor| !second(&tensor.name));
    parts
}

fn encoder(parts: PackSource) -> BertTextEncoder {
    let tokenizer = TextTokenizer::from_bytes(&parts.tokenizer_json, parts.len_max);
    let encoder = TextEncoder::from_named(parts.config, parts.tensors, &Device::flex());
    BertTextEncoder::new(tokenizer.expect("sound"), encoder.expect("sound")).expect("they fit")
}

fn texts(num: usize, seed: u64) -> Vec<String> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut text = || {
        let num_words = rng.random_range(2..8);
        let words = (0..num_words).map(|_| format!("w{}", rng.random_range(1..NUM_WORDS)));
        words.collect::<Vec<_>>().join(" ")
    };
    (0..num).map(|_| text()).collect()
}

fn options(num_steps: usize) -> DistillOptions {
    DistillOptions {
        num_steps,
        num_tokens: 128,
        num_views: 1,
        learning_rate: 5e-3,
        ..DistillOptions::default()
    }
}

fn mean_cosine(teacher: &BertTextEncoder, student: &PackSource, texts: &[String]) -> f32 {
    let expected = teacher.embed(texts).expect("words");
    let actual = encoder(student.clone()).embed(texts).expect("words");
    let products = expected.iter().zip(&actual).map(|(a, b)| a * b);
    products.sum::<f32>() / texts.len() as f32
}

fn distilled(
    teacher: &BertTextEncoder,
    student: PackSource,
    options: &DistillOptions,
) -> PackSource {
    let texts = texts(200, 1);
    distill(teacher, student, &texts, options, &Device::flex(), |_| true).expect("finite")
}

#[test]
fn a_student_of_half_the_layers_learns_texts_it_has_not_seen() {
    let teacher = encoder(teacher_parts());
    let held_out = texts(60, 2);
    let before = mean_cosine(&teacher, &student_parts(), &held_out);
    let student = distilled(&teacher, student_parts(), &options(150));
    let after = mean_cosine(&teacher, &student, &held_out);
    assert!(
        1.0 - after < 0.5 * (1.0 - before),
        "{before} before, {after} after"
    );
    let words = |parts: &PackSource| {
        let mut tensors = parts.tensors.iter();
        let words = tensors.find(|tensor| tensor.name == WORDS);
        words.expect("a network has words").values.clone()
    };
    assert_ne!(words(&student), words(&student_parts()), "words learn too");
}

#[test]
fn a_student_with_fewer_words_learns_what_it_can_read() {
    let num_words = NUM_WORDS / 2;
    let mut start = student_parts();
    start.config.vocab_size = num_words;
    start.tokenizer_json = tokenizer_json(num_words);
    for tensor in start
        .tensors
        .iter_mut()
        .filter(|tensor| tensor.name == WORDS)
    {
        tensor.shape[0] = num_words;
        tensor.values.truncate(num_words * DIM);
    }
    let teacher = encoder(teacher_parts());
    let held_out = texts(60, 2);
    let before = mean_cosine(&teacher, &start, &held_out);
    let student = distilled(&teacher, start, &options(150));
    let after = mean_cosine(&teacher, &student, &held_out);
    assert!(after > before + 0.02, "{before} before, {after} after");
}

#[test]
fn the_teacher_itself_has_nothing_to_learn() {
    let teacher = encoder(teacher_parts());
    let options = options(3);
    let lessons = Lessons::make(&teacher, &texts(50, 1), &options, |_, _| true).expect("words");
    let mut distiller = Distiller::new(teacher_parts(), &options, &Device::flex()).expect("sound");
    let mut reports = Vec::new();
    let learned = distiller.learn(&lessons, |report| {
        reports.push(report);
        false
    });
    learned.expect("finite");
    let [report] = reports.as_slice() else {
        panic!("told to stop after one step: {reports:?}");
    };
    assert!(report.cosine > 1.0 - 1e-4, "{report:?}");
    assert!(
        report.score_loss.abs() < 1e-4 && report.hidden_loss < 1e-6,
        "{report:?}"
    );
}

/// Steps until the mean cosine of ten batches is above `wanted`; all where it never is.
fn steps_to(
    wanted: f32,
    teacher: &BertTextEncoder,
    student: PackSource,
    num_steps: usize,
) -> usize {
    let mut cosines = Vec::new();
    let texts = texts(200, 1);
    let watch = |progress| {
        if let Progress::Step(report) = progress {
            cosines.push(report.cosine);
        }
        let last = &cosines[cosines.len().saturating_sub(10)..];
        last.len() < 10 || last.iter().sum::<f32>() < 10.0 * wanted
    };
    let options = options(num_steps);
    distill(teacher, student, &texts, &options, &Device::flex(), watch).expect("finite");
    cosines.len()
}

/// The teacher with a change by which its embeddings move.
fn moved(teacher: &BertTextEncoder) -> BertTextEncoder {
    let mut rng = StdRng::seed_from_u64(3);
    let mut change =
        LowRankChange::new(&config(2), 2, || standard_normal(&mut rng)).expect("a rank");
    let values: Vec<f32> = (0..change.num_values())
        .map(|_| 0.2 * standard_normal(&mut rng))
        .collect();
    change.set_flat(&values);
    teacher.changed_by(change).expect("it fits")
}

#[test]
fn a_student_follows_a_moved_teacher_by_a_change_of_low_rank() {
    let teacher = encoder(teacher_parts());
    let earlier = distilled(&teacher, student_parts(), &options(150));
    let moved = moved(&teacher);
    let held_out = texts(60, 2);
    let reached = mean_cosine(&teacher, &earlier, &held_out);
    let then = mean_cosine(&moved, &earlier, &held_out);
    let options = DistillOptions {
        learning_rate: 1e-2,
        ..options(100)
    };
    let lessons = Lessons::make(&moved, &texts(200, 1), &options, |_, _| true).expect("texts");
    let student = encoder(earlier);
    let follow = |earlier, num_steps| {
        let options = DistillOptions {
            num_steps,
            ..options
        };
        follow(&student, earlier, 4, &lessons, &options, |_| true).expect("finite")
    };
    let cosine = |change: LowRankChange| {
        let changed = student.changed_by(change).expect("it fits");
        let rows = [&moved, &changed].map(|encoder| encoder.embed(&held_out).expect("sound"));
        let dot: f32 = rows[0].iter().zip(&rows[1]).map(|(a, b)| a * b).sum();
        dot / held_out.len() as f32
    };
    let change = follow(None, 100);
    let with_change = cosine(change.clone());
    assert!(
        with_change > then + 0.3 * (reached - then),
        "{with_change} with the change, {then} without, {reached} before the teacher moved"
    );
    // It goes on from a change that there is.
    let further = cosine(follow(Some(change), 40));
    assert!(
        further > with_change - 0.005,
        "{further}, {with_change} before"
    );
}

#[test]
fn an_earlier_student_follows_a_moved_teacher_in_fewer_steps() {
    let teacher = encoder(teacher_parts());
    let earlier = distilled(&teacher, student_parts(), &options(150));
    let moved = moved(&teacher);
    let held_out = texts(60, 2);
    let reached = mean_cosine(&teacher, &earlier, &held_out);
    let then = mean_cosine(&moved, &earlier, &held_out);
    assert!(
        then < reached,
        "the teacher has moved: {then}, before {reached}"
    );
    let wanted = 0.5 * (then + reached);
    let from_scratch = steps_to(wanted, &moved, student_parts(), 150);
    let from_earlier = steps_to(wanted, &moved, earlier, 150);
    assert!(
        2 * from_earlier < from_scratch,
        "{from_earlier} steps from the earlier student, {from_scratch} from scratch"
    );
}

/// Every matrix rounded as rounding for `step_share` has it.
fn rounded(mut parts: PackSource, step_share: f32) -> PackSource {
    let steps = Steps::of_share(step_share);
    for tensor in parts
        .tensors
        .iter_mut()
        .filter(|tensor| tensor.shape.len() == 2)
    {
        let step = match tensor.name.as_str() {
            WORDS => steps.of_words(&tensor.values)[0],
            POSITIONS => steps.of_matrix(POSITIONS, &tensor.values),
            "embeddings.token_type_embeddings.weight" => continue,
            name => steps.of_matrix(name, &tensor.values),
        };
        let values = tensor.values.iter_mut();
        values.for_each(|value| *value = rounding::round_to(*value, step));
    }
    parts
}

#[test]
fn learning_with_rounded_weights_makes_rounding_cost_less() {
    let teacher = encoder(teacher_parts());
    let held_out = texts(60, 2);
    let step_share = 0.8;
    let error = |rounding| {
        let options = DistillOptions {
            rounding,
            ..options(200)
        };
        let student = distilled(&teacher, student_parts(), &options);
        1.0 - mean_cosine(&teacher, &rounded(student, step_share), &held_out)
    };
    let (with, without) = (
        error(Some(Rounding {
            step_share,
            last_share: 0.5,
        })),
        error(None),
    );
    assert!(with < 0.8 * without, "{with} with, {without} without");
}

#[test]
fn what_cannot_be_distilled_is_refused_with_its_reason() {
    let teacher = encoder(teacher_parts());
    let try_with = |texts: &[String], options: &DistillOptions| {
        let student = student_parts();
        distill(&teacher, student, texts, options, &Device::flex(), |_| true).err()
    };
    assert_eq!(try_with(&[], &options(1)), Some(DistillError::NoTexts));
    let hot = DistillOptions {
        temperature: 0.0,
        ..options(1)
    };
    let refused = try_with(&texts(3, 1), &hot).expect("refused").to_string();
    assert_eq!(refused, "temperature is 0, expected from 0.001 to 10");
    let huge = DistillOptions {
        learning_rate: f64::NAN,
        ..options(1)
    };
    assert!(matches!(
        try_with(&texts(3, 1), &huge),
        Some(DistillError::Option {
            field: "learning_rate",
            ..
        })
    ));
    let distiller = Distiller::new(student_parts(), &options(1), &Device::flex()).expect("sound");
    let (student, teacher) = (DIM, 8);
    assert_eq!(
        distiller.check_width(8),
        Err(DistillError::OtherWidth { student, teacher })
    );
}
