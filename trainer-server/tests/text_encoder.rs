//! Claims about the pretrained text encoder with its real weights, and about its cache.
//!
//! The weights come from the cache folder or are downloaded into it, the golden vectors from
//! `$FRESHET_DATA/minilm-l6-v2` (default `../shared/data` beside the workspace). Where either
//! cannot be had, the claims that need it say so and pass.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use burn::tensor::Device;
use indicatif::ProgressBar;
use redb::ReadableTable;
use serde::Deserialize;
use shared_model::kernels::Form;
use shared_model::text::parameters::is_unused;
use shared_model::text::{
    AnyTextEncoder, BertConfig, HostTextEncoder, TextEncoder, TextError, TextTokenizer,
    TokenizedText,
};
use trainer_server::config::TextEncoderChoice;
use trainer_server::text_source::{
    CachedTextEncoder, EmbeddingCache, TextSource, TextSourceError, default_cache_dir,
    fetch_pretrained, load, read_encoder_files,
};

/// Unit vectors of 384 values from six layers in f32, summed in another order than the reference.
const GOLDEN_TOLERANCE: f32 = 1e-4;
/// Of embeddings with weights and activations in integers, to those in f32.
const HOST_COSINE_MIN: f32 = 0.999;
/// Every so many items of a catalogue are embedded: some sixty.
const ITEM_STEP: usize = 60;

#[derive(Deserialize)]
struct Golden {
    text: String,
    input_ids: Vec<u32>,
    embedding: Vec<f32>,
}

fn dataset_path(path: &str) -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let folder = std::env::var_os("FRESHET_DATA").map_or(beside, PathBuf::from);
    let path = folder.join(path);
    if !path.is_file() {
        eprintln!(
            "skipped: {} is not there (set FRESHET_DATA)",
            path.display()
        );
        return None;
    }
    Some(path)
}

/// Folder of the weights; fetched once per run.
fn weights_dir() -> Option<&'static Path> {
    static DIR: OnceLock<Option<PathBuf>> = OnceLock::new();
    let dir =
        DIR.get_or_init(
            || match fetch_pretrained(&default_cache_dir(), &ProgressBar::hidden()) {
                Ok(dir) => Some(dir),
                Err(error) => {
                    eprintln!("skipped: the pretrained weights cannot be had: {error}");
                    None
                }
            },
        );
    dir.as_deref()
}

fn source(choice: TextEncoderChoice, dir: Option<&Path>, cache_dir: &Path) -> TextSource {
    TextSource {
        choice,
        dir: dir.map(Path::to_owned),
        cache_dir: cache_dir.to_owned(),
    }
}

fn load_from(dir: &Path) -> Result<AnyTextEncoder, TextSourceError> {
    let nowhere = dir.join("no-cache");
    let source = source(TextEncoderChoice::Pretrained, Some(dir), &nowhere);
    load(&source, &Device::flex(), &ProgressBar::hidden())
}

fn pretrained() -> Option<AnyTextEncoder> {
    Some(load_from(weights_dir()?).expect("fetched weights load"))
}

fn golden() -> Option<Vec<Golden>> {
    let json = fs::read(dataset_path("minilm-l6-v2/golden.json")?).expect("readable");
    Some(serde_json::from_slice(&json).expect("golden vectors"))
}

fn largest_difference(left: &[f32], right: &[f32]) -> f32 {
    assert_eq!(left.len(), right.len());
    left.iter()
        .zip(right)
        .map(|(left, right)| (left - right).abs())
        .fold(0.0, f32::max)
}

/// A copy of the weights folder that a test may damage.
fn copy_of(dir: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().expect("tempdir");
    for name in ["config.json", "tokenizer.json", "model.safetensors"] {
        fs::copy(dir.join(name), copy.path().join(name)).expect("copy");
    }
    copy
}

#[test]
fn tokens_and_vectors_equal_the_reference() {
    let (Some(golden), Some(encoder)) = (golden(), pretrained()) else {
        return;
    };
    let AnyTextEncoder::Bert(bert) = &encoder else {
        panic!("pretrained weights make a BERT encoder")
    };
    for case in &golden {
        let tokenized = bert.tokenizer().tokenize(&case.text).expect("tokenizes");
        assert_eq!(tokenized.token_ids, case.input_ids, "{}", case.text);
    }
    let texts: Vec<String> = golden.iter().map(|case| case.text.clone()).collect();
    let expected: Vec<f32> = golden
        .iter()
        .flat_map(|case| case.embedding.clone())
        .collect();
    let difference = largest_difference(&encoder.embed(&texts).expect("embeds"), &expected);
    println!("largest difference to the reference: {difference:e}");
    assert!(
        difference < GOLDEN_TOLERANCE,
        "largest difference {difference}"
    );
}

