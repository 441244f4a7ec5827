//! Private rounds of a learner: the only way in which events reach weights while `privacy.enabled` is true.
//!
//! In every step each client takes part by a coin of its own with probability `privacy.sampling_rate` (Poisson sampling,
//! which the accountant takes for granted), with one window: by another coin its newest, else one that ends anywhere.
//! A shadow of the weights is trained; the live version stays until the round is done.
//! Whatever else would let events reach a version is off: fast steps, counts, neighbours, trials, the gate's questions
//! and the watch. Not here: when a round is due and what it costs (`trainer::worker::private`, `privacy`).

use rand::Rng;
use rand::rngs::StdRng;
use shared_model::codec::state::CodeState;
use shared_model::edge::engine::ReadyVersion;
use shared_model::manifest::VersionKind;
use shared_model::model::parameters::ParameterSet;
use shared_model::spec::TensorGroup;

use super::gating::Source;
use super::{Learner, step_config};
use crate::compress;
use crate::gate::GateError;
use crate::preprocess::Preprocessor;
use crate::train::full_optimizer::FullOptimizer;
use crate::train::private_step::private_step;
use crate::train::windows::Window;

/// A private round under way.
#[derive(Debug, Clone)]
pub struct PrivateRound {
    parameters: ParameterSet,
    optimizer: FullOptimizer,
    num_steps: u32,
    num_steps_total: u32,
}

impl PrivateRound {
    /// Steps taken so far.
    #[must_use]
    pub fn num_steps(&self) -> u32 {
        self.num_steps
    }

    /// Steps in all.
    #[must_use]
    pub fn num_steps_total(&self) -> u32 {
        self.num_steps_total
    }

    /// Whether all steps are taken.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.num_steps >= self.num_steps_total
    }
}

impl Learner {
    /// Whether events reach weights by private rounds alone.
    #[must_use]
    pub fn is_private(&self) -> bool {
        self.config.privacy.enabled
    }

    /// Starts a round, which must have been paid for.
    #[must_use]
    pub fn start_private_round(&self) -> PrivateRound {
        PrivateRound {
            parameters: self.parameters.clone(),
            optimizer: FullOptimizer::new(&self.parameters),
            num_steps: 0,
            num_steps_total: self.config.privacy.steps,
        }
    }

    /// One step of a round. `rng` must be a generator that nobody can foretell: who takes part is secret, too.
    pub fn private_step(
        &self,
        round: &mut PrivateRound,
        preprocessor: &Preprocessor,
        rng: &mut StdRng,
    ) {
        self.bring_up_to_date(round);
        round.num_steps += 1;
        let config = step_config::private_step(&self.config);
        let device = self.device.clone().autodiff();
        let windows = self.windows_of_step(preprocessor, rng);
        private_step(
            &mut round.parameters,
            &mut round.optimizer,
            windows.into_iter(),
            &config,
            &device,
            rng,
        );
    }

    /// One window of each client that takes part: whether one does goes by its own coin alone, and which window by its
    /// own events and another coin.
    fn windows_of_step(&self, preprocessor: &Preprocessor, rng: &mut StdRng) -> Vec<Window> {
        let rate = self.config.privacy.sampling_rate;
        let recent_share = f64::from(self.config.release.recent_share);
        let mut windows = Vec::new();
        for timeline in preprocessor.timelines() {
            let takes_part = rng.random::<f64>() < rate;
            if !takes_part || timeline.is_empty() {
                continue;
            }
            let is_newest = rng.random::<f64>() < recent_share;
            let end = if is_newest {
                timeline.len()
            } else {
                rng.random_range(1..=timeline.len())
            };
            windows.extend(self.window_until(timeline, end));
        }
        windows
    }

    /// What the catalogue has become since: it is no event's doing.
    fn bring_up_to_date(&self, round: &mut PrivateRound) {
        let num_new = self.parameters.num_items - round.parameters.num_items;
        round.parameters.grow_items(num_new);
        round.optimizer.grow(self.parameters.num_items);
        for (idx, shape) in self.parameters.shapes().iter().enumerate() {
            if shape.group == TensorGroup::Content {
                round.parameters.tensors[idx].clone_from(&self.parameters.tensors[idx]);
            }
        }
    }

    /// Compresses what the round has trained. The learner keeps its weights until `private_round_went_live`.
    ///
    /// # Errors
    /// The codes are not what was trained; no event is asked.
    pub fn finish_private_round(
        &mut self,
        round: &mut PrivateRound,
    ) -> Result<(CodeState, ReadyVersion), GateError> {
        self.bring_up_to_date(round);
        let Some(live) = &self.live else {
            return Err(GateError::SelfTest("nothing is live yet".to_owned()));
        };
        let mut dirty = self.dirty.clone();
        dirty.learned.extend(0..self.parameters.num_items as u32); // fits: NUM_ITEMS_MAX is 2^20
        let (trained, items) = (&round.parameters, &self.items);
        let state =
            compress::release_state(&live.state, trained, self.counted(), items, &mut dirty);
        self.dirty_after = dirty;
        let source = Source {
            kind: VersionKind::Release,
            parameters: &round.parameters,
            encoder_generation: live.state.encoder_generation,
        };
        self.check_codes(&state, live, &source)?;
        let ready = self.ready(&state);
        Ok((state, ready))
    }

    /// Takes over what a round has trained that was published.
    pub fn private_round_went_live(&mut self, round: &PrivateRound) {
        for (idx, shape) in self.parameters.shapes().iter().enumerate() {
            if shape.is_trained() {
                self.parameters.tensors[idx].clone_from(&round.parameters.tensors[idx]);
            }
        }
    }
}
