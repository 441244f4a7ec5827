//! A seeded stream of code states that changes as a learner's does: few rows in most versions, rows
//! of popular items more often, and now and then a release, new items, or another text encoder.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use shared_model::codec::state::{CodeState, CodeTensor, ItemEntry};
use shared_model::ids::ItemId;
use shared_model::manifest::VersionKind;
use shared_model::spec::{ModelSpec, TensorGroup};

const NUM_ITEMS: usize = 4000;
const RELEASE_EVERY: u64 = 100;
const ENCODER_EVERY: u64 = 600;
const NEW_ITEM_EVERY: u64 = 10;
const AVAILABILITY_EVERY: u64 = 7;
const LANDMARK_EVERY: u64 = 250;
/// Exponent of rows that have been learned: values up to 1.
const LEARNED_EXPONENT: i8 = -7;

pub(super) struct Stream {
    rng: StdRng,
    num_versions: u64,
    state: CodeState,
}

impl Stream {
    pub(super) fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let spec = ModelSpec {
            embedding_dim: 64,
            text_dim: 64,
            num_neighbours: 0,
            ..ModelSpec::default()
        };
        let mut state = CodeState::empty(spec);
        state.append_items((0..NUM_ITEMS).map(item));
        for (shape, tensor) in state.shapes().iter().zip(&mut state.tensors) {
            if shape.code_bits == 8 {
                redraw(&mut rng, tensor, 1.0);
            }
        }
        Self {
            rng,
            num_versions: 0,
            state,
        }
    }

    /// The next version; the first one is a release.
    pub(super) fn next(&mut self) -> (VersionKind, CodeState) {
        let number = self.num_versions;
        self.num_versions += 1;
        if number == 0 {
            return (VersionKind::Release, self.state.clone());
        }
        self.learn_fast();
        if number.is_multiple_of(NEW_ITEM_EVERY) {
            let item_idx = self.state.items.len();
            self.state.append_items([item(item_idx)]);
        }
        if number.is_multiple_of(AVAILABILITY_EVERY) {
            let item_idx = self.popular();
            let entry = &mut self.state.items[item_idx];
            entry.available = !entry.available;
        }
        if number.is_multiple_of(LANDMARK_EVERY) {
            self.state.landmark_millis += 86_400_000;
        }
        if number.is_multiple_of(ENCODER_EVERY) {
            self.state.encoder_generation += 1;
            self.redraw_group(TensorGroup::Content, 1.0);
        }
        if !number.is_multiple_of(RELEASE_EVERY) {
            return (VersionKind::Fast, self.state.clone());
        }
        self.redraw_group(TensorGroup::Slow, 0.3);
        (VersionKind::Release, self.state.clone())
    }

    /// Small steps of the rows of some 40 items, and their counts.
    fn learn_fast(&mut self) {
        for _ in 0..self.rng.random_range(20..60) {
            let row_idx = self.popular();
            let rows = self.state.tensor_mut("item.id_rows").expect("in the spec");
            rows.exponents[row_idx] = LEARNED_EXPONENT;
            for code in rows.row_mut(row_idx) {
                *code = (*code + self.rng.random_range(-1..=1)).clamp(-127, 127);
            }
            let bias = self.state.tensor_mut("item.bias").expect("in the spec");
            bias.codes[row_idx] = (bias.codes[row_idx] + 1).min(127);
            let counts = self.state.tensor_mut("item.counts").expect("in the spec");
            for code in counts.row_mut(row_idx) {
                *code = (*code).max(0).saturating_add(self.rng.random_range(1..9));
            }
        }
    }

    /// An item, early ones more often.
    fn popular(&mut self) -> usize {
        let share: f64 = self.rng.random();
        let num_items = self.state.items.len();
        ((share * share * num_items as f64) as usize).min(num_items - 1) // rounds down
    }

    fn redraw_group(&mut self, group: TensorGroup, share: f64) {
        let shapes = self.state.shapes();
        for (shape, tensor) in shapes.iter().zip(&mut self.state.tensors) {
            if shape.group == group && shape.code_bits == 8 {
                redraw(&mut self.rng, tensor, share);
            }
        }
    }
}

fn item(item_idx: usize) -> ItemEntry {
    ItemEntry {
        item_id: ItemId::new(format!("item-{item_idx}")).expect("short"),
        available: true,
    }
}

/// Draws a share of the codes anew, small values more often.
fn redraw(rng: &mut StdRng, tensor: &mut CodeTensor, share: f64) {
    if tensor.num_cols == 0 {
        return; // rows without codes have no scale
    }
    tensor.exponents.fill(LEARNED_EXPONENT);
    for code in &mut tensor.codes {
        if rng.random_bool(share) {
            let terms: [i16; 3] = [(); 3].map(|()| rng.random_range(-42..=42));
            *code = terms.iter().sum();
        }
    }
}