#[test]
fn empty_text_is_fine_and_long_text_is_cut() {
    let Some(encoder) = pretrained() else { return };
    let AnyTextEncoder::Bert(bert) = &encoder else {
        panic!("pretrained weights make a BERT encoder")
    };
    let long = "heart ".repeat(100_000);
    assert_eq!(
        bert.tokenizer()
            .tokenize("")
            .expect("tokenizes")
            .token_ids
            .len(),
        2
    );
    assert_eq!(
        bert.tokenizer()
            .tokenize(&long)
            .expect("tokenizes")
            .token_ids
            .len(),
        bert.tokenizer().len_max()
    );

    let rows = encoder.embed(&[String::new(), long]).expect("embeds");
    for row in rows.chunks_exact(encoder.dim()) {
        let squared: f32 = row.iter().map(|value| value * value).sum();
        assert!((squared - 1.0).abs() < GOLDEN_TOLERANCE);
    }
    assert_eq!(encoder.embed(&[]), Ok(Vec::new()));
}

#[test]
fn truncated_weights_are_refused() {
    let Some(dir) = weights_dir() else { return };
    let copy = copy_of(dir);
    let path = copy.path().join("model.safetensors");
    let whole = fs::read(&path).expect("read");
    for len in [0, 7, 8, 1000, whole.len() / 2, whole.len() - 1] {
        fs::write(&path, &whole[..len]).expect("write");
        let refused = load_from(copy.path());
        assert!(
            matches!(refused, Err(TextSourceError::Weights { .. })),
            "{len} bytes"
        );
    }
}

#[test]
fn weights_of_another_size_are_refused_by_tensor_name() {
    let Some(dir) = weights_dir() else { return };
    let copy = copy_of(dir);
    let path = copy.path().join("config.json");
    let config = fs::read_to_string(&path).expect("read");
    fs::write(
        &path,
        config.replace("\"intermediate_size\": 1536", "\"intermediate_size\": 1024"),
    )
    .expect("write");
    let refused = load_from(copy.path());
    let Err(TextSourceError::Unusable {
        source:
            TextError::ShapeMismatch {
                tensor,
                expected,
                actual,
            },
        ..
    }) = refused
    else {
        panic!("{refused:?}")
    };
    assert_eq!(tensor, "encoder.layer.0.intermediate.dense.weight");
    assert_eq!((expected, actual), (vec![1024, 384], vec![1536, 384]));
}

#[test]
fn a_damaged_cache_folder_is_refused_by_its_hash() {
    let Some(dir) = weights_dir() else { return };
    let cache = tempfile::tempdir().expect("tempdir");
    let cached = cache.path().join("all-minilm-l6-v2");
    fs::create_dir(&cached).expect("mkdir");
    let copy = copy_of(dir);
    for name in ["tokenizer.json", "model.safetensors"] {
        fs::rename(copy.path().join(name), cached.join(name)).expect("move");
    }
    fs::write(cached.join("config.json"), "{}").expect("write");
    let source = source(TextEncoderChoice::Auto, None, cache.path());
    let refused = load(&source, &Device::flex(), &ProgressBar::hidden());
    assert!(matches!(refused, Err(TextSourceError::Checksum { .. })));
}

#[test]
fn without_files_auto_hashes_words_and_pretrained_names_the_folders() {
    let empty = tempfile::tempdir().expect("tempdir");
    let (device, progress) = (Device::flex(), ProgressBar::hidden());
    let auto = load(
        &source(TextEncoderChoice::Auto, None, empty.path()),
        &device,
        &progress,
    );
    assert!(matches!(auto, Ok(AnyTextEncoder::Small(_))));

    let asked_for = source(TextEncoderChoice::Pretrained, None, empty.path());
    let Err(TextSourceError::Missing { looked_in }) = load(&asked_for, &device, &progress) else {
        panic!("nothing to load")
    };
    assert!(looked_in.starts_with(empty.path()));

    let named = source(TextEncoderChoice::Auto, Some(empty.path()), empty.path());
    let Err(TextSourceError::NotInFolder { dir }) = load(&named, &device, &progress) else {
        panic!("a folder that is named and empty is no reason to take another")
    };
    assert_eq!(dir, empty.path());
    assert!(named.check_folder().is_err());
}

