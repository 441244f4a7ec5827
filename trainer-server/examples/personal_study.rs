//! Whether the personal model helps: a version that learned the first four fifths of a dataset, frozen but for the item
//! counts, ranks the last fifth with and without it.
//!
//! `personal_study DATASET_DIR USERS EVENTS_MAX [SNAPSHOT_FILE]`
//!
//! Of the users of the last fifth every so many are taken, so that there are about `USERS`, each with at most
//! `EVENTS_MAX` of its events there. Before each of them the personal model learns anew from the user's 200 events
//! before it, as a page does. All items are ranked for every event, and those not had yet for an event with a new item;
//! intervals are of resampled users. A snapshot file keeps the version for another run.
//! Not here: what is learned and how (`shared_model::edge::engine::personal`).

use std::collections::HashMap;
use std::path::Path;

use anyhow::bail;
use indicatif::ProgressBar;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use shared_model::codec::snapshot::{decode_snapshot, encode_snapshot};
use shared_model::codec::state::CodeState;
use shared_model::edge::engine::{PERSONAL_EVENTS_MAX, ReadyVersion};
use shared_model::ids::Version;
use shared_model::metrics::{hit_rate_at_k, ndcg_at_k, position_of};
use trainer_server::dataset::Dataset;
use trainer_server::evaluate::offline::{Offline, config, records};
use trainer_server::train::count_history::CountHistory;

const NUM_RESAMPLES: usize = 1000;
const K: usize = 10;
/// Slices by the events that a user had before: name, least, most.
const SLICES: [(&str, usize, usize); 4] = [
    ("all", 0, usize::MAX),
    ("under 5", 0, 4),
    ("5 to 20", 5, 20),
    ("over 20", 21, usize::MAX),
];

/// HR@10 and NDCG@10 of the version, and the same with the personal model.
type Figures = [f64; 4];

/// One event that was ranked.
struct Asked {
    num_known: usize,
    is_on: bool,
    all: Figures,
    /// Among items not had yet, where a new one was taken.
    new: Option<Figures>,
}

struct Study {
    dataset: Dataset,
    state: CodeState,
    ready: ReadyVersion,
    counts: CountHistory,
}

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [dataset_dir, num_users, events_max, rest @ ..] = arguments.as_slice() else {
        bail!("usage: personal_study DATASET_DIR USERS EVENTS_MAX [SNAPSHOT_FILE]");
    };
    let (num_users, events_max): (usize, usize) = (num_users.parse()?, events_max.parse()?);
    let study = Study::new(Path::new(dataset_dir), rest.first().map(Path::new))?;
    let split = study.dataset.split_at(0.8);
    let mut events_of: HashMap<u32, Vec<usize>> = HashMap::new();
    for (event_idx, event) in study.dataset.events.iter().enumerate() {
        events_of.entry(event.user_idx).or_default().push(event_idx);
    }
    let mut users: Vec<Vec<usize>> = events_of.into_values().collect();
    users.retain(|events| events.last().is_some_and(|last| *last >= split));
    users.sort_unstable();
    let stride = (users.len() / num_users.max(1)).max(1);
    println!(
        "{}: every {stride}th of {} users",
        study.dataset.name,
        users.len()
    );
    let mut per_user = Vec::new();
    for events in users.iter().step_by(stride) {
        let first = events.partition_point(|event_idx| *event_idx < split);
        let asked = (first..events.len()).take(events_max);
        let asked: Result<Vec<Asked>, _> = asked.map(|known| study.ask(events, known)).collect();
        per_user.push(asked?);
    }
    for slice in SLICES {
        report(slice, &per_user);
    }
    Ok(())
}

impl Study {
    fn new(dataset_dir: &Path, snapshot: Option<&Path>) -> anyhow::Result<Self> {
        let dataset = Dataset::load(dataset_dir, 1)?;
        let offline = Offline::new(config(None)?)?;
        let state = match snapshot.filter(|path| path.exists()) {
            Some(path) => decode_snapshot(&std::fs::read(path)?)?.1,
            None => {
                let learned = &dataset.events[..dataset.split_at(0.8)];
                offline
                    .fit(&dataset, learned, &ProgressBar::hidden())?
                    .state
            }
        };
        if let Some(path) = snapshot {
            std::fs::write(path, encode_snapshot(&state, Version(1))?)?;
        }
        let (mut learner, mut preprocessor) = offline.learner(&dataset)?;
        learner.ingest(&mut preprocessor, &records(&dataset, &dataset.events, 0)?)?;
        Ok(Self {
            counts: learner.count_history(&preprocessor),
            ready: ReadyVersion::on_host(&state),
            state,
            dataset,
        })
    }

