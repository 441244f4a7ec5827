//! Claims about encoders from a hub, against a server of our own with a tiny BERT made here.
//!
//! Not here: the layout of addresses and refused names, which are tested beside their code.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use burn::tensor::Device;
use indicatif::ProgressBar;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};
use shared_model::text::CrossEncoderConfig;
use trainer_server::config::TextEncoderChoice;
use trainer_server::cross_encoder::CrossScorer;
use trainer_server::text_source::hub::{HubRequest, fetch_from_hub};
use trainer_server::text_source::{TextSource, TextSourceError, load, read_encoder_files};

const WORDS: [&str; 8] = [
    "[PAD]", "[CLS]", "[SEP]", "[UNK]", "red", "blue", "mug", "bag",
];

/// How the server answers for a file.
#[derive(Clone)]
enum Answer {
    Whole(Vec<u8>),
    /// In pieces, so that no length is announced.
    Pieces(Vec<u8>),
}

type Files = HashMap<String, Answer>;

/// Serves `files` by path; gives the address.
async fn serve(files: Files) -> String {
    let files = Arc::new(files);
    let app = Router::new().fallback(move |uri: Uri| {
        let files = Arc::clone(&files);
        async move { answer(&files, uri.path()) }
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("binds");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move { axum::serve(listener, app).await });
    format!("http://{address}")
}

fn answer(files: &Files, path: &str) -> Response {
    match files.get(path) {
        None => StatusCode::NOT_FOUND.into_response(),
        Some(Answer::Whole(bytes)) => bytes.clone().into_response(),
        Some(Answer::Pieces(bytes)) => {
            let pieces: Vec<Result<Bytes, std::io::Error>> = bytes
                .chunks(64 << 10)
                .map(|piece| Ok(Bytes::copy_from_slice(piece)))
                .collect();
            Body::from_stream(futures_util::stream::iter(pieces)).into_response()
        }
    }
}

fn tokenizer_json() -> Value {
    let special = |id: usize| json!({"id": WORDS[id], "ids": [id], "tokens": [WORDS[id]]});
    let token = |id: usize, kind: u8| json!({"SpecialToken": {"id": WORDS[id], "type_id": kind}});
    let text = |name: &str, kind: u8| json!({"Sequence": {"id": name, "type_id": kind}});
    let vocabulary: HashMap<&str, usize> = WORDS.into_iter().zip(0..).collect();
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
        "normalizer": null, "pre_tokenizer": {"type": "Whitespace"}, "decoder": null,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [token(1, 0), text("A", 0), token(2, 0)],
            "pair": [token(1, 0), text("A", 0), token(2, 0), text("B", 1), token(2, 1)],
            "special_tokens": {"[CLS]": special(1), "[SEP]": special(2)},
        },
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]"},
    })
}

/// The three files of a network of width 64 that knows [`WORDS`].
fn tiny() -> Files {
    let config = CrossEncoderConfig::small(WORDS.len(), 16);
    let model = config.init(&Device::flex());
    let mut tensors = model.to_named().expect("on the CPU");
    tensors.retain(|tensor| tensor.name.starts_with("bert."));
    let bytes: Vec<Vec<u8>> = tensors
        .iter()
        .map(|tensor| {
            tensor
                .values
                .iter()
                .flat_map(|value| value.to_le_bytes())
                .collect()
        })
        .collect();
    let views = tensors.iter().zip(&bytes).map(|(tensor, bytes)| {
        let view = TensorView::new(Dtype::F32, tensor.shape.clone(), bytes);
        (tensor.name.as_str(), view.expect("whole"))
    });
    let weights = safetensors::serialize(views, None).expect("well formed");
    let config = serde_json::to_vec(&config.bert).expect("plain values");
    let tokenizer = tokenizer_json().to_string().into_bytes();
    let named = [
        ("config.json", config),
        ("tokenizer.json", tokenizer),
        ("model.safetensors", weights),
    ];
    let at = |name: &str| format!("/maker/tiny/resolve/main/{name}");
    named
        .map(|(name, bytes)| (at(name), Answer::Whole(bytes)))
        .into()
}

fn request(url: String) -> HubRequest {
    HubRequest {
        url,
        model: "maker/tiny".to_owned(),
        revision: "main".to_owned(),
        pinned: Vec::new(),
    }
}

async fn fetch(
    request: &HubRequest,
    cache_dir: &Path,
) -> Result<std::path::PathBuf, TextSourceError> {
    let fetched = fetch_from_hub(request, cache_dir, &ProgressBar::hidden()).await;
    fetched.map(|(folder, _)| folder)
}

