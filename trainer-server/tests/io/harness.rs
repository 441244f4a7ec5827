//! A server in this process on a free port, with a stand-in for the trainer and a clock that stands still.

use std::path::Path;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use shared_model::codec::state::{CodeState, ItemEntry};
use shared_model::edge::engine::{EventEffect, Found, FoundItem, ItemExplanation};
use shared_model::event::HistoryEvent;
use shared_model::ids::{ItemId, LogOffset, UserId, Version};
use shared_model::manifest::{ModerationRules, SelfTest, VersionKind};
use shared_model::model::explain::{AverageParts, ScoreParts};
use shared_model::spec::ModelSpec;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use trainer_server::access::{Keys, LiveKeys};
use trainer_server::audit::AuditLog;
use trainer_server::canary::reports::Reports;
use trainer_server::catalogue::Catalogue;
use trainer_server::config::Config;
use trainer_server::config::load::{Sources, load};
use trainer_server::coverage::CoverageReport;
use trainer_server::event_log::{EventLog, EventLogConfig};
use trainer_server::experiment::store::Experiments;
use trainer_server::explore::Uncertain;
use trainer_server::http::{
    self, AppParts, AppState, ExplainOrder, ExploreResponse, RankedBy, RecommendError,
    RecommendRequest, RecommendResponse, Recommender, ScoredItem, SearchOrder,
};
use trainer_server::influence::Standing;
use trainer_server::ledger::Ledger;
use trainer_server::moderation::{Moderation, Preview};
use trainer_server::observe::Observer;
use trainer_server::page_encoder::packs::TextPacks;
use trainer_server::pseudonyms::Pseudonyms;
use trainer_server::publish::{NewVersion, Publisher};
use trainer_server::visits::VisitTokens;

/// What the server's clock shows.
pub(crate) const NOW_MILLIS: i64 = 1_800_000_000_000;

/// Scores the candidates by the length of their ids, and keeps the users that it is asked about.
#[derive(Default)]
struct ByLength {
    users: Arc<Mutex<Vec<UserId>>>,
}

impl ByLength {
    fn note(&self, user_id: Option<&UserId>) {
        self.users
            .lock()
            .expect("no panic")
            .extend(user_id.cloned());
    }
}

impl Recommender for ByLength {
    fn recommend(&self, request: RecommendRequest) -> Result<RecommendResponse, RecommendError> {
        self.note(request.user_id.as_ref());
        let all = || ["a", "bb"].map(|id| ItemId::new(id).expect("short")).into();
        let candidates = match (request.candidates, request.version) {
            (_, Some(version)) if version != Version(1) => {
                return Err(RecommendError::NotKept(version));
            }
            (None, None) => return Err(RecommendError::NotReady),
            (None, Some(_)) => all(),
            (Some(candidates), _) => candidates,
        };
        if request.k == 13 {
            return Err(RecommendError::Failed("a secret of the inside".to_owned()));
        }
        let mut items: Vec<ScoredItem> = candidates
            .into_iter()
            .filter(|item_id| item_id.as_str() != "unborn")
            .filter(|item_id| !request.moderation.rules.block.contains(item_id))
            .map(|item_id| ScoredItem {
                score: item_id.as_str().len() as f32,
                // Says that the wish arrived; what is drawn is the engine's.
                propensity: request.exploration.map(|_| 0.5),
                points: 0.0,
                is_pinned: false,
                arm: None,
                item_id,
            })
            .collect();
        items.sort_by(|left, right| right.score.total_cmp(&left.score));
        if request.ranked_by == RankedBy::Popularity {
            items.reverse();
        }
        items.truncate(request.k);
        Ok(RecommendResponse {
            model_version: Version(1),
            arm: None,
            items,
        })
    }

    fn explain(&self, order: ExplainOrder) -> Result<ItemExplanation, RecommendError> {
        self.note(order.user_id.as_ref());
        let history = order.history.ok_or(RecommendError::NotReady)?;
        if order.item_id.as_str() == "bb" {
            return Err(RecommendError::NotYetHeld(order.item_id));
        }
        let named = history.into_iter().take(order.k).map(|event| EventEffect {
            item_id: event.item_id,
            kind: event.kind,
            occurred_at: event.occurred_at,
            effect: 0.5,
            taste: 0.5,
            neighbours: 0.0,
        });
        Ok(ItemExplanation {
            model_version: Version(1),
            item_id: order.item_id,
            score: 2.0,
            parts: ScoreParts {
                text: 2.0,
                ..ScoreParts::default()
            },
            average: AverageParts::default(),
            text_effect: 1.5,
            events: named.collect(),
        })
    }

