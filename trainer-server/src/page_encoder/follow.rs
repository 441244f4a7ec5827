//! Follows the recipe of `publish.text_recipe` for a generation: a smaller encoder, or the reasons of the gate.
//!
//! Where pages of another generation have one by the same recipe, it goes on from there: the encoder has moved a little,
//! and so has what it teaches. With `follow_rank` their file stays, and what is learned is a change of low rank.

use std::fs;

use anyhow::{Context, ensure};
use axum::body::Bytes;
use burn::tensor::Device;
use shared_model::ids::BlobId;
use shared_model::text::{LowRankChange, PackedEncoder};
use tokio::sync::watch;

use super::KeeperError;
use super::file::Found;
use super::keeper::{KeeperParts, is_outgrown};
use super::packs::{RecipeOutcome, TextPack};
use super::scene;
use crate::config::Config;
use crate::ladder::{Answers, LadderError, Made, RECIPE_BYTES_MAX, Recipe, Rung, Scene, Workshop};
use crate::text_pack::PackSource;

/// The recipe that a configuration names; nothing where it names none.
///
/// # Errors
/// The file cannot be read, is no recipe, or makes files larger than `publish.text_bytes_max`.
pub fn recipe_of(config: &Config) -> anyhow::Result<Option<Recipe>> {
    let Some(path) = &config.publish.text_recipe else {
        return Ok(None);
    };
    let at = || path.display().to_string();
    let num_bytes = fs::metadata(path).with_context(at)?.len();
    let max = RECIPE_BYTES_MAX as u64; // widening
    ensure!(
        num_bytes <= max,
        "{}: {num_bytes} bytes, at most {max} are read",
        at()
    );
    let recipe = Recipe::from_json(&fs::read(path).with_context(at)?).with_context(at)?;
    let bytes_max = config.publish.text_bytes_max;
    ensure!(
        recipe.bytes_max <= bytes_max,
        "{}: bytes_max is {}, but publish.text_bytes_max is {bytes_max}",
        at(),
        recipe.bytes_max
    );
    Ok(Some(recipe))
}

/// Whom a smaller encoder follows.
#[derive(Clone, Copy)]
pub(super) struct Teacher<'a> {
    pub(super) source: &'a PackSource,
    pub(super) generation: u32,
    /// Of the catalogue.
    pub(super) num_items: usize,
    /// Whether a file of another generation will do, with a change beside it.
    pub(super) may_stay: bool,
}

/// What pages of another generation have, made by the same recipe.
struct Earlier {
    id: BlobId,
    bytes: Bytes,
    file: PackedEncoder,
    change: Option<LowRankChange>,
}

impl Earlier {
    /// The newest one that is no larger than the recipe says and has the sizes that it gives.
    fn newest(parts: &KeeperParts, recipe: &Recipe, teacher: Teacher<'_>) -> Option<Self> {
        let packs = parts.packs.of_others(teacher.generation);
        packs.into_iter().find_map(|pack| {
            let mut files = pack.files();
            let (id, bytes) = files.next()?;
            if bytes.len() > recipe.bytes_max {
                return None;
            }
            let file = PackedEncoder::from_bytes(bytes.to_vec()).ok()?; // it starts anew then
            let change = files
                .next()
                .map(|(_, change)| LowRankChange::from_packed_bytes(change, *id, &file.config));
            let has_made = recipe.has_made(&file.config, &teacher.source.config);
            has_made.then_some(Self {
                id: *id,
                bytes: bytes.clone(),
                file,
                change: change.transpose().ok()?, // likewise
            })
        })
    }

    /// Whether its file suits a catalogue of so many items.
    fn is_fitted_to(&self, parts: &KeeperParts, num_items: usize) -> bool {
        let found = Found::by_id(&parts.config.server.data_dir, self.id);
        found.is_none_or(|found| !is_outgrown(found.num_items, num_items))
    }

    /// Its weights, rounded, which some steps mend.
    fn parts(self) -> Option<PackSource> {
        let changed = match &self.change {
            Some(change) => self.file.changed_by(change),
            None => Ok(self.file),
        };
        changed.ok().map(PackSource::of_packed) // it starts anew then
    }
}

