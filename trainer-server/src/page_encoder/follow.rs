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
use super::keeper::KeeperParts;
use super::packs::{RecipeOutcome, TextPack};
use super::scene;
use crate::config::Config;
use crate::ladder::{Made, RECIPE_BYTES_MAX, Recipe, Rung, Scene, Stage, Workshop};
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
    /// Whether a file of another generation will do, with a change beside it.
    pub(super) may_stay: bool,
}

/// What came of it.
pub(super) enum Followed {
    /// The gate let it pass.
    Made(TextPack),
    /// The gate refused it.
    Refused,
}

/// What pages of another generation have, made by the same recipe.
struct Earlier {
    id: BlobId,
    bytes: Bytes,
    file: PackedEncoder,
    change: Option<LowRankChange>,
}

impl Earlier {
    /// The newest one that the recipe can have made.
    fn newest(parts: &KeeperParts, recipe: &Recipe, teacher: Teacher<'_>) -> Option<Self> {
        let packs = parts.packs.of_others(teacher.generation);
        packs.into_iter().find_map(|pack| {
            let mut files = pack.files();
            let (id, bytes) = files.next()?;
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

    /// Its weights, rounded, which some steps mend.
    fn parts(&self) -> Option<PackSource> {
        let file = self.file.clone();
        let changed = match &self.change {
            Some(change) => file.changed_by(change),
            None => Ok(file),
        };
        changed.ok().map(PackSource::of_packed) // it starts anew then
    }
}

/// Follows the recipe: by a change beside the file of another generation where it says so and the gate lets that pass,
/// else by a file of its own.
pub(super) fn follow(
    parts: &KeeperParts,
    recipe: &Recipe,
    teacher: Teacher<'_>,
    stopping: &watch::Receiver<bool>,
) -> Result<Followed, KeeperError> {
    let device = Device::flex();
    let dataset = scene::dataset(&parts.log, &parts.catalogue, &parts.config.labels)?;
    let scene = Scene::new(&dataset)?;
    let answers = scene.of_parts(teacher.source, &device)?;
    let items = parts.catalogue.items();
    let texts: Vec<String> = items.iter().map(|item| item.full_text()).collect();
    let earlier = Earlier::newest(parts, recipe, teacher);
    let goes_on = earlier.is_some();
    let go_on = |_: Stage| !*stopping.borrow();
    let mut workshop = Workshop::new(teacher.source, &texts, &device);
    let outcome = |rung: Rung, bytes: usize| {
        let outcome = RecipeOutcome {
            generation: teacher.generation,
            refused: rung.robustness.reasons(),
            recipe: rung.name,
            bytes,
            relative_ndcg: rung.relative_ndcg,
            relative_ndcg_interval: rung.relative_ndcg_interval,
        };
        tracing::info!(
            bytes,
            relative_ndcg = outcome.relative_ndcg,
            goes_on,
            "the recipe was followed: {}",
            outcome.recipe
        );
        if !outcome.refused.is_empty() {
            let reasons = outcome.refused.join("; ");
            tracing::warn!("what the recipe made loses too much: {reasons}");
        }
        outcome
    };
    if let (Some(rank), Some(earlier), true) = (recipe.follow_rank, &earlier, teacher.may_stay) {
        let (file, change) = (earlier.file.clone(), earlier.change.clone());
        let learned = workshop.follow(recipe, rank, file, change, go_on)?;
        let change = learned.to_packed_bytes(earlier.id);
        let read = LowRankChange::from_packed_bytes(&change, earlier.id, &earlier.file.config);
        let changed = earlier.file.clone().changed_by(&read?)?;
        let made = Made {
            packed: changed.to_bytes()?,
            parts: PackSource::of_packed(changed),
        };
        let rung = Rung::measured(&scene, &answers, recipe, &made, &device)?;
        let outcome = outcome(rung, change.len());
        if change.len() < earlier.bytes.len() && outcome.refused.is_empty() {
            parts.packs.note(outcome);
            let base = (earlier.id, earlier.bytes.clone());
            return Ok(Followed::Made(TextPack::changed(base, change)));
        }
    }
    let earlier = earlier.and_then(|earlier| earlier.parts());
    let made = workshop.make(recipe, earlier, go_on)?;
    let rung = Rung::measured(&scene, &answers, recipe, &made, &device)?;
    let bytes = rung.bytes;
    let outcome = outcome(rung, bytes);
    let passes = outcome.refused.is_empty();
    parts.packs.note(outcome);
    if !passes {
        tracing::warn!("pages keep the whole text encoder");
        return Ok(Followed::Refused);
    }
    let id = BlobId::of(&made.packed);
    Ok(Followed::Made(TextPack::Packed(id, made.packed.into())))
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