    /// Ranks for an event of a user, of whom `num_known` events are known.
    fn ask(&self, events: &[usize], num_known: usize) -> anyhow::Result<Asked> {
        let event = |event_idx: &usize| &self.dataset.events[*event_idx];
        let first = num_known.saturating_sub(PERSONAL_EVENTS_MAX);
        let known = events[first..num_known].iter();
        let history: Vec<_> = known
            .map(|known| self.dataset.to_history(event(known)))
            .collect();
        let asked = event(&events[num_known]);
        let now_millis = asked.occurred_at;
        let mut ready = self.ready.clone();
        ready.scorer = ready.scorer.with_counts(&self.counts.codes(now_millis));
        let base = pollster::block_on(ready.score_all(&self.state, &history, now_millis))?;
        let personal = pollster::block_on(ready.personal(&self.state, &history, now_millis))?;
        let mut scores = [base.clone(), base];
        for (item_idx, points) in ready.personal_points(&personal, &history, now_millis) {
            scores[1][item_idx as usize] += points as f32; // as the shelf adds them
        }
        let target = self.dataset.to_history(asked).item_id;
        let target = ready.item_idx(&target);
        let all = figures(&scores, target);
        let earlier = events[..num_known].iter();
        let earlier: Vec<_> = earlier
            .filter_map(|earlier| ready.item_idx(&self.dataset.to_history(event(earlier)).item_id))
            .collect();
        for item_idx in &earlier {
            for scores in &mut scores {
                scores[*item_idx as usize] = f32::NEG_INFINITY;
            }
        }
        let is_new = target.is_none_or(|target| !earlier.contains(&target));
        Ok(Asked {
            num_known,
            is_on: personal.status().is_on,
            all,
            new: is_new.then(|| figures(&scores, target)),
        })
    }
}

fn figures(scores: &[Vec<f32>; 2], target: Option<u32>) -> Figures {
    let [base, personal] = scores
        .each_ref()
        .map(|scores| target.and_then(|target| position_of(scores, target as usize)));
    [
        hit_rate_at_k(base, K),
        ndcg_at_k(base, K),
        hit_rate_at_k(personal, K),
        ndcg_at_k(personal, K),
    ]
}

/// Sums of the users of a slice, each with its number of events.
fn sums(
    (_, least, most): (&str, usize, usize),
    per_user: &[Vec<Asked>],
    of: impl Fn(&Asked) -> Option<Figures>,
) -> Vec<(f64, Figures)> {
    let mut users = Vec::new();
    for asked in per_user {
        let mut user = (0.0, Figures::default());
        let of_slice = asked.iter();
        let of_slice = of_slice.filter(|asked| (least..=most).contains(&asked.num_known));
        for figures in of_slice.filter_map(&of) {
            user.0 += 1.0;
            for (sum, figure) in user.1.iter_mut().zip(figures) {
                *sum += figure;
            }
        }
        if user.0 > 0.0 {
            users.push(user);
        }
    }
    users
}

fn report(slice: (&str, usize, usize), per_user: &[Vec<Asked>]) {
    let on = |asked: &Asked| Some([f64::from(u8::from(asked.is_on)), 0.0, 0.0, 0.0]);
    let [share_on, ..] = means(&sums(slice, per_user, on));
    println!(
        "{}: used at {:.0} % of the events",
        slice.0,
        100.0 * share_on
    );
    for (name, users) in [
        ("all items", sums(slice, per_user, |asked| Some(asked.all))),
        ("new items", sums(slice, per_user, |asked| asked.new)),
    ] {
        if users.is_empty() {
            continue;
        }
        let [base_hr, base_ndcg, hr, ndcg] = means(&users);
        let mut rng = StdRng::seed_from_u64(1);
        let mut differences: [Vec<f64>; 2] = Default::default();
        for _ in 0..NUM_RESAMPLES {
            let drawn = (0..users.len()).map(|_| users[rng.random_range(0..users.len())]);
            let [base_hr, base_ndcg, hr, ndcg] = means(&drawn.collect::<Vec<_>>());
            differences[0].push(hr - base_hr);
            differences[1].push(ndcg - base_ndcg);
        }
        let [of_hr, of_ndcg] = differences.map(|mut values| {
            values.sort_unstable_by(f64::total_cmp);
            let tail = NUM_RESAMPLES / 40; // 2.5 %
            format!(
                "[{:+.4}, {:+.4}]",
                values[tail],
                values[NUM_RESAMPLES - 1 - tail]
            )
        });
        let num_events: f64 = users.iter().map(|user| user.0).sum();
        println!(
            "  {name}, {} users, {num_events} events: HR@10 {base_hr:.4} -> {hr:.4} {of_hr}, NDCG@10 {base_ndcg:.4} -> {ndcg:.4} {of_ndcg}",
            users.len()
        );
    }
}

/// Per event.
fn means(users: &[(f64, Figures)]) -> Figures {
    let num_events: f64 = users.iter().map(|user| user.0).sum();
    [0, 1, 2, 3].map(|idx| users.iter().map(|user| user.1[idx]).sum::<f64>() / num_events.max(1.0))
}