fn num_entries(dir: &Path) -> usize {
    std::fs::read_dir(dir).expect("list").count()
}

#[tokio::test]
async fn a_fetched_encoder_embeds_and_takes_pairs() {
    let dir = tempfile::tempdir().expect("tempdir");
    let mut request = request(serve(tiny()).await);
    let progress = ProgressBar::hidden();
    let (folder, files) = fetch_from_hub(&request, dir.path(), &progress)
        .await
        .expect("fetches");
    assert_eq!(num_entries(dir.path()), 1, "nothing unfinished is left");
    let weights = files
        .iter()
        .find(|file| file.name == "model.safetensors")
        .expect("one of three");
    let len = std::fs::metadata(folder.join(weights.name))
        .expect("written")
        .len();
    assert_eq!((weights.num_bytes, weights.sha256.len()), (len, 64));
    request.pinned = vec![(weights.name.to_owned(), weights.sha256.to_uppercase())];
    let again = fetch(&request, dir.path())
        .await
        .expect("pinned, and over the old folder");
    assert_eq!(again, folder);

    let source = TextSource {
        choice: TextEncoderChoice::Pretrained,
        dir: Some(folder.clone()),
        cache_dir: dir.path().join("nowhere"),
    };
    let encoder = load(&source, &Device::flex(), &progress).expect("loads");
    assert_eq!(
        encoder
            .embed(&["red mug".to_owned()])
            .expect("embeds")
            .len(),
        64
    );

    let files = read_encoder_files(&folder, |_| true).expect("reads");
    let scorer = CrossScorer::pretrained(files, 16, 1, &Device::flex()).expect("builds");
    let pair = scorer.tokenize("red mug", "blue bag").expect("tokenizes");
    assert_eq!(
        (pair.token_ids, pair.num_first),
        (vec![1, 4, 6, 2, 5, 7, 2], 4)
    );
    let long = scorer
        .tokenize(&"red ".repeat(99), "bag")
        .expect("tokenizes");
    assert_eq!(long.token_ids.len(), 16);
    assert_eq!(long.token_ids[14..], [7, 2], "the longer text was cut");
    assert_eq!(
        scorer.score_items("", &["", "mug"]).expect("finite").len(),
        2
    );
}

#[tokio::test]
async fn another_digest_than_pinned_leaves_no_trace() {
    let dir = tempfile::tempdir().expect("tempdir");
    let mut request = request(serve(tiny()).await);
    request.pinned = vec![("tokenizer.json".to_owned(), "0".repeat(64))];
    let refused = fetch(&request, dir.path()).await;
    assert!(
        matches!(refused, Err(TextSourceError::Checksum { .. })),
        "{refused:?}"
    );
    assert_eq!(num_entries(dir.path()), 0);
}

#[tokio::test]
async fn files_beyond_their_bound_are_refused_with_and_without_an_announced_length() {
    let dir = tempfile::tempdir().expect("tempdir");
    let huge = vec![b' '; (1 << 20) + 1];
    for answer in [Answer::Whole(huge.clone()), Answer::Pieces(huge)] {
        let mut files = tiny();
        files.insert("/maker/tiny/resolve/main/config.json".to_owned(), answer);
        let refused = fetch(&request(serve(files).await), dir.path()).await;
        let Err(TextSourceError::TooLarge {
            actual, bytes_max, ..
        }) = refused
        else {
            panic!("{refused:?}")
        };
        assert!(actual > bytes_max);
        assert_eq!(num_entries(dir.path()), 0);
    }
}

#[tokio::test]
async fn a_damaged_or_missing_file_leaves_the_folder_that_was_there() {
    let dir = tempfile::tempdir().expect("tempdir");
    let good = fetch(&request(serve(tiny()).await), dir.path())
        .await
        .expect("fetches");
    let before = std::fs::read(good.join("model.safetensors")).expect("read");

    let weights = "/maker/tiny/resolve/main/model.safetensors";
    let mut files = tiny();
    files.insert(
        weights.to_owned(),
        Answer::Whole(before[..before.len() / 2].to_vec()),
    );
    let refused = fetch(&request(serve(files).await), dir.path()).await;
    assert!(
        matches!(refused, Err(TextSourceError::Weights { .. })),
        "{refused:?}"
    );

    let mut files = tiny();
    files.remove(weights);
    let refused = fetch(&request(serve(files).await), dir.path()).await;
    assert!(
        matches!(refused, Err(TextSourceError::Status { status: 404, .. })),
        "{refused:?}"
    );

    let after = std::fs::read(good.join("model.safetensors")).expect("still there");
    assert_eq!(after, before);
    assert_eq!(num_entries(dir.path()), 1);
}
