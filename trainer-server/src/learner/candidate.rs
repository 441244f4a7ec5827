//! Candidates: the codes that would go live next.

use shared_model::codec::state::CodeState;

use super::Learner;
use crate::compress::{self, CompressConfig, DirtyRows};

impl Learner {
    /// The next fast version's codes, within the configured bytes.
    #[must_use]
    pub fn candidate(&mut self) -> CodeState {
        self.candidate_within(self.config.publish.delta_bytes_budget)
    }

    /// The next fast version's codes, within so many bytes.
    #[must_use]
    pub fn candidate_within(&mut self, bytes_budget: usize) -> CodeState {
        let publish = &self.config.publish;
        let config = CompressConfig {
            bytes_budget,
            dead_zone: publish.dead_zone,
            block_len: publish.block_len,
        };
        self.dirty_after = self.dirty.clone();
        let Some(live) = &self.live else {
            return self.candidate_anew();
        };
        let (parameters, counts, items) = (&self.parameters, &self.counts, &self.items);
        compress::fast_state(
            &live.state,
            parameters,
            counts,
            items,
            &mut self.dirty_after,
            &config,
        )
    }

    /// Codes of everything that owe nothing to those of the live version; its neighbours stay, which change with releases
    /// alone.
    #[must_use]
    pub fn candidate_anew(&mut self) -> CodeState {
        self.dirty_after = DirtyRows::default();
        let (parameters, items) = (&self.parameters, &self.items);
        let mut state = match &self.live {
            Some(live) => compress::anew_state(&live.state, parameters, &self.counts, items),
            None => compress::first_state(parameters, self.counted(), items),
        };
        state.encoder_generation = self.encoder_generation();
        state
    }
}
