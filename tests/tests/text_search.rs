//! Claims about texts in the page, in Chromium: search, new items, and that a text means there what it means to the server.
//!
//! Not here: how weights are rounded and what a search is (unit tests of `trainer-server` and `shared-model`).

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use base64::Engine;
use harness::browser::{Browser, for_page};
use harness::ranking::check_close;
use harness::scene::{NOW_MILLIS, Scene};
use harness::site::Site;
use harness::tiny_encoder::write_tiny_encoder;
use harness::{wait, workspace};
use reqwest::Method;
use serde_json::{Value, json};
use shared_model::edge::engine::{
    FoundItem, NewItemsRequest, RankOptions, RankRequest, ReadyVersion, SearchRequest,
};
use shared_model::event::{HistoryEvent, Item};
use shared_model::text::packed::layout;
use shared_model::text::{BertConfig, HostTextEncoder, NamedTensor, PackedEncoder, TextTokenizer};
use trainer_server::text_pack::{PackSource, pack};

/// Another CPU instruction set adds up in another order; see `parity.rs`.
const TOLERANCE: f64 = 1e-4;
/// A new item's text goes through the item tower. Measured here, an embedding that is off by [`TOLERANCE`] in each of its
/// 32 numbers moves a score by up to 2.6e-3.
const NEW_ITEM_TOLERANCE: f64 = 1e-3;
/// For an encoder of two small layers, on a busy machine.
const PACK_PATIENCE: Duration = Duration::from_secs(60);

fn close(expected: f32, actual: &Value) -> anyhow::Result<()> {
    check_close(TOLERANCE, f64::from(expected), actual)
}

async fn packed_by(scene: &Scene, generation: u32) -> anyhow::Result<PackedEncoder> {
    let blob = scene
        .server
        .api
        .text_encoder(generation)
        .await?
        .context("it is packed")?;
    let bytes = scene.server.api.blob(blob.id).await?;
    Ok(PackedEncoder::from_bytes(bytes)?)
}

fn same(expected: &[FoundItem], actual: &Value) -> anyhow::Result<()> {
    ensure!(actual["items"].as_array().map(Vec::len) == Some(expected.len()));
    for (place, item) in expected.iter().enumerate() {
        let actual = &actual["items"][place];
        ensure!(
            actual["itemId"] == json!(item.item_id),
            "place {place}: {actual}, expected {item:?}"
        );
        close(item.score, &actual["score"])?;
        close(item.similarity, &actual["similarity"])?;
    }
    Ok(())
}