/// Follows the recipe: by a change beside the file of another generation where it says so and the gate lets that pass,
/// else by a file of its own; nothing where the gate refuses that.
pub(super) fn follow(
    parts: &KeeperParts,
    recipe: &Recipe,
    teacher: Teacher<'_>,
    stopping: &watch::Receiver<bool>,
) -> Result<Option<TextPack>, KeeperError> {
    let device = Device::flex();
    let dataset = scene::dataset(&parts.log, &parts.catalogue, &parts.config.labels)?;
    let scene = Scene::new(&dataset)?;
    let items = parts.catalogue.items();
    let texts: Vec<String> = items.iter().map(|item| item.full_text()).collect();
    let mut following = Following {
        recipe,
        generation: teacher.generation,
        answers: scene.of_parts(teacher.source, &device)?,
        scene: &scene,
        workshop: Workshop::new(teacher.source, &texts, &device),
        device: &device,
        stopping,
    };
    let earlier = Earlier::newest(parts, recipe, teacher);
    let stays =
        |earlier: &&Earlier| teacher.may_stay && earlier.is_fitted_to(parts, teacher.num_items);
    if let (Some(rank), Some(earlier)) = (recipe.follow_rank, earlier.as_ref().filter(stays)) {
        match following.by_change(rank, earlier) {
            Ok((pack, outcome)) if outcome.refused.is_empty() => {
                parts.packs.note(outcome);
                return Ok(Some(pack));
            }
            Err(KeeperError::Ladder(LadderError::Ended)) => return Err(LadderError::Ended.into()),
            Ok((_, outcome)) => {
                let reasons = outcome.refused.join("; ");
                tracing::warn!("a change does not do, a file of its own is made: {reasons}");
            }
            Err(error) => tracing::warn!(%error, "no change was made, but a file of its own"),
        }
    }
    let (pack, outcome) = following.by_file(earlier)?;
    let passes = outcome.refused.is_empty();
    if !passes {
        let reasons = outcome.refused.join("; ");
        tracing::warn!("pages keep the whole text encoder, the recipe loses too much: {reasons}");
    }
    parts.packs.note(outcome);
    Ok(passes.then_some(pack))
}

/// A recipe that is followed for one generation.
struct Following<'a> {
    recipe: &'a Recipe,
    generation: u32,
    scene: &'a Scene<'a>,
    answers: Answers,
    workshop: Workshop<'a>,
    device: &'a Device,
    stopping: &'a watch::Receiver<bool>,
}

impl Following<'_> {
    /// A change of this rank beside the file that there is.
    fn by_change(
        &mut self,
        rank: usize,
        earlier: &Earlier,
    ) -> Result<(TextPack, RecipeOutcome), KeeperError> {
        let stopping = self.stopping;
        let before = earlier
            .change
            .clone()
            .filter(|change| change.rank() == rank);
        let file = earlier.file.clone();
        let learned = self
            .workshop
            .follow(self.recipe, rank, file, before, |_| !*stopping.borrow())?;
        let change = learned.to_packed_bytes(earlier.id);
        let read = LowRankChange::from_packed_bytes(&change, earlier.id, &earlier.file.config);
        let changed = earlier.file.clone().changed_by(&read?)?;
        let made = Made {
            packed: changed.to_bytes()?,
            parts: PackSource::of_packed(changed),
        };
        let mut outcome = self.outcome(&made, true)?;
        outcome.bytes = change.len();
        if !TextPack::is_worth_it(&change, &earlier.bytes) {
            let (bytes, of) = (change.len(), earlier.bytes.len());
            outcome
                .refused
                .push(format!("the change has {bytes} bytes, its file {of}"));
        }
        let base = (earlier.id, earlier.bytes.clone());
        Ok((TextPack::changed(base, change), outcome))
    }

    /// A file of its own, learned from where the one before is.
    fn by_file(
        &mut self,
        earlier: Option<Earlier>,
    ) -> Result<(TextPack, RecipeOutcome), KeeperError> {
        let stopping = self.stopping;
        let earlier = earlier.and_then(Earlier::parts);
        let goes_on = earlier.is_some();
        let made = self
            .workshop
            .make(self.recipe, earlier, |_| !*stopping.borrow())?;
        let outcome = self.outcome(&made, goes_on)?;
        Ok((TextPack::packed(made.packed), outcome))
    }

    fn outcome(&self, made: &Made, goes_on: bool) -> Result<RecipeOutcome, KeeperError> {
        let rung = Rung::measured(self.scene, &self.answers, self.recipe, made, self.device)?;
        tracing::info!(
            bytes = rung.bytes,
            relative_ndcg = rung.relative_ndcg,
            goes_on,
            "the recipe was followed: {}",
            rung.name
        );
        Ok(RecipeOutcome {
            generation: self.generation,
            refused: rung.robustness.reasons(),
            recipe: rung.name,
            bytes: rung.bytes,
            relative_ndcg: rung.relative_ndcg,
            relative_ndcg_interval: rung.relative_ndcg_interval,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(json: &str, bytes_max: usize) -> String {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("recipe.json");
        fs::write(&path, json).expect("room");
        let mut config = Config::default();
        config.publish.text_bytes_max = bytes_max;
        config.publish.text_recipe = Some(path);
        format!("{:#}", recipe_of(&config).expect_err(json))
    }

    #[test]
    fn a_recipe_is_read_at_the_start_and_refused_with_file_field_and_value() {
        assert_eq!(recipe_of(&Config::default()).expect("none is named"), None);
        let mut config = Config::default();
        config.publish.text_recipe = Some("/nowhere/recipe.json".into());
        let error = recipe_of(&config).expect_err("no such file");
        assert!(format!("{error:#}").contains("/nowhere/recipe.json"));
        let larger = refused(r#"{"bytes_max":4000}"#, 3000);
        assert!(
            larger.contains("recipe.json: bytes_max is 4000, but publish.text_bytes_max is 3000")
        );
        assert!(refused(r#"{"bytes_max":4,"num_layers":0}"#, 9).contains("num_layers is 0"));
        assert!(refused(&" ".repeat(5000), 9).contains("5000 bytes, at most 4096"));
    }
}