/// Overwrites every row of the cache file, so that what comes from it can be told from the encoder.
fn overwrite_rows(file: &Path, row: &[f32]) -> usize {
    let rows = redb::TableDefinition::<[u8; 32], &[u8]>::new("rows");
    let bytes: Vec<u8> = row.iter().flat_map(|value| value.to_le_bytes()).collect();
    let database = redb::Database::open(file).expect("opens");
    let transaction = database.begin_write().expect("begins");
    let mut table = transaction.open_table(rows).expect("has rows");
    let keys: Vec<[u8; 32]> = table
        .iter()
        .expect("iterates")
        .map(|entry| entry.expect("reads").0.value())
        .collect();
    for key in &keys {
        table.insert(key, bytes.as_slice()).expect("inserts");
    }
    drop(table);
    transaction.commit().expect("commits");
    keys.len()
}

#[test]
fn known_texts_come_from_the_cache_after_a_restart_and_a_damaged_file_is_replaced() {
    let Some(encoder) = pretrained() else { return };
    let data_dir = tempfile::tempdir().expect("tempdir");
    let open = |encoder| {
        CachedTextEncoder::new(
            encoder,
            Some(EmbeddingCache::open(data_dir.path()).expect("opens")),
        )
    };
    let restart = || open(pretrained().expect("as before"));
    let texts = [
        "red mug".to_owned(),
        "white heart".to_owned(),
        "red mug".to_owned(),
    ];
    let expected = encoder.embed(&texts).expect("embeds");
    assert_eq!(open(encoder).embed(&texts), Ok(expected.clone()));

    let file = fs::read_dir(data_dir.path())
        .expect("list")
        .next()
        .expect("one file")
        .expect("entry")
        .path();
    let marker = vec![0.5; 384];
    assert_eq!(overwrite_rows(&file, &marker), 2);
    let rows = restart()
        .embed(&[texts[1].clone(), "blue jug".to_owned()])
        .expect("embeds");
    assert_eq!(rows[..384], marker);
    assert_ne!(rows[384..], marker);

    overwrite_rows(&file, &[f32::NAN; 384]);
    assert_eq!(restart().embed(&texts), Ok(expected.clone()));

    fs::write(&file, b"not a database").expect("write");
    assert_eq!(restart().embed(&texts), Ok(expected));
}

/// The least cosine of the host's embeddings of `texts` with burn's, in each form.
fn least_cosines(dir: &Path, texts: &[TokenizedText]) -> Vec<(Form, f32)> {
    let files = || read_encoder_files(dir, |name| !is_unused(name)).expect("fetched weights load");
    let config = || BertConfig::from_json(&files().config_json).expect("a BERT config");
    let burn = TextEncoder::from_named(config(), files().tensors, &Device::flex());
    let burn = burn.expect("complete").encode(texts).expect("encodes");
    let mut least = Vec::new();
    for form in [Form::Pairs, Form::Fours] {
        let host = HostTextEncoder::in_form(form, config(), files().tensors).expect("complete");
        let embeddings = host.encode(texts).expect("encodes");
        let pairs = embeddings.chunks(host.dim()).zip(burn.chunks(host.dim()));
        let cosines = pairs.map(|(a, b)| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>());
        least.push((form, cosines.fold(f32::INFINITY, f32::min)));
    }
    least
}

#[test]
fn the_pages_int8_encoder_stays_near_f32_on_real_item_texts() {
    let (Some(dir), Some(items)) = (weights_dir(), dataset_path("online-retail/items.tsv")) else {
        return;
    };
    let tokenizer = fs::read(dir.join("tokenizer.json")).expect("fetched");
    let tokenizer = TextTokenizer::from_bytes(&tokenizer, 512).expect("as published");
    let items = fs::read_to_string(items).expect("readable");
    let titles = items.lines().skip(1).step_by(ITEM_STEP);
    let titles = titles.filter_map(|line| line.split('\t').nth(1));
    let texts: Vec<TokenizedText> = titles
        .map(|title| tokenizer.tokenize(title).expect("tokenizes"))
        .collect();
    assert!(texts.len() > 60, "{} texts", texts.len());
    for (form, cosine) in least_cosines(dir, &texts) {
        println!(
            "{form:?}: least cosine {cosine} of {} item texts",
            texts.len()
        );
        assert!(cosine >= HOST_COSINE_MIN, "{form:?}: {cosine}");
    }
}
