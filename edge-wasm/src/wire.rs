//! JSON forms that the shell and the script exchange.

use serde::{Deserialize, Serialize};
use shared_model::edge::engine::{
    Diversity, EngineError, NEW_ITEMS_MAX, RankOptions, Rules, SIMILAR_TO_MAX,
};
use shared_model::edge::explore::Exploration;
use shared_model::edge::sync::{EdgeRequest, Live, Trust};
use shared_model::event::HistoryEvent;
use shared_model::ids::{BlobId, ItemId, Version};
use shared_model::manifest::{BlobRef, parse_public_key};
use shared_model::spec::NUM_ITEMS_MAX;

use crate::error::ShellError;

/// More keys than a server ever publishes.
const KEYS_MAX: usize = 32;
/// Far more than any model attends to.
const HISTORY_EVENTS_MAX: usize = 10_000;

/// What to rank: `{"history": […], "candidates": […]?, "k": 10, "excludeSeen": true, "nowMillis": …}`,
/// with `"rules": {…}` (see [`Rules`]), `"diversity": {"lambda": 0.7}`,
/// `"exploration": {"temperature": 0.5, "seed": 7}` where places are drawn by chance, and `"personal": true`, each if wanted.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RankCall {
    pub(crate) history: Vec<HistoryEvent>,
    #[serde(default)]
    pub(crate) candidates: Option<Vec<ItemId>>,
    #[serde(flatten)]
    pub(crate) options: RankOptions,
    #[serde(default)]
    pub(crate) rules: Rules,
    #[serde(default)]
    pub(crate) diversity: Option<Diversity>,
    #[serde(default)]
    pub(crate) exploration: Option<Exploration>,
    /// Whether the personal model counts.
    #[serde(default)]
    pub(crate) personal: bool,
    pub(crate) now_millis: i64,
}

/// What to find items like: `{"itemIds": ["…"], "candidates": […]?, "history": […], "k": 10, "excludeSeen": false}`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SimilarCall {
    pub(crate) item_ids: Vec<ItemId>,
    #[serde(default)]
    pub(crate) candidates: Option<Vec<ItemId>>,
    #[serde(default)]
    pub(crate) history: Vec<HistoryEvent>,
    #[serde(flatten)]
    pub(crate) options: RankOptions,
}

/// What to search: `{"history": […], "candidates": […]?, "k": 10, "excludeSeen": false, "taste": 0, "nowMillis": …}`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SearchCall {
    pub(crate) history: Vec<HistoryEvent>,
    #[serde(default)]
    pub(crate) candidates: Option<Vec<ItemId>>,
    #[serde(flatten)]
    pub(crate) options: RankOptions,
    pub(crate) taste: f64,
    pub(crate) now_millis: i64,
}

/// New items to rank: `{"itemIds": ["…"], "history": […], "nowMillis": …}`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RankNewCall {
    pub(crate) item_ids: Vec<ItemId>,
    pub(crate) history: Vec<HistoryEvent>,
    pub(crate) now_millis: i64,
}

/// What to explain: `{"history": […], "itemId": "…", "k": 10, "nowMillis": …}`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ExplainCall {
    pub(crate) history: Vec<HistoryEvent>,
    pub(crate) item_id: ItemId,
    pub(crate) k: usize,
    pub(crate) now_millis: i64,
}

impl RankCall {
    /// Reads a call. The text is in memory already, and lists grow as they are read, so a length that is only claimed
    /// takes nothing.
    ///
    /// # Errors
    /// It is malformed, or a list in it is too long.
    pub(crate) fn read(json: &str) -> Result<Self, ShellError> {
        let call: Self = parse(json)?;
        within("candidates", call.candidates.as_deref(), NUM_ITEMS_MAX)?;
        within("history", Some(&call.history), HISTORY_EVENTS_MAX)?;
        Ok(call)
    }
}

impl SimilarCall {
    /// Likewise.
    ///
    /// # Errors
    /// Likewise.
    pub(crate) fn read(json: &str) -> Result<Self, ShellError> {
        let call: Self = parse(json)?;
        within("itemIds", Some(&call.item_ids), SIMILAR_TO_MAX)?;
        within("candidates", call.candidates.as_deref(), NUM_ITEMS_MAX)?;
        within("history", Some(&call.history), HISTORY_EVENTS_MAX)?;
        Ok(call)
    }
}

impl SearchCall {
    /// Likewise.
    ///
    /// # Errors
    /// Likewise, or the say of taste is not 0 to 1.
    pub(crate) fn read(json: &str) -> Result<Self, ShellError> {
        let call: Self = parse(json)?;
        within("candidates", call.candidates.as_deref(), NUM_ITEMS_MAX)?;
        within("history", Some(&call.history), HISTORY_EVENTS_MAX)?;
        if !(0.0..=1.0).contains(&call.taste) {
            let reason = format!("taste is {}, expected 0 to 1", call.taste);
            return Err(ShellError::argument("call", reason));
        }
        Ok(call)
    }
}

