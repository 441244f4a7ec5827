//! Small encoder: hashed words and character trigrams, projected at random. Nothing is learned.
//!
//! ```text
//! features : the distinct words w of the text, lower case, and the distinct trigrams of "^w$"
//! s(f)     : 384 signs ±1, the first 384 bits of BLAKE3(kind, f)
//! text     = norm( Σ_words WORD_WEIGHT·s(w) + Σ_trigrams s(g) )
//! ```
//! By the Johnson-Lindenstrauss lemma (Achlioptas 2003, signs in place of normal numbers) the
//! inner product of two texts is about the share of words and trigrams they have in common, with
//! an error of about 1/√384 = 0.05. So it sees "RED MUG" near "RED MUGS", and knows nothing of
//! synonyms: it is what there is to rank new items by while no pretrained weights are at hand.
//! Sums are of integers, and square root and division are exact in IEEE 754, so the result is the
//! same bits on every machine (lower-casing and word boundaries follow the Unicode version of the
//! compiler, which the project pins).

use std::collections::BTreeSet;

use super::readable_part;
use crate::ids::BlobId;

/// Width of an embedding; that of MiniLM, so that the Ranker's shapes do not depend on the choice.
pub const SMALL_TEXT_DIM: usize = 384;

/// Names the algorithm in the fingerprint; to be raised whenever any embedding would change.
const ALGORITHM: &[u8] = b"freshet small text encoder 1";

/// Weight of a word beside that of a trigram: a shared word is worth more than its letters alone.
const WORD_WEIGHT: i32 = 4;

/// Hashed words; has no weights and no settings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SmallTextEncoder;

impl SmallTextEncoder {
    /// Width of an embedding.
    #[must_use]
    pub fn dim(&self) -> usize {
        SMALL_TEXT_DIM
    }

    /// Names the algorithm and its constants.
    #[must_use]
    pub fn fingerprint(&self) -> BlobId {
        BlobId::of(ALGORITHM)
    }

    /// Embeds texts, each on its own; a text without letters or digits gives zeros.
    ///
    /// # Shapes
    /// → `[texts.len(), 384]`, row-major.
    #[must_use]
    pub fn embed(&self, texts: &[String]) -> Vec<f32> {
        texts.iter().flat_map(|text| embed_one(text)).collect()
    }
}

fn embed_one(text: &str) -> [f32; SMALL_TEXT_DIM] {
    let lower_case = readable_part(text).to_lowercase();
    let words = lower_case.split(|character: char| !character.is_alphanumeric());
    let words: BTreeSet<&str> = words.filter(|word| !word.is_empty()).collect();
    let trigrams: BTreeSet<[char; 3]> = words.iter().flat_map(|word| trigrams_of(word)).collect();

    let mut sums = [0_i32; SMALL_TEXT_DIM];
    for word in words {
        add_signs(&mut sums, b'w', word, WORD_WEIGHT);
    }
    for trigram in trigrams {
        add_signs(&mut sums, b't', &String::from_iter(trigram), 1);
    }
    normalize(&sums)
}

/// Trigrams of `^word$`, so that beginnings and endings differ from middles.
fn trigrams_of(word: &str) -> Vec<[char; 3]> {
    let bounded: Vec<char> = format!("^{word}$").chars().collect();
    bounded
        .windows(3)
        .map(|window| [window[0], window[1], window[2]])
        .collect()
}

/// Adds `weight` times the signs of a feature.
fn add_signs(sums: &mut [i32; SMALL_TEXT_DIM], kind: u8, feature: &str, weight: i32) {
    let mut bits = [0_u8; SMALL_TEXT_DIM / 8];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&[kind]).update(feature.as_bytes());
    hasher.finalize_xof().fill(&mut bits);
    for (sums, byte) in sums.chunks_exact_mut(8).zip(bits) {
        for (bit, sum) in sums.iter_mut().enumerate() {
            *sum += if byte >> bit & 1 == 1 {
                weight
            } else {
                -weight
            };
        }
    }
}

fn normalize(sums: &[i32; SMALL_TEXT_DIM]) -> [f32; SMALL_TEXT_DIM] {
    let squared: i64 = sums
        .iter()
        .map(|&sum| i64::from(sum) * i64::from(sum))
        .sum();
    if squared == 0 {
        return [0.0; SMALL_TEXT_DIM];
    }
    let length = (squared as f64).sqrt(); // rounds above 2^53, the same way everywhere
    sums.map(|sum| (f64::from(sum) / length) as f32) // rounds to the nearest, |value| ≤ 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cosine(left: &str, right: &str) -> f32 {
        let rows = SmallTextEncoder.embed(&[left.to_owned(), right.to_owned()]);
        let (left, right) = rows.split_at(SMALL_TEXT_DIM);
        left.iter()
            .zip(right)
            .map(|(left, right)| left * right)
            .sum()
    }

    #[test]
    fn shared_words_bring_texts_together_and_spelling_variants_too() {
        assert!(
            cosine(
                "WHITE HANGING HEART T-LIGHT HOLDER",
                "RED HANGING HEART T-LIGHT HOLDER"
            ) > 0.6
        );
        assert!(cosine("red retrospot mug", "RED RETROSPOT MUGS") > 0.5);
        assert!(cosine("white hanging heart", "jumbo bag owls").abs() < 0.25);
    }

    #[test]
    fn order_case_and_repetition_do_not_matter() {
        let rows = SmallTextEncoder.embed(&["Jam Jar".to_owned(), "JAR, jam, jar!".to_owned()]);
        assert_eq!(rows[..SMALL_TEXT_DIM], rows[SMALL_TEXT_DIM..]);
    }

    #[test]
    fn a_text_without_words_gives_zeros() {
        assert_eq!(
            SmallTextEncoder.embed(&["—  !".to_owned()]),
            vec![0.0; SMALL_TEXT_DIM]
        );
        assert!(SmallTextEncoder.embed(&[]).is_empty());
    }

    #[test]
    fn rows_are_unit_vectors_with_the_same_bits_everywhere() {
        let row =
            SmallTextEncoder.embed(&["Fantômas - À l'ombre de la guillotine (1913)".to_owned()]);
        let squared: f32 = row.iter().map(|value| value * value).sum();
        assert!((squared - 1.0).abs() < 1e-5);
        let bytes: Vec<u8> = row.iter().flat_map(|value| value.to_le_bytes()).collect();
        assert_eq!(
            BlobId::of(&bytes).to_hex(),
            "3decde0a961f719298fc64e7d8db2cd7c3e0cde09ae5bbe5145f2813baef540c"
        );
    }
}