/// What the server finds itself, in the form of the page's answer.
async fn found_by_server(
    scene: &Scene,
    query: &str,
    history: &[HistoryEvent],
) -> anyhow::Result<Value> {
    let body = json!({ "text": query, "k": 8, "exclude_seen": true, "history": history, "now": NOW_MILLIS });
    let api = &scene.server.api;
    let answer = api
        .send(Method::POST, "/v1/search", body.to_string())
        .await?;
    ensure!(answer.status == 200, "{answer:?}");
    let items = answer.body["items"].as_array().context("items")?;
    let renamed = items.iter().map(|item| {
        json!({ "itemId": item["item_id"], "score": item["score"], "similarity": item["similarity"] })
    });
    Ok(json!({ "items": renamed.collect::<Vec<_>>() }))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_searches_and_ranks_new_items_as_the_engine_does_here() -> anyhow::Result<()> {
    let Some(browser) = Browser::start().await? else {
        return Ok(());
    };
    let dir = tempfile::tempdir()?;
    write_tiny_encoder(dir.path())?;
    let encoder_dir = dir.path().to_str().context("a plain path")?;
    let settings = [
        ("model.text_encoder", "pretrained"),
        ("model.text_encoder_dir", encoder_dir),
    ];
    let scene = Scene::start(41, &settings).await?;
    let page = browser.open_on_cpu(&scene.server.address().url).await?;
    page.called("prepareSearch", json!([])).await?;
    let (manifest, state) = scene.server.api.newest_version().await?;
    page.has_version(manifest.version).await?;

    let (tokenizer, encoder) = packed_by(&scene, manifest.encoder_generation)
        .await?
        .open()?;
    let embed = |text: &str| encoder.encode(&[tokenizer.tokenize(text)?]);
    let ready = ReadyVersion::on_host(&state);
    let history = &scene.people[0].history;
    let history_there = for_page(history);
    let options = RankOptions {
        k: 8,
        exclude_seen: true,
    };
    let rank = RankRequest {
        history,
        candidates: None,
        options: &options,
        now_millis: NOW_MILLIS,
        moderation: None,
    };
    for (query, taste) in [("lantern number 7", 0.0), ("kite", 0.4), ("kettle", 1.0)] {
        let text = embed(query)?;
        let request = SearchRequest {
            text: &text,
            taste,
            rank,
        };
        let expected = ready.search(&state, &request).await?;
        let ask = json!({ "k": 8, "taste": taste, "excludeSeen": true,
                          "history": history_there, "nowMillis": NOW_MILLIS });
        let actual = page.called("search", json!([query, ask])).await?;
        same(&expected, &actual).with_context(|| query.to_owned())?;
        if taste == 0.0 {
            same(&expected, &found_by_server(&scene, query, history).await?)?;
        }
    }

    let title = &scene.world.items[33].title;
    let found = page.called("search", json!([title, { "k": 1 }])).await?;
    assert_eq!(
        found["items"][0]["itemId"],
        json!(scene.world.items[33].item_id),
        "{title}: {found}"
    );
    assert!(
        found["items"][0]["similarity"].as_f64() > Some(0.99),
        "{found}"
    );

    let texts = ["kettle number 60", "scarf number 61", "tent"];
    let items: Vec<Value> = texts
        .iter()
        .map(|text| json!({ "itemId": text, "text": text }))
        .collect();
    let ask = json!({ "history": history_there, "nowMillis": NOW_MILLIS });
    let actual = page.called("rankNew", json!([items, ask])).await?;
    let embedded = texts
        .map(embed)
        .into_iter()
        .collect::<Result<Vec<_>, _>>()?
        .concat();
    let request = NewItemsRequest {
        num_items: texts.len(),
        texts: &embedded,
        history,
        now_millis: NOW_MILLIS,
    };
    let scores = ready.score_new(&state, &request).await?;
    let mut expected: Vec<(&str, f32)> = texts.into_iter().zip(scores).collect();
    expected.sort_by(|a, b| b.1.total_cmp(&a.1));
    for (place, (item_id, score)) in expected.into_iter().enumerate() {
        assert_eq!(actual["items"][place]["itemId"], json!(item_id));
        let actual = &actual["items"][place]["score"];
        check_close(NEW_ITEM_TOLERANCE, f64::from(score), actual)
            .with_context(|| item_id.to_owned())?;
    }
    assert_eq!(page.uncaught().await?, Vec::<String>::new());
    browser.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_small_encoder_needs_no_file_and_a_server_may_give_none() -> anyhow::Result<()> {
    let Some(browser) = Browser::start().await? else {
        return Ok(());
    };
    let scene = Scene::start(42, &[("model.text_encoder", "small")]).await?;
    let page = browser.open_on_cpu(&scene.server.address().url).await?;
    let found = page
        .called("search", json!(["a lantern please", { "k": 5 }]))
        .await?;
    for place in 0..5 {
        let item_id = found["items"][place]["itemId"].as_str().context("an id")?;
        let item = scene
            .world
            .items
            .iter()
            .find(|item| item.item_id.as_str() == item_id);
        let title = &item.context("of the catalogue")?.title;
        assert!(title.contains("lantern"), "place {place} is {title}");
    }
    for (arguments, part) in [
        (
            json!(["  "]),
            "\"text\" has to be a text of 1 to 10000 characters",
        ),
        (
            json!(["tent", { "taste": 2 }]),
            "\"taste\" has to be a number from 0 to 1",
        ),
    ] {
        let refused = page.call("search", arguments).await?;
        assert_eq!(refused["code"], "invalid_option");
        assert!(
            refused["message"]
                .as_str()
                .is_some_and(|text| text.contains(part)),
            "{refused}"
        );
    }
    drop(scene);

    let settings = [
        ("model.text_encoder", "small"),
        ("publish.text_bytes_max", "0"),
    ];
    let scene = Scene::start(42, &settings).await?;
    let page = browser.open_on_cpu(&scene.server.address().url).await?;
    let refused = page.call("search", json!(["lantern"])).await?;
    assert_eq!(refused["code"], "no_text_encoder", "{refused}");
    assert_eq!(page.uncaught().await?, Vec::<String>::new());
    browser.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_encoder_is_packed_again_for_a_catalogue_twice_as_large() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    write_tiny_encoder(dir.path())?;
    let encoder_dir = dir.path().to_str().context("a plain path")?;
    let settings = [
        ("model.text_encoder", "pretrained"),
        ("model.text_encoder_dir", encoder_dir),
    ];
    let mut scene = Scene::start(43, &settings).await?;
    let (manifest, _) = scene.server.api.newest_version().await?;
    let generation = manifest.encoder_generation;
    let is_packed = async || scene.server.api.text_encoder(generation).await;
    let first = wait::until("an encoder is packed", PACK_PATIENCE, is_packed).await?;

    // Numbers that no title had, so that their words become finer.
    let late: Vec<Item> = (0..scene.world.items.len())
        .map(|idx| json!({ "item_id": format!("late-{idx}"), "title": format!("kite number {}", 50 + idx % 14) }))
        .map(serde_json::from_value)
        .collect::<Result<_, _>>()?;
    scene.server.api.put_items(&late).await?;
    let is_another = async || {
        let blob = scene.server.api.text_encoder(generation).await?;
        Ok(blob.filter(|blob| *blob != first))
    };
    let second = wait::until("another is packed", PACK_PATIENCE, is_another).await?;
    scene.server.api.blob(first.id).await?; // by whoever was told of it

    scene.server.kill9().await?;
    scene.server.restart().await?;
    let is_packed = async || scene.server.api.text_encoder(generation).await;
    let kept = wait::until("the file is found", PACK_PATIENCE, is_packed).await?;
    assert_eq!(kept, second);
    Ok(())
}

/// A network over a WordPiece vocabulary made of a corpus, packed.
fn packed_over(corpus: &[String]) -> anyhow::Result<Vec<u8>> {
    let tokenizer_json = word_piece(corpus);
    let vocab_size = TextTokenizer::from_bytes(&tokenizer_json, 128)?.vocab_size();
    let config = json!({ "vocab_size": vocab_size, "hidden_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 4, "intermediate_size": 72, "max_position_embeddings": 128,
        "type_vocab_size": 1, "layer_norm_eps": 1e-12 });
    let config = BertConfig::from_json(config.to_string().as_bytes())?;
    let types = (
        "embeddings.token_type_embeddings.weight".to_owned(),
        vec![1, 32],
    );
    let shapes = layout(&config)
        .into_iter()
        .map(|(name, kind)| (name, kind.shape()));
    let mut state = 9_u32;
    let mut draw = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1_u32 << 24) as f32 - 0.5
    };
    let tensors = shapes.chain([types]).map(|(name, shape)| {
        let neutral = if name.ends_with("LayerNorm.weight") {
            1.0
        } else {
            0.0
        };
        let len = shape.iter().product();
        let values = (0..len).map(|_| neutral + 0.5 * draw()).collect();
        NamedTensor {
            name,
            shape,
            values,
        }
    });
    let source = PackSource {
        config,
        tokenizer_json,
        tensors: tensors.collect(),
        len_max: 128,
    };
    Ok(pack(source, corpus.iter(), 4_000_000)?)
}

