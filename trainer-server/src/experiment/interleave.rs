//! Team-draft interleaving: one list from two, in which each item belongs to the list that put it there.
//!
//! The list with fewer items so far picks next, by the toss of a coin where they are even, and picks its best item that
//! is not placed yet (Radlinski, Kurup and Joachims 2008, "How Does Clickthrough Data Reflect Retrieval Quality?"). A
//! user who clicks without preference clicks both teams alike, whatever the places.

use std::collections::HashSet;
use std::hash::Hash;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Whose item it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Team {
    /// Of the first list.
    First,
    /// Of the second.
    Second,
}

/// Team and position in its list, for up to `k` places.
pub fn team_draft<T: Eq + Hash>(
    first: &[T],
    second: &[T],
    k: usize,
    seed: u64,
) -> Vec<(Team, usize)> {
    let mut coin = StdRng::seed_from_u64(seed);
    let mut placed = HashSet::new();
    let (mut next, mut num_picked) = ([0, 0], [0, 0]);
    let mut drafted = Vec::with_capacity(k.min(first.len() + second.len()));
    while drafted.len() < k {
        let mut left = [false; 2];
        for (team, list) in [first, second].into_iter().enumerate() {
            while list
                .get(next[team])
                .is_some_and(|item| placed.contains(item))
            {
                next[team] += 1;
            }
            left[team] = next[team] < list.len();
        }
        let is_first = match left {
            [false, false] => break,
            [true, false] => true,
            [false, true] => false,
            [true, true] if num_picked[0] == num_picked[1] => coin.random(),
            [true, true] => num_picked[0] < num_picked[1],
        };
        let team = usize::from(!is_first);
        let list = [first, second][team];
        placed.insert(&list[next[team]]);
        let name = [Team::First, Team::Second][team];
        drafted.push((name, next[team]));
        num_picked[team] += 1;
    }
    drafted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(drafted: &[(Team, usize)], lists: [&[u32]; 2]) -> Vec<u32> {
        let item = |(team, item_idx): &(Team, usize)| lists[*team as usize][*item_idx];
        drafted.iter().map(item).collect()
    }

    #[test]
    fn teams_take_turns_and_no_item_comes_twice() {
        let (first, second) = ([1, 2, 3, 4, 5, 6], [3, 1, 7, 8, 9, 2]);
        for seed in 0..200 {
            let drafted = team_draft(&first, &second, 6, seed);
            let mut placed = items(&drafted, [&first, &second]);
            for pair in drafted.chunks(2) {
                assert_ne!(pair[0].0, pair[1].0, "each round has one of both");
            }
            placed.sort_unstable();
            placed.dedup();
            assert_eq!(placed.len(), 6);
        }
    }

    #[test]
    fn what_one_list_lacks_the_other_fills() {
        let drafted = team_draft(&[1], &[1, 2, 3], 10, 7);
        let mut placed = items(&drafted, [&[1], &[1, 2, 3]]);
        placed.sort_unstable();
        assert_eq!(placed, [1, 2, 3]);
        assert!(team_draft::<u32>(&[], &[], 3, 0).is_empty());
    }

    #[test]
    fn who_clicks_the_first_place_credits_both_teams_alike() {
        let (first, second) = ([1, 2, 3], [2, 1, 3]);
        let is_first = |seed: &u64| team_draft(&first, &second, 3, *seed)[0].0 == Team::First;
        let num_first = (0..4000).filter(is_first).count();
        assert!(num_first.abs_diff(2000) < 200, "{num_first}"); // six standard deviations are 190
    }
}
