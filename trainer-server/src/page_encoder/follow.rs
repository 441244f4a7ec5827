//! Follows the recipe of `publish.text_recipe` for a generation: a smaller encoder, or the reasons of the gate.
//!
//! Where pages of another generation have one by the same recipe, it goes on from there: the encoder has moved a little,
//! and so has what it teaches.

use std::fs;

use anyhow::{Context, ensure};
use burn::tensor::Device;
use shared_model::text::PackedEncoder;
use tokio::sync::watch;

use super::KeeperError;
use super::keeper::KeeperParts;
use super::packs::RecipeOutcome;
use super::scene;
use crate::config::Config;
use crate::ladder::{RECIPE_BYTES_MAX, Recipe, Rung, Scene, Workshop};
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

/// What came of it; the file where the gate let it pass.
pub(super) fn follow(
    parts: &KeeperParts,
    recipe: &Recipe,
    parent: &PackSource,
    generation: u32,
    stopping: &watch::Receiver<bool>,
) -> Result<(RecipeOutcome, Option<Vec<u8>>), KeeperError> {
    let device = Device::flex();
    let dataset = scene::dataset(&parts.log, &parts.catalogue, &parts.config.labels)?;
    let scene = Scene::new(&dataset)?;
    let answers = scene.of_parts(parent, &device)?;
    let items = parts.catalogue.items();
    let texts: Vec<String> = items.iter().map(|item| item.full_text()).collect();
    let earlier = earlier(parts, recipe, parent, generation);
    let goes_on = earlier.is_some();
    let mut workshop = Workshop::new(parent, &texts, &device);
    let made = workshop.make(recipe, earlier, |_| !*stopping.borrow())?;
    let rung = Rung::measured(&scene, &answers, recipe, &made, &device)?;
    let refused = rung.robustness.reasons();
    let outcome = RecipeOutcome {
        generation,
        recipe: rung.name,
        bytes: rung.bytes,
        relative_ndcg: rung.relative_ndcg,
        relative_ndcg_interval: rung.relative_ndcg_interval,
        refused,
    };
    tracing::info!(
        bytes = outcome.bytes,
        relative_ndcg = outcome.relative_ndcg,
        goes_on,
        "the recipe was followed: {}",
        outcome.recipe
    );
    let passes = outcome.refused.is_empty();
    Ok((outcome, passes.then_some(made.packed)))
}

/// What pages of another generation have, where the same recipe made it. Its weights are rounded, which some steps mend.
fn earlier(
    parts: &KeeperParts,
    recipe: &Recipe,
    parent: &PackSource,
    generation: u32,
) -> Option<PackSource> {
    let bytes = parts.packs.file_before(generation)?;
    let packed = PackedEncoder::from_bytes(bytes.to_vec()).ok()?; // it starts anew then
    recipe
        .has_made(&packed.config, &parent.config)
        .then(|| PackSource::of_packed(packed))
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
