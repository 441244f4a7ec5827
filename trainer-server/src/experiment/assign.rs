//! Which arm a unit has: a hash of salt, arm and unit, the same on the server and in the page.
//!
//! ```text
//! u_a   = (MurmurHash3_x86_32("salt/arm/unit", seed 0) + 1/2) / 2^32
//! arm   = argmin over arms of −ln(u_a) / share_a
//! ```
//!
//! Weighted rendezvous hashing (Thaler & Ravishankar 1998; weights as in Schindelhauer & Schomaker 2005): a unit has an
//! arm with a probability in proportion to its share, and when a share changes, units move to or from that arm alone.
//! What the shares leave of 100 belongs to no arm; it takes part under the empty name. Nothing is stored.
//!
//! `edge-wasm/npm/lib/experiments.js` computes the same; `vectors.json` holds both to it.

/// Shares are percent.
pub const SHARE_SUM_MAX: u32 = 100;

/// The arm of a unit, as a position in `arms`; `None` where it is in none of them.
/// `arms` are names and shares, which sum to at most [`SHARE_SUM_MAX`].
pub fn assign<'a>(
    salt: &str,
    unit: &str,
    arms: impl Iterator<Item = (&'a str, u32)>,
) -> Option<usize> {
    let mut rest = SHARE_SUM_MAX;
    let mut best = (f64::INFINITY, None);
    for (arm_idx, (name, share)) in arms.enumerate() {
        rest = rest.saturating_sub(share);
        let distance = distance(salt, name, unit, share);
        if distance < best.0 {
            best = (distance, Some(arm_idx));
        }
    }
    if distance(salt, "", unit, rest) < best.0 {
        return None;
    }
    best.1
}

/// `−ln(u) / share`, infinite without a share.
fn distance(salt: &str, arm: &str, unit: &str, share: u32) -> f64 {
    let hash = murmur3(format!("{salt}/{arm}/{unit}").as_bytes());
    let u = (f64::from(hash) + 0.5) / 4_294_967_296.0;
    -u.ln() / f64::from(share)
}

/// MurmurHash3_x86_32 with seed 0 (Appleby 2011, public domain).
fn murmur3(bytes: &[u8]) -> u32 {
    let mixed = |word: u32| {
        let word = word.wrapping_mul(0xcc9e_2d51).rotate_left(15);
        word.wrapping_mul(0x1b87_3593)
    };
    let (words, tail) = bytes.as_chunks::<4>();
    let mut hash = 0_u32;
    for word in words {
        hash = (hash ^ mixed(u32::from_le_bytes(*word))).rotate_left(13);
        hash = hash.wrapping_mul(5).wrapping_add(0xe654_6b64);
    }
    let mut last = [0; 4];
    last[..tail.len()].copy_from_slice(tail);
    hash ^= mixed(u32::from_le_bytes(last)); // 0 where there is no tail, which changes nothing
    hash ^= bytes.len() as u32; // the algorithm takes the length modulo 2^32
    hash = (hash ^ (hash >> 16)).wrapping_mul(0x85eb_ca6b);
    hash = (hash ^ (hash >> 13)).wrapping_mul(0xc2b2_ae35);
    hash ^ (hash >> 16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    /// Of `vectors.json`, which the page's test reads as well.
    #[derive(Deserialize)]
    struct Vector {
        salt: String,
        unit: String,
        arms: Vec<(String, u32)>,
        arm: Option<String>,
    }

    fn assigned(salt: &str, unit: &str, arms: &[(&str, u32)]) -> Option<usize> {
        assign(salt, unit, arms.iter().copied())
    }

    #[test]
    fn the_hash_is_that_of_its_reference() {
        let known = [
            ("", 0),
            ("hello", 0x248b_fa47),
            ("hello, world", 0x149b_bb7f),
            ("The quick brown fox jumps over the lazy dog", 0x2e4f_f723),
        ];
        for (text, hash) in known {
            assert_eq!(murmur3(text.as_bytes()), hash, "{text}");
        }
    }

    #[test]
    fn units_have_the_arms_of_the_fixed_vectors() {
        let vectors: Vec<Vector> =
            serde_json::from_str(include_str!("vectors.json")).expect("vectors");
        assert!(vectors.len() >= 20);
        for vector in vectors {
            let arms = vector.arms.iter().map(|(name, share)| (&**name, *share));
            let arm = assign(&vector.salt, &vector.unit, arms);
            let name = arm.map(|arm_idx| vector.arms[arm_idx].0.clone());
            assert_eq!(name, vector.arm, "{} {}", vector.salt, vector.unit);
        }
    }

    #[test]
    fn arms_have_their_shares_and_other_salts_other_units() {
        let arms = [("a", 50), ("b", 20), ("c", 10)];
        let mut counts = [0_u32; 4];
        let mut num_same = 0;
        for unit in 0..20_000 {
            let unit = format!("user-{unit}");
            let arm = assigned("s1", &unit, &arms);
            counts[arm.unwrap_or(3)] += 1;
            num_same += u32::from(arm == assigned("s2", &unit, &arms));
        }
        // Six standard deviations of a binomial are below 430.
        for (count, expected) in counts.into_iter().zip([10_000, 4_000, 2_000, 4_000]) {
            assert!(count.abs_diff(expected) < 430, "{counts:?}");
        }
        // 0.5² + 0.2² + 0.1² + 0.2² of independent draws agree.
        assert!(num_same.abs_diff(6_800) < 430, "{num_same}");
    }

    #[test]
    fn a_changed_share_moves_units_to_or_from_its_arm_alone() {
        let before = [("a", 30), ("b", 30), ("c", 30)];
        let after = [("a", 30), ("b", 40), ("c", 30)]; // takes the ten that nobody had
        let mut num_moved = 0;
        for unit in 0..20_000 {
            let unit = unit.to_string();
            let (base, target) = (assigned("s", &unit, &before), assigned("s", &unit, &after));
            if base != target {
                num_moved += 1;
                assert!(base.is_none() || target == Some(1), "{base:?} {target:?}");
            }
        }
        assert!(num_moved > 1_700 && num_moved < 4_300, "{num_moved}");
    }

    #[test]
    fn without_a_share_there_is_no_unit() {
        for unit in 0..100 {
            let arms = [("a", 0), ("b", 100)];
            assert_eq!(assigned("s", &unit.to_string(), &arms), Some(1));
            assert_eq!(assigned("s", &unit.to_string(), &[("a", 0)]), None);
        }
    }
}
