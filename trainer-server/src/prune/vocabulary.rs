//! A vocabulary cut to what texts use, so that word embeddings take less of a file.
//!
//! What stays: tokens of the texts, special tokens, every token of one character, and the first of all others in the
//! order of the vocabulary, which BERT's was trained to have by frequency. WordPiece takes the longest piece that fits,
//! so texts whose pieces all stay are read as before; any other word is spelled by shorter pieces, characters at worst,
//! and is unknown only where a character of it has no piece of its own.
//! `tokenizer.json` is changed where it names ids, and nowhere else.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use shared_model::text::packed::{TOKENIZER_BYTES_MAX, WORDS};
use shared_model::text::{TextError, TextTokenizer};

use super::PruneError;
use super::weights::Weights;
use crate::text_pack::PackSource;

/// Placeholders of BERT's vocabulary begin so; no text becomes one.
const UNUSED: &str = "[unused";

/// The encoder with the tokens that `texts` use, those that spell everything else, and `num_more` others.
///
/// # Errors
/// The tokenizer is no WordPiece, or a field of its file is missing or not sound, or the encoder is not.
pub fn vocabulary(
    parts: PackSource,
    texts: &[String],
    num_more: usize,
) -> Result<PackSource, PruneError> {
    let PackSource {
        mut config,
        tokenizer_json,
        tensors,
        len_max,
    } = parts;
    let vocab_size = config.vocab_size;
    let mut file = parse(&tokenizer_json)?;
    let tokenizer = TextTokenizer::from_bytes(&tokenizer_json, len_max)?;
    let tokens = tokens_by_id(&file, vocab_size)?;
    let mut kept = spelling(&file, &tokens)?;
    visit_ids(&mut file, |field, id| {
        kept.insert(id_of(field, id, vocab_size)?);
        Ok(())
    })?;
    kept.extend(used_by(texts, &tokenizer, vocab_size)?);
    let others = tokens
        .iter()
        .filter(|(id, token)| !kept.contains(id) && !token.starts_with(UNUSED));
    let more: Vec<usize> = others.map(|(id, _)| *id).take(num_more).collect();
    kept.extend(more);

    let kept: Vec<usize> = kept.into_iter().collect();
    renumber(&mut file, &kept)?;
    let tokenizer_json = file.to_string().into_bytes();
    let num_tokens = TextTokenizer::from_bytes(&tokenizer_json, len_max)?.vocab_size();
    if num_tokens != kept.len() {
        let reason = format!("has {num_tokens} tokens for {} ids", kept.len());
        return Err(unsound("model.vocab", reason));
    }
    let mut weights = Weights::new(tensors);
    weights.check(WORDS, &[vocab_size, config.hidden_size])?;
    weights.keep_rows(WORDS, &kept);
    config.vocab_size = kept.len();
    Ok(PackSource {
        config,
        tokenizer_json,
        tensors: weights.into_named(),
        len_max,
    })
}

fn parse(bytes: &[u8]) -> Result<Value, PruneError> {
    if bytes.len() > TOKENIZER_BYTES_MAX {
        let reason = format!(
            "has {} bytes, at most {TOKENIZER_BYTES_MAX} are read",
            bytes.len()
        );
        return Err(TextError::Tokenizer { reason }.into());
    }
    let file: Value = serde_json::from_slice(bytes).map_err(|error| TextError::Tokenizer {
        reason: error.to_string(),
    })?;
    let kind = &file["model"]["type"];
    if kind != "WordPiece" {
        return Err(unsound(
            "model.type",
            format!("is {kind}, expected \"WordPiece\""),
        ));
    }
    Ok(file)
}

fn tokens_by_id(file: &Value, vocab_size: usize) -> Result<BTreeMap<usize, String>, PruneError> {
    let vocab = file["model"]["vocab"].as_object();
    let vocab = vocab.ok_or_else(|| unsound("model.vocab", "is no object"))?;
    let mut tokens = BTreeMap::new();
    for (token, id) in vocab {
        let field = format!("model.vocab.{token}");
        let id = id_of(&field, id, vocab_size)?;
        if let Some(other) = tokens.insert(id, token.clone()) {
            return Err(unsound(&field, format!("has the id {id}, as {other} has")));
        }
    }
    Ok(tokens)
}

