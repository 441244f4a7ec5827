//! Claims about releases that a part of the pages tries first, with a real server, its learner and native pages in both
//! channels: a good one reaches everyone, a bad one nobody outside the cohort, and the cohort comes back from it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, ensure};
use burn::tensor::Device;
use harness::scene::Scene;
use harness::server::{Server, freshet_program};
use harness::wait;
use serde_json::{Value, json};
use shared_model::codec::state::CodeState;
use shared_model::ids::Version;
use shared_model::manifest::{Channel, VersionKind};
use shared_model::spec::TensorGroup;
use tokio::task::JoinHandle;
use trainer_server::page_client::{PageClient, PageKind, ServerAddress};

const PATIENCE: Duration = Duration::from_secs(90);

/// A port that was free a moment ago.
fn free_address() -> anyhow::Result<String> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    Ok(listener.local_addr()?.to_string())
}

/// What a page has had: version, channel, kind, and its codes where it is of the cohort.
#[derive(Debug, Clone)]
struct Had {
    version: Version,
    channel: Channel,
    kind: VersionKind,
    state: Arc<CodeState>,
}

/// A page that follows the server for as long as the test lasts.
struct Follower {
    had: Arc<Mutex<Vec<Had>>>,
    task: JoinHandle<()>,
}

impl Follower {
    async fn open(address: &ServerAddress, bucket: u8) -> anyhow::Result<Self> {
        let kind = PageKind::Ranking(Device::flex());
        let mut page = PageClient::connect(address, kind)
            .await?
            .with_bucket(bucket);
        let had = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&had);
        let task = tokio::spawn(async move {
            loop {
                let applied = page.next_version().await;
                assert!(applied.hash_matches, "another hash than the manifest names");
                let live = page.live().expect("just applied");
                told.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(Had {
                        version: live.manifest.version,
                        channel: live.manifest.channel,
                        kind: live.manifest.kind,
                        state: Arc::new(live.state.clone()),
                    });
            }
        });
        Ok(Self { had, task })
    }

    fn had(&self) -> Vec<Had> {
        let had = self.had.lock().unwrap_or_else(PoisonError::into_inner);
        had.clone()
    }

    async fn has(&self, what: &str, is_it: impl Fn(&Had) -> bool) -> anyhow::Result<Had> {
        wait::until(what, PATIENCE, async || {
            Ok(self.had().last().filter(|had| is_it(had)).cloned())
        })
        .await
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A server, a page of the cohort and one of everyone's, both with its first version.
struct Stage {
    admin: String,
    scene: Scene,
    cohort: Follower,
    everyone: Follower,
}

impl Stage {
    async fn start(seed: u64, settings: &[(&str, &str)]) -> anyhow::Result<Self> {
        let admin = free_address()?;
        let mut all = vec![
            ("clock.mode", "event_time"),
            ("server.admin_bind", &*admin),
            ("rollout.canary_share", "50"),
            ("rollout.canary_interval_millis", "200"),
            ("rollout.rise_max", "0.05"),
            ("release.steps", "6"),
            ("release.trial_events", "0"), // what the trial says of a release is not the claim
            ("gate.log_loss_rise_max", "1000000"), // nor what the gate says
            ("gate.agreement_min", "0"),
        ];
        all.extend_from_slice(settings);
        let scene = Scene::start(seed, &all).await?;
        let address = scene.server.address();
        let cohort = Follower::open(address, 0).await?;
        let everyone = Follower::open(address, 99).await?;
        for page in [&cohort, &everyone] {
            page.has("a first version", |_| true).await?;
        }
        let stage = Self {
            admin,
            scene,
            cohort,
            everyone,
        };
        wait::until("the cohort watches", PATIENCE, async || {
            let status = status(&stage.scene.server).await?;
            Ok((status["canary"]["num_pages"] == 1).then_some(()))
        })
        .await?;
        Ok(stage)
    }

    /// Gives an order; the status of its answer.
    async fn order(&self, word: &str) -> anyhow::Result<u16> {
        let url = format!("http://{}/v1/rollout", self.admin);
        let order = json!({ "order": word });
        let response = reqwest::Client::new().post(url).json(&order).send().await?;
        Ok(response.status().as_u16())
    }

    /// Orders a release and waits until the cohort has it.
    async fn begin(&self) -> anyhow::Result<Had> {
        ensure!(self.order("publish").await? == 200);
        self.has_canary().await
    }

    async fn has_canary(&self) -> anyhow::Result<Had> {
        let is_canary = |had: &Had| had.channel == Channel::Canary;
        self.cohort
            .has("the cohort has the canary", is_canary)
            .await
    }

    /// Takes the folder of the manifests away, so that no version can be written, or puts it back.
    fn take_away_manifests(&self, is_away: bool) -> anyhow::Result<()> {
        let dir = self.scene.server.data_dir();
        let (there, away) = (dir.join("manifests"), dir.join("away"));
        let (from, to) = if is_away {
            (there, away)
        } else {
            (away, there)
        };
        Ok(std::fs::rename(from, to)?)
    }

    async fn is_paused(&self, is_wanted: bool) -> anyhow::Result<()> {
        wait::until("publishing pauses or goes on", PATIENCE, async || {
            let trainer = &status(&self.scene.server).await?["trainer"];
            ensure!(trainer["phase"] != "stopped", "{trainer}");
            Ok((trainer["paused"].is_string() == is_wanted).then_some(()))
        })
        .await
    }

    /// Events come in until the canary has ended; its row of the ledger.
    async fn decided(&mut self) -> anyhow::Result<Value> {
        for _ in 0..400 {
            self.scene.clicks(5).await?;
            if let Some(row) = self.ended().await? {
                return Ok(row);
            }
        }
        anyhow::bail!("400 rounds of events decide nothing")
    }

    /// The row of a canary that has ended.
    async fn ended(&self) -> anyhow::Result<Option<Value>> {
        let url = format!("http://{}/v1/versions?limit=1000", self.admin);
        let listed: Value = reqwest::get(url).await?.json().await?;
        let rows = listed["rows"].as_array().context("rows")?;
        Ok(rows.iter().find(|row| row["row"] == "canary").cloned())
    }

    /// Both pages are on one stable version that is newer than every canary; neither ever went back in number, and
    /// everyone's page has had no canary.
    async fn comes_together(&self) -> anyhow::Result<Had> {
        let versions = self.cohort.had().into_iter();
        let canaries = versions.filter(|had| had.channel == Channel::Canary);
        let last = canaries.last().context("the cohort had a canary")?.version;
        let is_after = |had: &Had| had.channel == Channel::Stable && had.version > last;
        self.cohort.has("the cohort is back", is_after).await?;
        let newest = self.scene.server.api.newest_version().await?.0.version;
        let is_newest = |had: &Had| had.version >= newest;
        let own = self
            .cohort
            .has("the cohort has the newest", is_newest)
            .await?;
        let other = self
            .everyone
            .has("everyone has the newest", is_newest)
            .await?;
        assert!(own.version != other.version || own.state == other.state);
        for page in [&self.cohort, &self.everyone] {
            let had = page.had();
            assert!(had.windows(2).all(|pair| pair[0].version < pair[1].version));
        }
        let everyone = self.everyone.had();
        assert!(everyone.iter().all(|had| had.channel == Channel::Stable));
        Ok(other)
    }
}

async fn status(server: &Server) -> anyhow::Result<Value> {
    let url = server.address().path("/v1/status");
    Ok(reqwest::get(url).await?.json().await?)
}

/// The slow tensors of a state.
fn slow(state: &CodeState) -> Vec<&shared_model::codec::state::CodeTensor> {
    let shapes = state.shapes();
    let pairs = shapes.iter().zip(&state.tensors);
    let slow = pairs.filter(|(shape, _)| shape.group == TensorGroup::Slow);
    slow.map(|(_, tensor)| tensor).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_release_reaches_everyone_after_the_cohort_has_tried_it() -> anyhow::Result<()> {
    let mut stage = Stage::start(
        11,
        &[
            ("release.learning_rate", "0.001"),
            ("release.strategy", "full"),
        ],
    )
    .await?;
    let before = stage.everyone.had().last().context("a version")?.clone();
    let canary = stage.begin().await?;
    assert_eq!(canary.kind, VersionKind::Release);
    assert_ne!(
        slow(&canary.state),
        slow(&before.state),
        "the release moved something"
    );

    let row = stage.decided().await?;

    println!("{row}");
    assert_eq!(row["outcome"], "promoted", "{row}");
    assert_eq!(row["first"], canary.version.0);
    let newest = stage.comes_together().await?;
    assert_eq!(
        slow(&newest.state),
        slow(&canary.state),
        "as tried, so promoted"
    );
    let everyone = stage.everyone.had();
    let release = everyone
        .iter()
        .find(|had| had.kind == VersionKind::Release && had.version > canary.version);
    assert!(release.is_some(), "it went out as a release");
    // While it ran, the cohort's rows went on learning as everyone's did.
    let followed = stage.cohort.had().into_iter();
    let followed =
        followed.filter(|had| had.channel == Channel::Canary && had.kind == VersionKind::Fast);
    assert!(followed.count() > 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_release_is_taken_back_before_anyone_outside_the_cohort_sees_it() -> anyhow::Result<()>
{
    // A rate a hundred times too large: the release is trained, compressed and signed as any, and is bad.
    let settings = [
        ("release.learning_rate", "0.5"),
        ("release.strategy", "full"),
    ];
    let mut stage = Stage::start(12, &settings).await?;
    let before = stage.everyone.had().last().context("a version")?.clone();
    let canary = stage.begin().await?;

    let row = stage.decided().await?;

    println!("{row}");
    assert_eq!(
        (&row["outcome"], &row["reason"]),
        (&json!("taken_back"), &json!("rise")),
        "{row}"
    );
    assert!(
        row["evidence"]["rise_lower"].as_f64().context("a bound")? >= 0.05,
        "{row}"
    );
    let newest = stage.comes_together().await?;
    assert_eq!(slow(&newest.state), slow(&before.state));
    assert_ne!(slow(&newest.state), slow(&canary.state));
    let everyone = stage.everyone.had();
    assert!(
        everyone
            .iter()
            .all(|had| slow(&had.state) == slow(&before.state))
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_that_pages_cannot_take_is_taken_back_by_their_reports() -> anyhow::Result<()> {
    let stage = Stage::start(13, &[("rollout.faults_max", "2")]).await?;
    let canary = stage.begin().await?;
    let url = stage.scene.server.address().path("/v1/models/main/reports");
    let report = json!({ "version": canary.version, "code": "self_test", "bucket": 3 });
    for _ in 0..3 {
        assert!(stage.ended().await?.is_none(), "no more than faults_max");
        let response = reqwest::Client::new()
            .post(&url)
            .json(&report)
            .send()
            .await?;
        ensure!(response.status() == 204, "{response:?}");
    }
    let row = wait::until("it is taken back", PATIENCE, async || stage.ended().await).await?;
    assert_eq!(
        (&row["outcome"], &row["reason"]),
        (&json!("taken_back"), &json!("faults")),
        "{row}"
    );
    assert_eq!(row["evidence"]["num_faults"], 3);
    stage.comes_together().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_that_a_crash_cuts_off_is_taken_back_at_the_next_start() -> anyhow::Result<()> {
    let mut stage = Stage::start(14, &[]).await?;
    let canary = stage.begin().await?;
    stage.scene.server.kill9().await?;
    stage.scene.server.restart().await?;
    let status = status(&stage.scene.server).await?;
    assert_eq!(status["canary"]["version"], Value::Null);
    let (newest, _) = stage.scene.server.api.newest_version().await?;
    assert!(newest.version > canary.version);
    let together = stage.comes_together().await?;
    assert_ne!(slow(&together.state), slow(&canary.state));
    stage.scene.clicks(20).await?;
    stage.comes_together().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_promotes_a_canary_or_takes_it_back_by_a_pin() -> anyhow::Result<()> {
    let stage = Stage::start(15, &[]).await?;
    for (word, outcome) in [("promote", "promoted"), ("pin", "taken_back")] {
        let canary = stage.begin().await?;
        let mut command = tokio::process::Command::new(freshet_program()?);
        let admin = format!("http://{}", stage.admin);
        let words = [word, "--by", "anna", "--admin", &admin, "--json"];
        let output = command.args(words).output().await?;
        ensure!(output.status.success(), "{output:?}");
        let row = stage.ended().await?.context("it has ended")?;
        assert_eq!(
            (&row["outcome"], &row["by"]),
            (&json!(outcome), &json!("anna")),
            "{row}"
        );
        assert_eq!(row["first"], canary.version.0);
        stage.comes_together().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_that_cannot_be_written_pauses_and_is_neither_half_told_nor_lost()
-> anyhow::Result<()> {
    let stage = Stage::start(16, &[]).await?;
    stage.take_away_manifests(true)?;
    ensure!(stage.order("publish").await? == 200);
    stage.is_paused(true).await?;
    let cohort = stage.cohort.had();
    assert!(cohort.iter().all(|had| had.channel == Channel::Stable));
    let begun = status(&stage.scene.server).await?;
    assert_eq!(begun["canary"]["version"], Value::Null);
    stage.take_away_manifests(false)?;
    let canary = stage.has_canary().await?; // the same release, without another order
    stage.is_paused(false).await?;

    stage.take_away_manifests(true)?;
    let newest = stage.scene.server.api.newest_version().await?.0.version;
    assert_eq!(
        stage.order("promote").await?,
        503,
        "it could not be written"
    );
    stage.is_paused(true).await?;
    let during = status(&stage.scene.server).await?;
    assert_eq!(during["canary"]["version"], json!(canary.version));
    assert_eq!(during["version"], json!(newest));
    assert!(stage.ended().await?.is_none(), "it runs on");
    stage.take_away_manifests(false)?;
    stage.is_paused(false).await?;
    assert!(stage.ended().await?.is_none(), "and still does");

    stage.take_away_manifests(true)?;
    assert_eq!(stage.order("pin").await?, 200, "the pin itself stands");
    stage.is_paused(true).await?;
    assert!(stage.ended().await?.is_none(), "its cohort has it still");
    stage.take_away_manifests(false)?;
    let ended = async || stage.ended().await;
    let row = wait::until("it is taken back", PATIENCE, ended).await?;
    assert_eq!(
        (&row["outcome"], &row["reason"]),
        (&json!("taken_back"), &json!("operator")),
        "{row}"
    );
    assert_eq!(row["first"], json!(canary.version));
    stage.comes_together().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_that_was_cut_off_is_taken_back_by_the_trainer_where_the_start_cannot()
-> anyhow::Result<()> {
    let mut stage = Stage::start(17, &[]).await?;
    let canary = stage.begin().await?;
    stage.scene.server.kill9().await?;
    let in_the_way = stage.scene.server.data_dir().join(".unfinished-reserve");
    std::fs::remove_file(stage.scene.server.data_dir().join("reserve"))?;
    std::fs::create_dir(&in_the_way)?;
    stage.scene.server.restart().await?;
    stage.is_paused(true).await?;
    let newest = stage.scene.server.api.newest_version().await?.0.version;
    assert!(newest < canary.version, "nothing could be written");
    std::fs::remove_dir(&in_the_way)?;
    let together = stage.comes_together().await?;
    assert!(together.version > canary.version);
    assert_ne!(slow(&together.state), slow(&canary.state));
    Ok(())
}
