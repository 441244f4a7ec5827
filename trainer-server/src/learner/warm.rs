//! The warm fit of a learner, and what full steps are told about single items.

use std::sync::Arc;

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::{LearnError, Learner, step_config};
use crate::preprocess::Preprocessor;
use crate::train::count_history::CountHistory;
use crate::train::fast_step::FastOptimizer;
use crate::train::objective::Objective;
use crate::train::text_views::{TextViews, drop_words};
use crate::train::warm_fit::{WarmFitProgress, warm_fit};
use crate::train::windows::cut;

impl Learner {
    /// Fits everything over all timelines, as the first version wants.
    ///
    /// # Errors
    /// Training gave up, see [`warm_fit`], or texts could not be embedded.
    pub fn warm_fit(
        &mut self,
        preprocessor: &Preprocessor,
        keep_going: impl FnMut(WarmFitProgress) -> bool,
    ) -> Result<(), LearnError> {
        let history_len = self.parameters.spec.history_len as usize;
        let timelines = preprocessor.timelines();
        let windows: Vec<_> = timelines
            .iter()
            .flat_map(|timeline| cut(timeline, history_len))
            .collect();
        let history = self.count_history(preprocessor);
        let mut config = step_config::warm_fit(&self.config);
        config.step.objective = self.objective(preprocessor, &history);
        config.texts = self.text_views(preprocessor)?;
        let device = self.device.clone().autodiff();
        warm_fit(
            &mut self.parameters,
            &windows,
            &history,
            &config,
            &device,
            keep_going,
        )?;
        self.optimizer = FastOptimizer::default();
        Ok(())
    }

    /// The counts of all times so far.
    #[must_use]
    pub fn count_history(&self, preprocessor: &Preprocessor) -> CountHistory {
        CountHistory::of(
            preprocessor.timelines().iter().flatten(),
            self.parameters.num_items,
            &self.parameters.spec.half_lives_secs,
            self.counts.landmark_millis,
        )
    }

    /// What popularity and harm do to the losses of full steps.
    pub(super) fn objective(
        &self,
        preprocessor: &Preprocessor,
        history: &CountHistory,
    ) -> Arc<Objective> {
        let train = &self.config.train;
        let items = preprocessor.items().iter();
        let harm: Vec<f32> = items.map(|item| item.harm).collect();
        let (correction, penalty) = (train.popularity_correction, train.harm_penalty);
        Arc::new(Objective::new(
            &history.num_events(),
            correction,
            &harm,
            penalty,
        ))
    }

    /// Texts with words left out, embedded, where the configuration asks for them.
    fn text_views(&self, preprocessor: &Preprocessor) -> Result<Arc<TextViews>, LearnError> {
        let train = &self.config.train;
        if train.text_drop == 0.0 {
            return Ok(Arc::default());
        }
        let mut rng = StdRng::seed_from_u64(train.seed);
        let mut views = Vec::new();
        for _ in 0..train.text_views {
            let items = preprocessor.items().iter();
            let texts: Vec<String> = items
                .map(|item| drop_words(&item.text, train.text_drop, &mut rng))
                .collect();
            views.push(self.encoder.embed(&texts)?);
        }
        Ok(Arc::new(TextViews::new(views)))
    }
}
