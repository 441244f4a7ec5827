//! Augmentation of training windows: crop, mask and reorder (Xie et al. 2022, CL4SRec), as transformations of
//! the windows themselves, so that every position still predicts the event that follows it.

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use super::windows::Window;

/// How often windows are changed.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Augmentation {
    /// Share of windows cut to a random stretch of at least half their length.
    pub crop: f32,
    /// Share of context and target events left out.
    pub mask: f32,
    /// Share of windows in which a fifth of the events is shuffled among itself; their times stay in order.
    pub reorder: f32,
}

/// Shorter windows have nothing to spare.
const EVENTS_MIN: usize = 4;

impl Augmentation {
    /// Whether anything is to be done.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// Changes a window by chance.
    pub fn apply(&self, window: &mut Window, rng: &mut StdRng) {
        if window.examples.len() < EVENTS_MIN {
            return;
        }
        if rng.random::<f32>() < self.crop {
            crop(window, rng);
        }
        if self.mask > 0.0 {
            self.mask(window, rng);
        }
        if window.examples.len() >= EVENTS_MIN && rng.random::<f32>() < self.reorder {
            reorder(window, rng);
        }
    }

    fn mask(&self, window: &mut Window, rng: &mut StdRng) {
        let mut num_context = window.first_target;
        let mut kept = Vec::with_capacity(window.examples.len());
        for (idx, example) in window.examples.iter().enumerate() {
            let is_last = idx + 1 == window.examples.len();
            if is_last || rng.random::<f32>() >= self.mask {
                kept.push(*example);
            } else if idx < window.first_target {
                num_context -= 1;
            }
        }
        window.examples = kept;
        window.first_target = num_context;
    }
}

fn crop(window: &mut Window, rng: &mut StdRng) {
    let len = window.examples.len();
    let kept = rng.random_range(len / 2..=len);
    let start = rng.random_range(0..=len - kept);
    window.examples = window.examples[start..start + kept].to_vec();
    // A stretch of context alone would teach nothing, so its last event is learned again.
    window.first_target = window.first_target.saturating_sub(start).min(kept - 1);
}

fn reorder(window: &mut Window, rng: &mut StdRng) {
    let len = (window.examples.len() / 5).max(2);
    let start = rng.random_range(0..=window.examples.len() - len);
    let stretch = &mut window.examples[start..start + len];
    let times: Vec<i64> = stretch.iter().map(|example| example.occurred_at).collect();
    stretch.shuffle(rng);
    for (example, occurred_at) in stretch.iter_mut().zip(times) {
        example.occurred_at = occurred_at;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::windows::Example;
    use rand::SeedableRng;
    use shared_model::event::EventKind;

    fn window(len: u32, first_target: usize) -> Window {
        let example = |item_idx| Example {
            item_idx,
            kind: EventKind::Purchase,
            occurred_at: i64::from(item_idx) * 1000,
            target_weight: 1.0,
            share: 1.0,
            click: None,
            rating: None,
        };
        Window {
            examples: (0..len).map(example).collect(),
            first_target,
        }
    }

    #[test]
    fn windows_keep_their_order_of_time_and_a_target() {
        let all = Augmentation {
            crop: 0.7,
            mask: 0.3,
            reorder: 0.7,
        };
        let mut rng = StdRng::seed_from_u64(5);
        let mut num_changed = 0;
        for len in [1, 3, 4, 20, 51] {
            for first_target in [0, len as usize / 2, len as usize - 1] {
                for _ in 0..50 {
                    let original = window(len, first_target);
                    let mut changed = original.clone();
                    all.apply(&mut changed, &mut rng);
                    assert!(changed.first_target < changed.examples.len());
                    assert!(
                        changed
                            .examples
                            .is_sorted_by_key(|example| example.occurred_at)
                    );
                    assert!(changed.examples.len() <= len as usize);
                    num_changed += usize::from(changed != original);
                }
            }
        }
        assert!(num_changed > 300, "{num_changed} windows changed");
    }

    #[test]
    fn a_masked_window_loses_the_share_asked_for_and_learns_the_same_targets() {
        let mask = Augmentation {
            mask: 0.25,
            ..Augmentation::default()
        };
        let mut rng = StdRng::seed_from_u64(5);
        let (mut num_left, mut num_context) = (0, 0);
        for _ in 0..400 {
            let mut changed = window(40, 20);
            mask.apply(&mut changed, &mut rng);
            num_left += changed.examples.len();
            num_context += changed.first_target;
            let targets = &changed.examples[changed.first_target..];
            assert!(targets.iter().all(|example| example.item_idx >= 20));
        }
        assert!((num_left as f32 / 16_000.0 - 0.756).abs() < 0.02);
        assert!((num_context as f32 / 8_000.0 - 0.75).abs() < 0.02);
        let mut untouched = window(40, 20);
        Augmentation::default().apply(&mut untouched, &mut rng);
        assert_eq!(untouched, window(40, 20));
    }
}