impl RankNewCall {
    /// Likewise.
    ///
    /// # Errors
    /// Likewise.
    pub(crate) fn read(json: &str) -> Result<Self, ShellError> {
        let call: Self = parse(json)?;
        within("items", Some(&call.item_ids), NEW_ITEMS_MAX)?;
        within("history", Some(&call.history), HISTORY_EVENTS_MAX)?;
        Ok(call)
    }
}

impl ExplainCall {
    /// Likewise.
    ///
    /// # Errors
    /// Likewise.
    pub(crate) fn read(json: &str) -> Result<Self, ShellError> {
        let call: Self = parse(json)?;
        within("history", Some(&call.history), HISTORY_EVENTS_MAX)?;
        Ok(call)
    }
}

fn parse<'de, T: Deserialize<'de>>(json: &'de str) -> Result<T, ShellError> {
    serde_json::from_str(json).map_err(|error| ShellError::argument("call", error))
}

/// # Errors
/// The list is longer than `max`.
fn within<T>(field: &'static str, list: Option<&[T]>, max: usize) -> Result<(), ShellError> {
    let actual = list.map_or(0, <[T]>::len);
    if actual <= max {
        return Ok(());
    }
    let too_long = EngineError::TooLong { field, actual, max };
    Err(too_long.into())
}

/// Whom to trust, as the script says it.
#[derive(Deserialize)]
#[serde(untagged)]
enum TrustForm {
    Keys(Vec<String>),
    Root { root: String },
}

/// Reads the trusted keys, `["<base64>", …]`, or the pinned root, `{"root": "<base64>"}`.
/// An empty list trusts nobody yet, so that nothing is asked for.
pub(crate) fn read_trust(json: &str) -> Result<Trust, ShellError> {
    let refused = |reason: String| ShellError::argument("trust", reason);
    let form: TrustForm = serde_json::from_str(json).map_err(|error| refused(error.to_string()))?;
    let texts = match form {
        TrustForm::Keys(texts) => texts,
        TrustForm::Root { root } => {
            let root = parse_public_key(&root).map_err(|error| refused(error.to_string()))?;
            return Ok(Trust::Root(root));
        }
    };
    if texts.is_empty() {
        return Ok(Trust::OnFirstUse);
    }
    if texts.len() > KEYS_MAX {
        return Err(refused(format!(
            "{} keys, at most {KEYS_MAX} are accepted",
            texts.len()
        )));
    }
    let mut keys = Vec::with_capacity(texts.len());
    for text in &texts {
        keys.push(parse_public_key(text).map_err(|error| refused(error.to_string()))?);
    }
    Ok(Trust::Keys(keys))
}

/// What the engine wants: `{"kind": "key_set"}`, `{"kind": "plan", "base": 7}` or `{"kind": "blob", "id": "…", "bytes": 512}`.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum RequestForm {
    KeySet,
    Plan { base: Option<Version> },
    Blob { id: BlobId, bytes: u64 },
}

impl From<&EdgeRequest> for RequestForm {
    fn from(request: &EdgeRequest) -> Self {
        match request {
            EdgeRequest::KeySet => Self::KeySet,
            EdgeRequest::Plan { base } => Self::Plan { base: *base },
            EdgeRequest::Blob { blob } => Self::Blob {
                id: blob.id,
                bytes: blob.bytes,
            },
        }
    }
}

impl From<RequestForm> for EdgeRequest {
    fn from(form: RequestForm) -> Self {
        match form {
            RequestForm::KeySet => Self::KeySet,
            RequestForm::Plan { base } => Self::Plan { base },
            RequestForm::Blob { id, bytes } => Self::Blob {
                blob: BlobRef { id, bytes },
            },
        }
    }
}

/// What ranks now; all of it `null` or 0 before the first version.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Status {
    version: Option<u64>,
    kind: Option<&'static str>,
    state_hash: Option<String>,
    learned_through: Option<u64>,
    created_at: Option<i64>,
    expires_at: Option<i64>,
    event_time_millis: Option<i64>,
    encoder_generation: Option<u32>,
    num_items: usize,
    moderation_revision: Option<u64>,
}

