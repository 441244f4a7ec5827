//! The workshop: makes what recipes say of one encoder; what its parent says of texts is asked once for all of them.

use burn::tensor::Device;
use shared_model::text::{LowRankChange, PackedEncoder};

use super::{LadderError, Recipe};
use crate::distill::{
    self, DistillError, DistillOptions, Distiller, Lessons, Rounding, StepReport,
};
use crate::prune;
use crate::text_pack::{PackSource, pack_with, step_share};

/// Of the updates, the last ones: rounding that comes too early holds weights where they are.
const ROUNDED_SHARE: f32 = 1.0 / 3.0;

/// Factors are few and start small, so they move faster than weights.
const FOLLOW_RATE: f64 = 3e-3;

/// An encoder, and the texts that it is to be good at.
pub struct Workshop<'a> {
    parent: &'a PackSource,
    texts: &'a [String],
    device: Device,
    lessons: Option<Lessons>,
    /// What the last recipe made before packing.
    last: Option<(Recipe, PackSource)>,
}

/// What a recipe made.
#[derive(Debug, Clone)]
pub struct Made {
    /// In f32, for the next one to go on from.
    pub parts: PackSource,
    /// As pages download it.
    pub packed: Vec<u8>,
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Layers, neurons, heads and tokens go.
    Pruning,
    /// The parent embeds texts, so many of so many.
    Asking(usize, usize),
    /// The smaller one learns, so many steps of so many.
    Learning(usize, usize),
    /// Weights are rounded.
    Packing,
}

impl<'a> Workshop<'a> {
    /// Nothing is computed before the first recipe.
    #[must_use]
    pub fn new(parent: &'a PackSource, texts: &'a [String], device: &Device) -> Self {
        Self {
            parent,
            texts,
            device: device.clone(),
            lessons: None,
            last: None,
        }
    }

    /// Follows a recipe; one that differs from the one before in the size of its file alone is only packed. `on_stage` hears how far it is and ends it by `false`.
    /// With `earlier`, which the same recipe made of an earlier parent, learning goes on from there.
    ///
    /// # Errors
    /// The recipe asks for more than there is, the encoder is not sound, or it was ended.
    pub fn make(
        &mut self,
        recipe: &Recipe,
        earlier: Option<PackSource>,
        mut on_stage: impl FnMut(Stage) -> bool,
    ) -> Result<Made, LadderError> {
        recipe.check(Some(&self.parent.config))?;
        let mut go_on = |stage| match on_stage(stage) {
            true => Ok(()),
            false => Err(LadderError::Ended),
        };
        let parts = match earlier {
            Some(earlier) => self.taught(earlier, recipe, true, &mut go_on)?,
            None => self.from_parent(recipe, &mut go_on)?,
        };
        go_on(Stage::Packing)?;
        let packed = pack_with(parts.clone(), self.texts.iter(), recipe.packing())?;
        Ok(Made { parts, packed })
    }

    /// What a file that the recipe made of an earlier parent learns to embed as this one does, as a change of this rank
    /// beside it; goes on from `earlier`.
    ///
    /// # Errors
    /// As for [`Self::make`].
    pub fn follow(
        &mut self,
        recipe: &Recipe,
        rank: usize,
        file: PackedEncoder,
        earlier: Option<LowRankChange>,
        mut on_stage: impl FnMut(Stage) -> bool,
    ) -> Result<LowRankChange, LadderError> {
        let mut go_on = |stage| match on_stage(stage) {
            true => Ok(()),
            false => Err(LadderError::Ended),
        };
        let student = PackSource::of_packed(file).encoder(&self.device)?;
        let options = DistillOptions {
            num_steps: recipe.num_steps(true),
            learning_rate: FOLLOW_RATE,
            ..DistillOptions::default()
        };
        self.with_lessons(&options, &mut go_on, |lessons, on_step| {
            distill::follow(&student, earlier, rank, lessons, &options, on_step)
        })
    }

    fn from_parent(
        &mut self,
        recipe: &Recipe,
        go_on: &mut impl FnMut(Stage) -> Result<(), LadderError>,
    ) -> Result<PackSource, LadderError> {
        if let Some((last, parts)) = &self.last
            && *last == recipe.before_packing()
        {
            return Ok(parts.clone());
        }
        go_on(Stage::Pruning)?;
        let parts = self.pruned(recipe)?;
        let parts = self.taught(parts, recipe, false, go_on)?;
        self.last = Some((recipe.before_packing(), parts.clone()));
        Ok(parts)
    }

    fn pruned(&self, recipe: &Recipe) -> Result<PackSource, LadderError> {
        let mut parts = self.parent.clone();
        if let Some(num_more) = recipe.num_more_tokens {
            parts = prune::vocabulary(parts, self.texts, num_more)?;
        }
        if let Some(num) = recipe.num_layers {
            let kept = prune::layers_that_matter(&parts, self.texts, num)?;
            parts = prune::layers(parts, &kept)?;
        }
        if let Some(width) = recipe.num_neurons {
            parts = prune::neurons(parts, self.texts, width)?;
        }
        if let Some(num) = recipe.num_heads {
            parts = prune::heads(parts, self.texts, num)?;
        }
        Ok(parts)
    }

    fn taught(
        &mut self,
        parts: PackSource,
        recipe: &Recipe,
        goes_on: bool,
        go_on: &mut impl FnMut(Stage) -> Result<(), LadderError>,
    ) -> Result<PackSource, LadderError> {
        let num_steps = recipe.num_steps(goes_on);
        if num_steps == 0 {
            return Ok(parts);
        }
        let rounding = match recipe.learn_rounded {
            true => Some(Rounding {
                step_share: step_share(&parts, self.texts.iter(), recipe.bytes_max)?,
                last_share: ROUNDED_SHARE,
            }),
            false => None,
        };
        let options = DistillOptions {
            num_steps,
            rounding,
            ..DistillOptions::default()
        };
        let device = self.device.clone();
        self.with_lessons(&options, go_on, |lessons, on_step| {
            let mut distiller = Distiller::new(parts, &options, &device)?;
            distiller.learn(lessons, on_step)?;
            distiller.parts()
        })
    }

    /// Lets someone learn from the lessons of the parent, which are there for the next one too, whatever comes of it.
    fn with_lessons<T>(
        &mut self,
        options: &DistillOptions,
        go_on: &mut impl FnMut(Stage) -> Result<(), LadderError>,
        learn: impl FnOnce(&Lessons, &mut dyn FnMut(StepReport) -> bool) -> Result<T, DistillError>,
    ) -> Result<T, LadderError> {
        let lessons = match self.lessons.take() {
            Some(lessons) => lessons,
            None => self.lessons(options, go_on)?,
        };
        let mut ended = None;
        let learned = learn(&lessons, &mut |step| {
            ended = go_on(Stage::Learning(step.step + 1, step.num_steps)).err();
            ended.is_none()
        });
        self.lessons = Some(lessons);
        match ended {
            Some(ended) => Err(ended),
            None => Ok(learned?),
        }
    }

    fn lessons(
        &self,
        options: &DistillOptions,
        go_on: &mut impl FnMut(Stage) -> Result<(), LadderError>,
    ) -> Result<Lessons, LadderError> {
        let teacher = self.parent.encoder(&self.device)?;
        let mut ended = None;
        let lessons = Lessons::make(&teacher, self.texts, options, |done, of| {
            ended = go_on(Stage::Asking(done, of)).err();
            ended.is_none()
        })?;
        match ended {
            Some(ended) => Err(ended),
            None => Ok(lessons),
        }
    }
}