/// Every character and the more frequent words and word ends of a corpus, as BERT's tokenizer would cut them.
fn word_piece(corpus: &[String]) -> Vec<u8> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for word in corpus.iter().flat_map(|text| text.split_whitespace()) {
        let word = word.to_lowercase();
        for (at, _) in word.char_indices() {
            let end = word[at..]
                .chars()
                .next()
                .map_or(at, |first| at + first.len_utf8());
            let prefix = if at == 0 { "" } else { "##" };
            *counts
                .entry(format!("{prefix}{}", &word[at..end]))
                .or_default() += 1_000;
            *counts
                .entry(format!("{prefix}{}", &word[at..]))
                .or_default() += 1;
        }
    }
    let frequent = counts
        .into_iter()
        .filter(|(_, count)| *count > 3)
        .map(|(piece, _)| piece);
    let pieces = ["[UNK]", "[CLS]", "[SEP]"]
        .map(str::to_owned)
        .into_iter()
        .chain(frequent);
    let vocab: serde_json::Map<_, _> = pieces
        .zip(0..)
        .map(|(piece, id)| (piece, id.into()))
        .collect();
    let special = |token: &str, id: usize| json!({ "id": token, "ids": [id], "tokens": [token] });
    let token = |token: &str| json!({ "SpecialToken": { "id": token, "type_id": 0 } });
    let text = json!({ "Sequence": { "id": "A", "type_id": 0 } });
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
        "normalizer": { "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
                        "strip_accents": null, "lowercase": true },
        "pre_tokenizer": { "type": "BertPreTokenizer" }, "decoder": { "type": "WordPiece", "prefix": "##", "cleanup": true },
        "post_processor": { "type": "TemplateProcessing", "single": [token("[CLS]"), text, token("[SEP]")],
            "pair": [token("[CLS]"), text, token("[SEP]")],
            "special_tokens": { "[CLS]": special("[CLS]", 1), "[SEP]": special("[SEP]", 2) } },
        "model": { "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                   "max_input_chars_per_word": 100, "vocab": vocab },
    });
    tokenizer.to_string().into_bytes()
}