impl Status {
    pub(crate) fn of(live: Option<&Live>, moderation_revision: Option<u64>) -> Self {
        use shared_model::manifest::VersionKind;
        let Some(live) = live else {
            return Self {
                moderation_revision,
                ..Self::default()
            };
        };
        let manifest = &live.manifest;
        let kind = match manifest.kind {
            VersionKind::Fast => "fast",
            VersionKind::Release => "release",
        };
        Self {
            version: Some(manifest.version.0),
            kind: Some(kind),
            state_hash: Some(manifest.state.to_hex()),
            learned_through: Some(manifest.learned_through.0),
            created_at: Some(manifest.created_at),
            expires_at: Some(manifest.expires_at),
            event_time_millis: Some(manifest.event_time_millis),
            encoder_generation: Some(manifest.encoder_generation),
            num_items: live.state.items.len(),
            moderation_revision,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rank_call_needs_history_and_time_only() -> Result<(), serde_json::Error> {
        let call: RankCall = serde_json::from_str(r#"{"history": [], "nowMillis": 5}"#)?;
        assert_eq!((call.options, call.now_millis), (RankOptions::default(), 5));
        assert_eq!((call.exploration, call.personal), (None, false));
        let call: RankCall = serde_json::from_str(
            r#"{"history": [], "nowMillis": 5, "k": 3, "excludeSeen": false, "exploration": {"epsilon": 0.1, "seed": 9}}"#,
        )?;
        assert!(call.exploration.is_some());
        assert_eq!(
            call.options,
            RankOptions {
                k: 3,
                exclude_seen: false
            }
        );
        Ok(())
    }

    #[test]
    fn rules_and_diversity_are_read_and_refused_by_name() {
        let call = RankCall::read(
            r#"{"history": [], "nowMillis": 5, "diversity": {"lambda": 0.5},
                "rules": {"boost": [{"itemIds": ["a"], "points": 2}], "exclude": ["b"]}}"#,
        );
        let call = call.expect("well-formed");
        assert_ne!(call.rules, Rules::default());
        assert!(call.diversity.is_some());
        for (text, part) in [
            (
                r#""rules": {"boost": [{"itemIds": [], "points": 101}]}"#,
                "rules.boost[0].points is 101",
            ),
            (r#""diversity": {"lambda": 2}"#, "lambda is 2"),
        ] {
            let refused = RankCall::read(&format!(r#"{{"history": [], "nowMillis": 5, {text}}}"#));
            let error = refused.expect_err("refused");
            assert_eq!(error.code(), "invalid_argument");
            assert!(error.to_string().contains(part), "{error}");
        }
    }

    #[test]
    fn lists_longer_than_a_call_may_bring_are_refused() {
        let ids = |num: usize| vec![r#""a""#; num].join(",");
        let ask = |num| format!(r#"{{"itemIds": [{}]}}"#, ids(num));
        assert!(SimilarCall::read(&ask(SIMILAR_TO_MAX)).is_ok());
        let error = SimilarCall::read(&ask(SIMILAR_TO_MAX + 1)).expect_err("one more");
        assert_eq!(error.code(), "too_long");
        assert!(
            error.to_string().starts_with("itemIds is 1001 long"),
            "{error}"
        );
        let event = r#"{"item_id": "a", "kind": "click", "occurred_at": 1}"#;
        let history = vec![event; HISTORY_EVENTS_MAX + 1].join(",");
        let ask = format!(r#"{{"history": [{history}], "nowMillis": 5}}"#);
        let error = RankCall::read(&ask).expect_err("too long");
        assert!(
            error.to_string().starts_with("history is 10001 long"),
            "{error}"
        );
    }

    #[test]
    fn the_say_of_taste_is_zero_to_one() {
        let ask = |taste: &str| format!(r#"{{"history": [], "nowMillis": 5, "taste": {taste}}}"#);
        assert!(SearchCall::read(&ask("0.5")).is_ok());
        let error = SearchCall::read(&ask("1.5")).expect_err("more than all");
        assert!(
            error.to_string().contains("taste is 1.5, expected 0 to 1"),
            "{error}"
        );
    }

    #[test]
    fn a_request_survives_the_way_through_the_script() -> Result<(), serde_json::Error> {
        let request = EdgeRequest::Blob {
            blob: BlobRef {
                id: BlobId::of(b"x"),
                bytes: 12,
            },
        };
        let text = serde_json::to_string(&RequestForm::from(&request))?;
        let form: RequestForm = serde_json::from_str(&text)?;
        assert_eq!(form, RequestForm::from(&request));
        Ok(())
    }

    #[test]
    fn refuses_malformed_keys_and_trusts_nobody_by_an_empty_list() {
        assert!(read_trust(r#"["AAAA"]"#).is_err());
        assert!(read_trust("{}").is_err());
        assert!(matches!(read_trust("[]"), Ok(Trust::OnFirstUse)));
        assert!(read_trust(r#"{"root": "AAAA"}"#).is_err());
    }
}
