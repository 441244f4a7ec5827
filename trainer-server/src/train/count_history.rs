//! Decayed item counts at any moment of the past, as the item prior saw them then.
//!
//! Training on old windows needs the counts of their time: those of today would tell the model what
//! became popular afterwards. Per item the event times are kept in order with the running `log2 S` of
//! `shared_model::model::prior`, so a count at `t` is a binary search and one power of two.

use shared_model::model::prior;

use super::windows::Example;

/// Running counts of every item over the whole log.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CountHistory {
    half_lives_secs: Vec<u32>,
    landmark_millis: i64,
    /// Where each item's events begin in `times`; one more entry than items.
    starts: Vec<usize>,
    /// Event times, ascending within an item.
    times: Vec<i64>,
    /// `log2 S` after each event, `[num_events, num_half_lives]`.
    log2_sums: Vec<f32>,
}

impl CountHistory {
    /// Counts every example that is a next-item target, as live counting does.
    #[must_use]
    pub fn of<'a>(
        examples: impl Iterator<Item = &'a Example>,
        num_items: usize,
        half_lives_secs: &[u32],
        landmark_millis: i64,
    ) -> Self {
        let counted = examples.filter(|example| example.target_weight > 0.0);
        let mut events: Vec<(u32, i64, f64)> = counted
            .map(|example| {
                let weight = f64::from(example.share);
                (example.item_idx, example.occurred_at, weight)
            })
            .collect();
        events.sort_by_key(|(item_idx, at_millis, _)| (*item_idx, *at_millis));
        let mut history = Self {
            half_lives_secs: half_lives_secs.to_vec(),
            landmark_millis,
            starts: Vec::with_capacity(num_items + 1),
            times: events.iter().map(|(_, at, _)| *at).collect(),
            log2_sums: Vec::with_capacity(events.len() * half_lives_secs.len()),
        };
        for item_idx in 0..=num_items as u32 {
            // fits: NUM_ITEMS_MAX is 2^20
            history
                .starts
                .push(events.partition_point(|(item, ..)| *item < item_idx));
        }
        for item in history.starts.windows(2) {
            let mut sums = vec![f64::NEG_INFINITY; half_lives_secs.len()];
            for (_, at_millis, weight) in &events[item[0]..item[1]] {
                for (sum, half_life) in sums.iter_mut().zip(half_lives_secs) {
                    *sum = prior::add_event(*sum, *weight, *at_millis, landmark_millis, *half_life);
                    history.log2_sums.push(*sum as f32);
                }
            }
        }
        history
    }

    /// Events of every item over the whole log, `[num_items]`.
    #[must_use]
    pub fn num_events(&self) -> Vec<usize> {
        let bounds = self.starts.windows(2);
        bounds.map(|bounds| bounds[1] - bounds[0]).collect()
    }

    /// Number of half-lives.
    #[must_use]
    pub fn num_half_lives(&self) -> usize {
        self.half_lives_secs.len()
    }

    /// Prior features of `items` from what happened strictly before `at_millis`.
    ///
    /// # Shapes
    /// → `[items.len(), num_half_lives]`, row-major.
    #[must_use]
    pub fn features(&self, items: &[u32], at_millis: i64) -> Vec<f32> {
        let num_half_lives = self.num_half_lives();
        let mut sums = Vec::with_capacity(items.len() * num_half_lives);
        for item_idx in items {
            match self.sums_before(*item_idx, at_millis) {
                Some(row) => sums.extend(row),
                None => sums.extend(std::iter::repeat_n(prior::NEVER, num_half_lives)),
            }
        }
        prior::features(
            &sums,
            &self.half_lives_secs,
            self.landmark_millis,
            at_millis,
        )
    }

    /// Count codes of all items from what happened strictly before `at_millis`: what pages held then.
    ///
    /// # Shapes
    /// → `[num_items, num_half_lives]`, row-major.
    #[must_use]
    pub fn codes(&self, at_millis: i64) -> Vec<i16> {
        let num_items = self.starts.len().saturating_sub(1);
        let mut codes = vec![prior::NEVER_CODE; num_items * self.num_half_lives()];
        let rows = codes.chunks_exact_mut(self.num_half_lives().max(1));
        for (item_idx, row) in (0..).zip(rows) {
            if let Some(sums) = self.sums_before(item_idx, at_millis) {
                let sums = sums.iter().map(|sum| prior::count_code(f64::from(*sum)));
                row.iter_mut()
                    .zip(sums)
                    .for_each(|(code, of_sum)| *code = of_sum);
            }
        }
        codes
    }

    /// `log2 S` of an item after its last event before `at_millis`; `None` where it has none.
    fn sums_before(&self, item_idx: u32, at_millis: i64) -> Option<&[f32]> {
        let num_half_lives = self.num_half_lives();
        let bounds = self.starts.get(item_idx as usize..item_idx as usize + 2)?; // or it is newer than this history
        let times = &self.times[bounds[0]..bounds[1]];
        let last = times.partition_point(|at| *at < at_millis).checked_sub(1)?;
        let first = (bounds[0] + last) * num_half_lives;
        Some(&self.log2_sums[first..first + num_half_lives])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::counts::DecayedCounts;
    use shared_model::event::EventKind;

    const HALF_LIVES_SECS: [u32; 2] = [60, 3600];

    fn examples() -> Vec<Example> {
        let times = [
            (0, 5_000, 1.0),
            (2, 6_000, 0.25),
            (0, 90_000, 1.0),
            (0, 90_000, 0.5),
            (1, 100_000, 0.0),
        ];
        let example = |(item_idx, occurred_at, share)| Example {
            item_idx,
            kind: EventKind::Purchase,
            occurred_at,
            target_weight: 1.0,
            share,
            click: None,
            rating: None,
        };
        times.map(example).to_vec()
    }

    #[test]
    fn features_of_the_past_are_those_that_live_counting_had_then() {
        let examples = examples();
        let history = CountHistory::of(examples.iter(), 3, &HALF_LIVES_SECS, 5_000);
        for at_millis in [0, 5_000, 5_001, 90_000, 90_001, 400_000] {
            let mut live = DecayedCounts::new(HALF_LIVES_SECS.to_vec(), 5_000);
            live.grow(3);
            for example in examples
                .iter()
                .filter(|example| example.occurred_at < at_millis)
            {
                live.add(example.item_idx, example.occurred_at, example.share);
            }
            let expected = prior::features(&live.log2_sums(), &HALF_LIVES_SECS, 5_000, at_millis);
            let actual = history.features(&[0, 1, 2], at_millis);
            let codes: Vec<i16> = (0..3).flat_map(|item_idx| live.codes(item_idx)).collect();
            assert_eq!(history.codes(at_millis), codes, "at {at_millis}");
            for (actual, expected) in actual.iter().zip(&expected) {
                assert!(
                    (actual - expected).abs() < 1e-5,
                    "{actual} is not {expected}"
                );
            }
        }
    }

    #[test]
    fn an_item_newer_than_the_history_and_one_that_is_no_target_count_nothing() {
        let mut examples = examples();
        examples[4].target_weight = 0.0;
        let history = CountHistory::of(examples.iter(), 3, &HALF_LIVES_SECS, 5_000);
        assert_eq!(history.features(&[1, 7], 200_000), vec![0.0; 4]);
    }
}
