//! What attackers send: events of clients of their own, spread evenly over the honest end of a dataset.

use std::cmp::Reverse;

use anyhow::ensure;
use shared_model::ids::UserId;
use trainer_server::dataset::{Dataset, DatasetEvent};

/// Popular items that attackers act on beside their target.
const NUM_POPULAR: usize = 50;

/// What is done to an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Attack {
    /// Nothing.
    None,
    /// No attack: as many clients as attack take the target of the pushes, each once, when attackers first do.
    Honest,
    /// Every event is on the target.
    Push,
    /// Every other event is on the target, the rest on the most popular items.
    Bandwagon,
    /// The events are on the popular items beside the most popular one, which is the target.
    Nuke,
    /// As push, but every event comes from a client of its own: far more than the attackers of the others.
    FreshClients,
}

/// Attackers and their events.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Force {
    pub(crate) num_clients: usize,
    pub(crate) num_events: usize,
}

/// Items that attacks are about, by index.
#[derive(Debug, Clone)]
pub(crate) struct Targets {
    /// Half of the items that anybody took have fewer events.
    pub(crate) pushed: u32,
    /// Most popular first.
    pub(crate) popular: Vec<u32>,
}

impl Targets {
    pub(crate) fn of(dataset: &Dataset, past: &[DatasetEvent]) -> anyhow::Result<Self> {
        let mut counts = vec![0_u32; dataset.items.len()];
        for event in past {
            counts[event.item_idx as usize] += 1;
        }
        let mut taken: Vec<u32> = (0..counts.len() as u32) // fits: NUM_ITEMS_MAX is 2^20
            .filter(|item_idx| counts[*item_idx as usize] > 0)
            .collect();
        ensure!(taken.len() > 1, "fewer than two items have events");
        taken.sort_by_key(|item_idx| Reverse(counts[*item_idx as usize]));
        let pushed = taken[taken.len() / 2];
        taken.truncate(NUM_POPULAR);
        Ok(Self {
            pushed,
            popular: taken,
        })
    }
}

impl Attack {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Honest => "honest",
            Self::Push => "push",
            Self::Bandwagon => "bandwagon",
            Self::Nuke => "nuke",
            Self::FreshClients => "fresh_clients",
        }
    }

    /// The item whose exposure it is about.
    pub(crate) fn target(self, targets: &Targets) -> u32 {
        match self {
            Self::None | Self::Honest | Self::Push | Self::Bandwagon | Self::FreshClients => {
                targets.pushed
            }
            Self::Nuke => targets.popular[0],
        }
    }

    /// Who takes part in it.
    pub(crate) fn force(self, force: Force) -> Force {
        match self {
            Self::None => Force {
                num_events: 0,
                ..force
            },
            Self::Honest | Self::Push | Self::Bandwagon | Self::Nuke => force,
            Self::FreshClients => Force {
                num_clients: force.num_events,
                ..force
            },
        }
    }

    /// The item of an attacker's event number `round`.
    fn item(self, targets: &Targets, round: usize) -> u32 {
        let popular = &targets.popular;
        match self {
            Self::Bandwagon if !round.is_multiple_of(2) => popular[round / 2 % popular.len()],
            Self::Nuke => popular[1 + round % (popular.len() - 1)],
            Self::None | Self::Honest | Self::Push | Self::Bandwagon | Self::FreshClients => {
                targets.pushed
            }
        }
    }

    /// `honest` with the attackers' events among those from `start` on; their users come after the honest ones.
    pub(crate) fn on(
        self,
        honest: &Dataset,
        start: usize,
        targets: &Targets,
        force: Force,
    ) -> anyhow::Result<Dataset> {
        let Force {
            num_clients,
            num_events,
        } = self.force(force);
        let mut dataset = honest.clone();
        let first_attacker = dataset.users.len();
        for idx in 0..num_clients {
            dataset.users.push(UserId::new(format!("attacker-{idx}"))?);
        }
        let stretch = dataset.events.split_off(start);
        let num_honest = stretch.len();
        let mut num_sent = 0;
        for (idx, event) in stretch.into_iter().enumerate() {
            dataset.events.push(event);
            while num_sent < (idx + 1) * num_events / num_honest {
                let (round, client) = (num_sent / num_clients, num_sent % num_clients);
                num_sent += 1;
                if self == Self::Honest && round > 0 {
                    continue;
                }
                dataset.events.push(DatasetEvent {
                    user_idx: (first_attacker + client) as u32, // users are counted in u32
                    item_idx: self.item(targets, round),
                    ..event
                });
            }
        }
        Ok(dataset)
    }
}
