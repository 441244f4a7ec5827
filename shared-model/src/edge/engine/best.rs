//! The best of many by score: the one order in which lists are made.

/// The `k` best of `eligible` by score, best first; ties by lower index.
#[must_use]
pub fn top_k(mut eligible: Vec<u32>, scores: &[f32], k: usize) -> Vec<u32> {
    let order = |a: &u32, b: &u32| {
        scores[*b as usize]
            .total_cmp(&scores[*a as usize])
            .then(a.cmp(b))
    };
    if k == 0 {
        return Vec::new();
    }
    let cut = |items: &mut Vec<u32>| {
        items.select_nth_unstable_by(k - 1, order);
        items.truncate(k);
    };
    if k < eligible.len() / 4 {
        // One pass: most of many items are below the k-th best of those before them.
        let mut best = Vec::with_capacity(2 * k);
        let mut least = f32::NEG_INFINITY;
        for item_idx in eligible {
            if scores[item_idx as usize] >= least {
                best.push(item_idx);
                if best.len() == 2 * k {
                    cut(&mut best);
                    least = scores[best[k - 1] as usize];
                }
            }
        }
        eligible = best;
    }
    if k < eligible.len() {
        cut(&mut eligible);
    }
    eligible.sort_unstable_by(order);
    eligible
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn top_k_orders_by_score_then_index() {
        let scores = [0.5, 2.0, 2.0, -1.0];
        assert_eq!(top_k(vec![0, 1, 2, 3], &scores, 3), vec![1, 2, 0]);
        assert_eq!(top_k(vec![3, 0], &scores, 9), vec![0, 3]);
        assert_eq!(top_k(vec![3, 0], &scores, 0), Vec::<u32>::new());
    }

    #[test]
    fn the_best_of_many_are_those_of_a_whole_sort() {
        for (num_items, num_scores) in [(500_u32, 7_u32), (500, 499), (41, 3)] {
            let scores: Vec<f32> = (0..num_items)
                .map(|idx| (idx * idx % num_scores) as f32 - 2.0)
                .collect();
            let mut sorted: Vec<u32> = (0..num_items).collect();
            sorted.sort_by(|a, b| scores[*b as usize].total_cmp(&scores[*a as usize])); // stable: ties by index
            for k in [1, 2, 10, 100, num_items as usize] {
                let best = top_k((0..num_items).collect(), &scores, k);
                assert_eq!(
                    best,
                    sorted[..k.min(sorted.len())],
                    "{num_items} {num_scores} {k}"
                );
            }
        }
    }
}
