//! Who teaches a release: the CrossEncoder of the configuration, or the versions of late together.
//!
//! Versions that were each trained from the one before err in different directions; the mean of their probabilities errs
//! less (Lakshminarayanan et al. 2017), and a release learns it as one model (Hinton et al. 2015).
//! They are remembered since the start, with the items of now.

use std::collections::VecDeque;
use std::sync::Arc;

use shared_model::model::parameters::ParameterSet;

use super::Learner;
use crate::cross_encoder::teacher::CrossTeacher;
use crate::preprocess::Preprocessor;
use crate::train::teacher::Teacher;

/// Weights that were live before a release replaced them, the newest first.
#[derive(Debug, Default)]
pub(super) struct EarlierVersions(VecDeque<Arc<ParameterSet>>);

impl Learner {
    /// The CrossEncoder, with the texts of now, where there is one; else the version that is being left, and those before
    /// it, as many as the configuration wants.
    pub(super) fn teacher(&self, preprocessor: &Preprocessor) -> Teacher {
        let Some(scorer) = &self.cross_scorer else {
            let newest = Arc::new(self.parameters.clone());
            let earlier = self.earlier_versions.0.iter().cloned();
            return Teacher::Versions(std::iter::once(newest).chain(earlier).collect());
        };
        let items = preprocessor.items().iter();
        let texts = items.map(|item| item.text.clone()).collect();
        Teacher::Texts(Arc::new(CrossTeacher::new(scorer.clone(), texts)))
    }

    /// Before a release takes the place of the weights.
    pub(super) fn remember_for_ensemble(&mut self) {
        let num_earlier = self.config.release.ensemble_versions as usize - 1; // at least 1, a few
        if num_earlier == 0 || self.cross_scorer.is_some() {
            return;
        }
        let earlier = &mut self.earlier_versions.0;
        earlier.push_front(Arc::new(self.parameters.clone()));
        earlier.truncate(num_earlier);
    }
}