    fn search(&self, order: SearchOrder) -> Result<Found, RecommendError> {
        self.note(order.user_id.as_ref());
        let item_id = order.candidates.and_then(|ids| ids.into_iter().next());
        let similarity = order.text.iter().map(|value| value * value).sum();
        let found = item_id.map(|item_id| FoundItem {
            item_id,
            score: order.taste as f32,
            similarity,
        });
        Ok(Found {
            model_version: Version(1),
            items: found.into_iter().collect(),
        })
    }

    fn preview(
        &self,
        before: &ModerationRules,
        after: &ModerationRules,
    ) -> Result<Preview, RecommendError> {
        let num_changed = usize::from(before != after);
        Ok(Preview {
            model_version: Version(1),
            num_users: 1,
            num_changed,
            sample: None,
        })
    }

    fn coverage(&self, _moderation: &ModerationRules) -> Result<CoverageReport, RecommendError> {
        Err(RecommendError::NotReady)
    }

    fn explore(&self, k: usize) -> Result<ExploreResponse, RecommendError> {
        let row = |item_id: &str| Uncertain {
            item_id: ItemId::new(item_id).expect("short"),
            share: 0.25,
            num_events: 2.0,
            uncertainty: 0.5,
            upper: 0.75,
        };
        Ok(ExploreResponse {
            model_version: Version(1),
            items: ["a", "bb"].into_iter().take(k).map(row).collect(),
        })
    }

    fn status(&self) -> Value {
        json!({ "device": "stand-in" })
    }

    fn standing(&self, user_id: &UserId) -> Option<Standing> {
        self.note(Some(user_id));
        None
    }

    fn history(&self, user_id: &UserId) -> Vec<HistoryEvent> {
        self.note(Some(user_id));
        Vec::new()
    }
}

/// A running server.
pub(crate) struct TestServer {
    pub(crate) url: String,
    /// Of the routes for operators.
    pub(crate) admin_url: String,
    pub(crate) ledger: Ledger,
    pub(crate) log: EventLog,
    /// That the recommender was asked about.
    pub(crate) users: Arc<Mutex<Vec<UserId>>>,
    pub(crate) publisher: Publisher,
    pub(crate) text_packs: TextPacks,
    pub(crate) client: reqwest::Client,
    stop: watch::Sender<bool>,
    tasks: [JoinHandle<()>; 2],
}

impl TestServer {
    /// Starts on the data in `dir`; `flags` are settings.
    pub(crate) async fn start(dir: &Path, flags: &[(&str, &str)]) -> Self {
        let config = Arc::new(config(flags));
        let log = EventLog::open(dir, &EventLogConfig::from(&*config)).expect("log opens");
        let catalogue = Catalogue::from_log(&log).expect("catalogue");
        let publisher = Publisher::open(dir, "main", &config.publish).expect("publisher opens");
        let rows_max = config.rollout.ledger_rows_max;
        let ledger = Ledger::open(dir, rows_max, &[]).expect("ledger opens");
        let text_packs = TextPacks::default();
        let rules = &config.moderation;
        let moderation =
            Moderation::open(dir, rules, catalogue.clone(), NOW_MILLIS).expect("rules");
        let (stop, stopping) = watch::channel(false);
        let recommender = ByLength::default();
        let users = Arc::clone(&recommender.users);
        let state = AppState::new(AppParts {
            keys: LiveKeys::new(Keys::from_config(&config).expect("usable keys")),
            audit: AuditLog::open(dir).expect("opens"),
            config: Arc::clone(&config),
            log: log.clone(),
            catalogue,
            publisher: publisher.clone(),
            experiments: Experiments::open(dir).expect("opens"),
            recommender: Arc::new(recommender),
            ledger: ledger.clone(),
            reports: Reports::default(),
            observer: Observer::default(),
            moderation: moderation.clone(),
            text_packs: text_packs.clone(),
            visits: VisitTokens::open(dir).expect("opens"),
            pseudonyms: Pseudonyms::open(dir, config.log.pseudonymous_ids, &log).expect("a key"),
            operator: None,
            clock: || NOW_MILLIS,
            stopping,
        });
        let routers = [
            http::router(state.clone()),
            http::admin_router(state.clone()),
        ];
        let mut urls = Vec::new();
        let mut tasks = Vec::new();
        for router in routers {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
                .await
                .expect("a free port");
            let address = listener.local_addr().expect("bound");
            urls.push(format!("http://{address}"));
            let state = state.clone();
            tasks.push(tokio::spawn(async move {
                http::server::serve(listener, router, &state).await;
            }));
        }
        let [url, admin_url] = <[String; 2]>::try_from(urls).expect("two addresses");
        Self {
            url,
            admin_url,
            ledger,
            log,
            users,
            publisher,
            text_packs,
            client: reqwest::Client::new(),
            stop,
            tasks: tasks.try_into().expect("two listeners"),
        }
    }