/// Titles of both streams where they are there, and texts that tokenizers trip over.
fn corpus() -> anyhow::Result<Vec<String>> {
    let odd = [
        "",
        " ",
        "a",
        "ﬁ ligature ½ Ⅷ",
        "Ⅷ ΣΊΣΥΦΟΣ ς",
        "naïve café, façade",
        "zero\u{200b}width\u{feff}",
        "tab\tand\nline",
        "漢字 仮名 かな",
        "👩‍👩‍👧 family",
        "\u{202e}right to left",
        "a\u{301}e\u{301}",
        "İstanbul I ı",
        "ß SS ẞ",
        "1,000.50€ & more!",
        "don't won't",
        "\u{0}\u{1}control",
        "…—–-_",
        "https://example.org/?q=a+b",
    ]
    .map(str::to_owned);
    let mut corpus = odd.to_vec();
    corpus.push("x".repeat(300));
    let Some(data) = std::env::var_os("FRESHET_DATA") else {
        println!("FRESHET_DATA is not set: the titles of the streams are left out");
        return Ok(corpus);
    };
    for name in ["online-retail", "movietweetings-100k"] {
        let items = std::fs::read_to_string(Path::new(&data).join(name).join("items.tsv"))?;
        let titles = items
            .lines()
            .skip(1)
            .filter_map(|line| line.split('\t').nth(1));
        corpus.extend(titles.map(str::to_owned));
    }
    Ok(corpus)
}

const IN_PAGE: &str = r"
const [name, id, address, texts, numEmbedded, done] = arguments;
const run = async () => {
  const module = (await import(`/dist/${name}.js`)).default();
  await module.init({ module_or_path: await fetch(`/dist/${name}_bg.wasm`) });
  const bytes = new Uint8Array(await (await fetch(address)).arrayBuffer());
  const reader = new module.TextReader(id, bytes);
  let numPieces = 0;
  while (reader.read_next()) numPieces += 1;
  const embedder = reader.finish();
  const tokens = texts.map((text) => [...embedder.tokens(text)]);
  const rows = texts.slice(0, numEmbedded).map((text) => [...embedder.embed(text)]);
  let refusal = '';
  bytes[bytes.length >> 1] ^= 1;
  try { new module.TextReader(id, bytes); } catch (error) { refusal = error.code; }
  return { numPieces, tokens, rows, refusal };
};
run().then((value) => done({ value }), (error) => done({ error: String(error?.stack ?? error) }));
";

#[tokio::test(flavor = "multi_thread")]
async fn tokens_and_embeddings_in_the_page_are_those_of_the_server() -> anyhow::Result<()> {
    let Some(browser) = Browser::start().await? else {
        return Ok(());
    };
    let corpus = corpus()?;
    let bytes = packed_over(&corpus)?;
    let id = shared_model::ids::BlobId::of(&bytes).to_hex();
    let (tokenizer, encoder) = PackedEncoder::from_bytes(bytes.clone())?.open()?;
    let tokenized = corpus.iter().map(|text| tokenizer.tokenize(text));
    let tokenized = tokenized.collect::<Result<Vec<_>, _>>()?;
    let num_embedded = 60.min(corpus.len());
    let expected = HostTextEncoder::encode(&encoder, &tokenized[..num_embedded])?;

    let site = Site::of(&workspace::root().join("edge-wasm/npm"), None).await?;
    let page = browser
        .open_url(&site.url("test/page.html?connect=0"))
        .await?;
    let file = base64::engine::general_purpose::STANDARD.encode(&bytes);
    let address = format!("data:application/octet-stream;base64,{file}");
    for name in ["freshet_text", "freshet_text_relaxed"] {
        let arguments = vec![
            json!(name),
            json!(id),
            json!(address),
            json!(corpus),
            json!(num_embedded),
        ];
        let there = page.run(IN_PAGE, arguments).await?;
        for (idx, tokens) in tokenized.iter().enumerate() {
            ensure!(
                there["tokens"][idx] == json!(tokens.token_ids),
                "{name}: {:?} has other tokens",
                corpus[idx]
            );
        }
        for (idx, expected) in expected.chunks_exact(encoder.dim()).enumerate() {
            for (col, value) in expected.iter().enumerate() {
                close(*value, &there["rows"][idx][col])
                    .with_context(|| format!("{name}: {:?}", corpus[idx]))?;
            }
        }
        assert_eq!(there["refusal"], "text_failed");
        println!(
            "{name}: {} texts, the same tokens; {num_embedded} embeddings within {TOLERANCE}",
            corpus.len()
        );
    }
    browser.close().await
}
