//! What `cargo xtask bench poison` measures: an honest stream beside the same one with attackers in it.
//!
//! `poisoning DATASET_DIR EVENTS [section.key=value …]`
//!
//! The first four fifths of the dataset are learned by a warm fit, and `EVENTS` after them ranked and learned as in a
//! study, chunk by chunk. Attackers, 1 % of the clients of these events, send 30 % of all, spread evenly. Each attack
//! runs with `[influence]` off and on; settings given are laid over both. Figures are of honest clients alone: NDCG@10
//! over items new to them, minus that of the same settings without an attack, and in how many of 1,000 lists of ten
//! the target stands. Intervals are of resampled users.
//! Writes one line to standard output, as JSON. Not here: the report (`xtask`).

mod attack;

use std::path::Path;

use anyhow::{Context, ensure};
use indicatif::ProgressBar;
use serde_json::{Value, json};
use shared_model::ids::Version;
use tempfile::TempDir;
use trainer_server::baselines::ranked::Ranked;
use trainer_server::baselines::timelines::Timelines;
use trainer_server::checkpoint::Checkpoint;
use trainer_server::dataset::Dataset;
use trainer_server::evaluate::bootstrap::intervals;
use trainer_server::evaluate::figures::figures;
use trainer_server::evaluate::offline::{Offline, records};
use trainer_server::evaluate::outcomes::Outcomes;
use trainer_server::influence::SetAside;
use trainer_server::learner::Learner;
use trainer_server::preprocess::Preprocessor;
use trainer_server::study::settings::{Settings, config};
use trainer_server::study::stream::{CHUNK_LEN, Published, WalkOptions, go_live, walk};
use trainer_server::train::fast_step::FastOptimizer;

use attack::{Attack, Force, Targets};

const SEED: u64 = 1;
const ATTACKS: [Attack; 6] = [
    Attack::None,
    Attack::Honest,
    Attack::Push,
    Attack::Bandwagon,
    Attack::Nuke,
    Attack::FreshClients,
];

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let dir = arguments.next().context("a dataset folder is wanted")?;
    let num_events = arguments.next().context("a number of events is wanted")?;
    let num_events: usize = num_events.parse()?;
    let mut base = Settings::from([("model.text_encoder".to_owned(), "small".to_owned())]);
    for setting in arguments {
        let (key, value) = setting
            .split_once('=')
            .context("settings are section.key=value")?;
        base.insert(key.to_owned(), value.to_owned());
    }
    let bench = Bench::open(Path::new(&dir), num_events)?;
    let off = Settings::from([("influence.clients_min".to_owned(), "0".to_owned())]);
    let mut sides = Vec::new();
    for (name, settings) in [("undefended", off), ("defended", Settings::new())] {
        let side = bench.side(name, &base, &settings)?;
        sides.push(side);
    }
    println!("{}", bench.report(&sides)?);
    Ok(())
}

/// A dataset, where its stretch begins, and who attacks it.
struct Bench {
    honest: Dataset,
    start: usize,
    targets: Targets,
    force: Force,
    num_clients: usize,
    texts: TempDir,
}

/// All streams under the same settings.
struct Side {
    name: &'static str,
    /// Of the honest events before the stretch.
    set_aside: SetAside,
    /// What honest clients were shown, by attack.
    ranked: Vec<Vec<Ranked>>,
}

impl Bench {
    fn open(dir: &Path, num_events: usize) -> anyhow::Result<Self> {
        let mut honest = Dataset::load(dir, SEED)?;
        let start = honest.split_at(0.8);
        honest.events.truncate(start + num_events);
        let stretch = &honest.events[start..];
        ensure!(!stretch.is_empty(), "there is no event to rank");
        let mut clients: Vec<u32> = stretch.iter().map(|event| event.user_idx).collect();
        clients.sort_unstable();
        clients.dedup();
        Ok(Self {
            targets: Targets::of(&honest, &honest.events[..start])?,
            force: Force {
                num_clients: (clients.len() / 100).max(1),
                num_events: stretch.len() * 3 / 7,
            },
            num_clients: clients.len(),
            texts: tempfile::tempdir()?,
            start,
            honest,
        })
    }

    /// Fits once and walks every stream from there.
    fn side(
        &self,
        name: &'static str,
        base: &Settings,
        settings: &Settings,
    ) -> anyhow::Result<Side> {
        let offline = Offline::within(config(base, settings)?, self.texts.path());
        eprintln!("{name}: warm fit");
        let (mut learner, preprocessor, set_aside) = self.learned(&offline, &self.honest)?;
        learner.warm_fit(&preprocessor, |_| true)?;
        let parameters = learner.parameters();
        let names = parameters.shapes().into_iter().map(|shape| shape.name);
        let fitted = Checkpoint {
            version: Version(1),
            tensors: names.zip(parameters.tensors.iter().cloned()).collect(),
            optimizer: FastOptimizer::default(),
        };
        let mut ranked = Vec::new();
        for attack in ATTACKS {
            eprintln!("{name}: {}", attack.name());
            ranked.push(self.walked(&offline, &fitted, attack)?);
        }
        Ok(Side {
            name,
            set_aside,
            ranked,
        })
    }