    /// Starts with the items `a` and `bb` in the catalogue.
    pub(crate) async fn with_items(dir: &Path) -> Self {
        Self::set_with_items(dir, &[]).await
    }

    /// Likewise, with settings.
    pub(crate) async fn set_with_items(dir: &Path, flags: &[(&str, &str)]) -> Self {
        let server = Self::start(dir, flags).await;
        let items = json!({ "items": [
            { "item_id": "a", "title": "Tea pot" }, { "item_id": "bb", "title": "Balloons" },
        ]});
        let (status, _) = server
            .send(reqwest::Method::PUT, "/v1/items", items.to_string())
            .await;
        assert_eq!(status, 200);
        server
    }

    pub(crate) async fn get(&self, path: &str) -> reqwest::Response {
        self.client
            .get(format!("{}{path}", self.url))
            .send()
            .await
            .expect("an answer")
    }

    /// Sends JSON text; the answer is JSON whatever happens.
    pub(crate) async fn send(
        &self,
        method: reqwest::Method,
        path: &str,
        body: impl Into<reqwest::Body>,
    ) -> (u16, Value) {
        let request = self.client.request(method, format!("{}{path}", self.url));
        let request = request
            .header("content-type", "application/json")
            .body(body);
        let response = request.send().await.expect("an answer");
        let status = response.status().as_u16();
        (status, response.json().await.expect("JSON"))
    }

    pub(crate) async fn post(&self, path: &str, body: impl Into<reqwest::Body>) -> (u16, Value) {
        self.send(reqwest::Method::POST, path, body).await
    }

    /// Tells it to stop, and waits until it has.
    pub(crate) async fn stop(self) {
        self.stop.send_replace(true);
        for task in self.tasks {
            task.await.expect("no panic");
        }
        self.log.shutdown();
    }

    /// Tells it to stop, without waiting.
    pub(crate) fn tell_to_stop(&self) {
        self.stop.send_replace(true);
    }
}

pub(crate) fn config(flags: &[(&str, &str)]) -> Config {
    let no_admin = [("server.admin_bind", "")];
    let flags = no_admin
        .iter()
        .chain(flags)
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    load(&Sources {
        flags,
        ..Sources::default()
    })
    .expect("valid settings")
}

/// An event that is accepted, as JSON.
pub(crate) fn event(event_id: &str) -> Value {
    json!({
        "event_id": event_id, "kind": "click", "user_id": "u", "item_id": "a",
        "occurred_at": NOW_MILLIS - 1000,
    })
}

/// A small state with two items, of which one code differs by `step`.
pub(crate) fn state(step: i16) -> Arc<CodeState> {
    let spec = ModelSpec {
        embedding_dim: 4,
        text_dim: 0,
        feature_dim: 0,
        history_len: 2,
        num_layers: 1,
        num_heads: 1,
        ff_dim: 4,
        half_lives_secs: vec![3600],
        num_neighbours: 0,
        adapter_dim: 0,
        has_taste_weight: true,
        ..ModelSpec::default()
    };
    let mut state = CodeState::empty(spec);
    let item = |id: &str| ItemEntry {
        item_id: ItemId::new(id).expect("valid"),
        available: true,
    };
    state.append_items([item("a"), item("bb")]);
    state.tensor_mut("item.bias").expect("in every spec").codes[0] = step;
    Arc::new(state)
}

/// The next version of a stream of versions; `step` names its state and its offset.
pub(crate) fn new_version(kind: VersionKind, step: i16) -> NewVersion {
    let offset = LogOffset(u64::try_from(step).expect("not negative"));
    NewVersion {
        kind,
        state: state(step % 100),
        learned_from: offset,
        learned_through: offset,
        event_time_millis: NOW_MILLIS,
        created_at: NOW_MILLIS,
        self_test: SelfTest {
            history: Vec::new(),
            now_millis: NOW_MILLIS,
            item_ids: Vec::new(),
            scores: Vec::new(),
            tolerance: 0.0,
        },
    }
}