/// The unknown token, and every token of one character, at the start of a word and inside it.
fn spelling(file: &Value, tokens: &BTreeMap<usize, String>) -> Result<BTreeSet<usize>, PruneError> {
    let text_of = |field: &str| {
        let text = file["model"][field].as_str();
        text.ok_or_else(|| unsound(&format!("model.{field}"), "is no text"))
    };
    let (prefix, unknown) = (text_of("continuing_subword_prefix")?, text_of("unk_token")?);
    if !tokens.values().any(|token| *token == unknown) {
        let reason = format!("is {unknown}, which is not in the vocabulary");
        return Err(unsound("model.unk_token", reason));
    }
    let is_needed = |token: &str| {
        let inside = token.strip_prefix(prefix).unwrap_or(token);
        token == unknown
            || [token, inside]
                .iter()
                .any(|piece| piece.chars().count() == 1)
    };
    let needed = tokens.iter().filter(|(_, token)| is_needed(token));
    Ok(needed.map(|(id, _)| *id).collect())
}

fn used_by(
    texts: &[String],
    tokenizer: &TextTokenizer,
    vocab_size: usize,
) -> Result<BTreeSet<usize>, PruneError> {
    let mut used = BTreeSet::new();
    for text in texts {
        for token_id in tokenizer.tokenize(text)?.token_ids {
            let id = token_id as usize; // usize has at least 32 bits here
            if id >= vocab_size {
                let unknown = TextError::TokenUnknown {
                    token_id,
                    vocab_size,
                };
                return Err(unknown.into());
            }
            used.insert(id);
        }
    }
    Ok(used)
}

/// Gives each kept id its place among them, wherever the file names it; tokens of other ids go.
fn renumber(file: &mut Value, kept: &[usize]) -> Result<(), PruneError> {
    let renumbered = |id: &Value| {
        let id = usize::try_from(id.as_u64()?).ok()?; // an id that is not kept has no place
        kept.binary_search(&id).ok().map(Value::from)
    };
    let vocab = file["model"]["vocab"].as_object_mut();
    let vocab = vocab.expect("tokens were read from it");
    vocab.retain(|_, id| renumbered(id).map(|place| *id = place).is_some());
    visit_ids(file, |_, id| {
        *id = renumbered(id).expect("every id outside of the vocabulary is kept");
        Ok(())
    })
}

/// Shows every id that is not in the vocabulary, with its field: those of special tokens and of padding.
fn visit_ids(
    file: &mut Value,
    mut visit: impl FnMut(&str, &mut Value) -> Result<(), PruneError>,
) -> Result<(), PruneError> {
    let added = file.get_mut("added_tokens").and_then(Value::as_array_mut);
    for (place, token) in added.into_iter().flatten().enumerate() {
        let field = format!("added_tokens.{place}.id");
        let id = token.get_mut("id");
        visit(&field, id.ok_or_else(|| unsound(&field, "is missing"))?)?;
    }
    if let Some(id) = file.pointer_mut("/padding/pad_id") {
        visit("padding.pad_id", id)?;
    }
    let Some(processor) = file
        .get_mut("post_processor")
        .filter(|value| !value.is_null())
    else {
        return Ok(());
    };
    match processor["type"].as_str() {
        Some("TemplateProcessing") => {
            let special = processor["special_tokens"].as_object_mut();
            for (name, token) in special.into_iter().flatten() {
                let field = format!("post_processor.special_tokens.{name}.ids");
                let ids = token.get_mut("ids").and_then(Value::as_array_mut);
                for id in ids.into_iter().flatten() {
                    visit(&field, id)?;
                }
            }
        }
        Some("BertProcessing") => {
            for part in ["sep", "cls"] {
                let field = format!("post_processor.{part}.1");
                let id = processor.pointer_mut(&format!("/{part}/1"));
                visit(&field, id.ok_or_else(|| unsound(&field, "is missing"))?)?;
            }
        }
        _ => {
            let reason = format!(
                "is {}, expected TemplateProcessing or BertProcessing",
                processor["type"]
            );
            return Err(unsound("post_processor.type", reason));
        }
    }
    Ok(())
}

fn id_of(field: &str, id: &Value, vocab_size: usize) -> Result<usize, PruneError> {
    let known = id.as_u64().and_then(|id| usize::try_from(id).ok());
    let known = known.filter(|id| *id < vocab_size);
    known.ok_or_else(|| unsound(field, format!("is {id}, expected 0 to {}", vocab_size - 1)))
}

fn unsound(field: &str, reason: impl Into<String>) -> PruneError {
    PruneError::Tokenizer {
        field: field.to_owned(),
        reason: reason.into(),
    }
}
