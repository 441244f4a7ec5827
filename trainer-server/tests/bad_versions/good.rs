//! Versions as they should be.

use trainer_server::gate::{GateFigures, PairedLoss};

use crate::report::check;
use crate::scene::{CHUNK_LEN, Scene};

const NUM_VERSIONS: usize = 200;
/// One percent.
const HELD_BACK_MAX: usize = 2;
/// Fast versions between two releases.
const RELEASE_EVERY: usize = 40;

/// The worst of each figure over versions that passed.
#[derive(Default)]
struct Worst {
    newest: f32,
    earlier: f32,
    trained: f32,
    entered: f32,
    disagreement: f32,
}

impl Worst {
    fn note(&mut self, figures: &GateFigures) {
        let rise = |loss: Option<PairedLoss>| loss.map_or(f32::NEG_INFINITY, |loss| loss.rise());
        self.newest = self.newest.max(rise(figures.newest()));
        self.earlier = self.earlier.max(rise(figures.earlier));
        self.trained = self.trained.max(rise(figures.trained));
        self.entered = self.entered.max(figures.entered.unwrap_or(0.0));
        self.disagreement = self
            .disagreement
            .max(1.0 - figures.agreement.unwrap_or(1.0));
    }
}

#[test]
fn of_two_hundred_good_versions_hardly_one_is_held_back() {
    let Some(scene) = Scene::get() else { return };
    let mut run = scene.run(&[]);
    let (mut worst, mut held_back) = (Worst::default(), Vec::new());
    for version_idx in 0..NUM_VERSIONS {
        if version_idx % RELEASE_EVERY == RELEASE_EVERY - 1 {
            match run.judge_release() {
                Ok(release) => run.publish_release(release),
                Err(error) => {
                    held_back.push(format!("release {version_idx}: {}: {error}", check(&error)))
                }
            }
            continue;
        }
        let chunk = run.next_chunk(CHUNK_LEN);
        run.learn(&chunk);
        match run.judge() {
            Ok(passed) => {
                worst.note(&passed.figures);
                run.publish(passed);
            }
            Err(error) => {
                held_back.push(format!("version {version_idx}: {}: {error}", check(&error)));
                run.learner.undo_last();
            }
        }
    }
    println!(
        "{NUM_VERSIONS} versions; largest rise of log loss: newest {:.4}, earlier {:.4}, trained {:.4}; \
         largest share of lists entered {:.2}; largest share of top 10 changed by codes {:.2}",
        worst.newest, worst.earlier, worst.trained, worst.entered, worst.disagreement
    );
    for line in &held_back {
        println!("held back: {line}");
    }
    assert!(
        held_back.len() <= HELD_BACK_MAX,
        "{} were held back",
        held_back.len()
    );
}