    /// A learner that has taken in everything before the stretch, and what of it teaches nothing.
    fn learned(
        &self,
        offline: &Offline,
        dataset: &Dataset,
    ) -> anyhow::Result<(Learner, Preprocessor, SetAside)> {
        let (mut learner, mut preprocessor) = offline.learner(dataset)?;
        let past = records(dataset, &dataset.events[..self.start], 0)?;
        let batch = learner.ingest(&mut preprocessor, &past)?;
        Ok((learner, preprocessor, batch.set_aside))
    }

    /// What honest clients were shown while the attack went on.
    fn walked(
        &self,
        offline: &Offline,
        fitted: &Checkpoint,
        attack: Attack,
    ) -> anyhow::Result<Vec<Ranked>> {
        let dataset = attack.on(&self.honest, self.start, &self.targets, self.force)?;
        let (mut learner, mut preprocessor, _) = self.learned(offline, &dataset)?;
        learner
            .load_weights(fitted)
            .context("weights of another size")?;
        go_live(&mut learner, Published::Codes, usize::MAX)?;
        let range = self.start..dataset.events.len();
        // As many honest events in a chunk and between releases as without the attack.
        let scale = |len: usize| len * range.len() / (self.honest.events.len() - self.start);
        let interval_events = offline.config().release.interval_events as usize; // far below 2^32
        let options = WalkOptions {
            published: Published::Codes,
            interval_events: scale(interval_events) as u64, // usize fits u64
            chunk_len: scale(CHUNK_LEN),
        };
        let parts = (&mut learner, &mut preprocessor);
        let hidden = ProgressBar::hidden();
        let streamed = walk(&dataset, range.clone(), parts, options, &hidden)?;
        let num_users = self.honest.users.len();
        let events = dataset.events[range].iter().zip(streamed.ranked);
        let honest = events.filter(|(event, _)| (event.user_idx as usize) < num_users);
        Ok(honest.map(|(_, ranked)| ranked).collect())
    }

    fn report(&self, sides: &[Side]) -> anyhow::Result<Value> {
        let outcomes = self.outcomes(sides);
        let mut rows = serde_json::Map::new();
        for side in sides {
            let of_attack = |attack: &Attack| label(side, *attack);
            let labels: Vec<String> = ATTACKS.iter().map(of_attack).collect();
            let names: Vec<&str> = labels.iter().map(String::as_str).collect();
            let found = intervals(&outcomes, &names, SEED).map_err(anyhow::Error::msg)?;
            for ((attack, name), ranked) in ATTACKS.iter().zip(&names).zip(&side.ranked) {
                let figures = figures(&outcomes, name).context("every event was ranked")?;
                let target = attack.target(&self.targets);
                let intervals = &found[*name];
                let minus_none = intervals.minus_freshet.as_ref();
                let row = json!({
                    "ndcg_at_10": figures.headline.ndcg_at_10,
                    "ndcg_at_10_interval": intervals.ndcg_at_10_interval,
                    "minus_none": minus_none.map(|difference| difference.ndcg_at_10),
                    "minus_none_interval": minus_none.map(|difference| difference.ndcg_at_10_interval),
                    "exposure": exposure(ranked, target),
                    "exposure_without": exposure(&side.ranked[0], target),
                });
                rows.insert((*name).to_owned(), row);
            }
        }
        let [undefended, defended] = [&sides[0], &sides[1]].map(|side| label(side, Attack::None));
        let cost = intervals(&outcomes, &[&undefended, &defended], SEED);
        let cost = cost.map_err(anyhow::Error::msg)?;
        let cost = cost[&defended].minus_freshet.as_ref();
        let set_aside = sides.last().map(|side| &side.set_aside);
        let pushed = self.targets.pushed;
        let past = &self.honest.events[..self.start];
        Ok(json!({
            "dataset": self.honest.name,
            "num_events": self.honest.events.len() - self.start,
            "num_clients": self.num_clients,
            "num_attackers": self.force.num_clients,
            "num_attack_events": self.force.num_events,
            "pushed_item_past_events": past.iter().filter(|event| event.item_idx == pushed).count(),
            "num_past_events": self.start,
            "set_aside_of_past": set_aside,
            "defended_minus_undefended": cost.map(|difference| difference.ndcg_at_10),
            "defended_minus_undefended_interval": cost.map(|difference| difference.ndcg_at_10_interval),
            "streams": rows,
        }))
    }

    /// All answers to the honest events.
    fn outcomes(&self, sides: &[Side]) -> Outcomes {
        let (past, stretch) = self.honest.events.split_at(self.start);
        let mut timelines = Timelines::new(self.honest.users.len());
        for event in past {
            timelines.push(event);
        }
        let queries: Vec<_> = stretch.iter().map(|event| timelines.push(event)).collect();
        let mut outcomes = Outcomes::new(self.honest.items.len(), past);
        outcomes.ask(&queries);
        for side in sides {
            for (attack, ranked) in ATTACKS.iter().zip(&side.ranked) {
                outcomes.answer(&label(side, *attack), ranked);
            }
        }
        outcomes
    }
}

fn label(side: &Side, attack: Attack) -> String {
    format!("{} {}", side.name, attack.name())
}

/// Lists of a thousand in which the item stands.
fn exposure(ranked: &[Ranked], item_idx: u32) -> f64 {
    let num_with = ranked.iter().filter(|one| one.top.contains(&item_idx));
    1000.0 * num_with.count() as f64 / ranked.len() as f64 // counts fit f64
}
