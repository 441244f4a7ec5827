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

    /// Codes of everything that owe nothing to the live version.
    #[must_use]
    pub fn candidate_anew(&mut self) -> CodeState {
        self.dirty_after = DirtyRows::default();
        let mut state = compress::first_state(&self.parameters, self.counted(), &self.items);
        state.encoder_generation = self.encoder_generation();
        state
    }
}
