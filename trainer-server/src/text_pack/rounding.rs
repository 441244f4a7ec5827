//! Weights to codes: each to the nearest, or so that a layer's weights make up for each other's errors.

use shared_model::text::packed::{CODE_MAX, CodedMatrix, code_at};

use super::moments::Compensation;

/// Steps beside the first one, as multiples of it, for rows with weights far out: a trained network has single ones of
/// a hundred deviations, and cut off they take the network's sense along.
const OUTLIER_STEPS: [f32; 3] = [2.0, 6.0, 24.0];

/// Share of a step below which a weight is nearest to 0.
pub(super) const NEAREST: f32 = 0.5;

/// A step per row of a matrix.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct RowSteps {
    steps: Vec<f32>,
    /// Which of them each row has.
    row_steps: Vec<u8>,
    /// Share of a step below which a weight becomes 0.
    zero: f32,
}

impl RowSteps {
    /// `step` for every row that it does not cut off.
    ///
    /// # Shapes
    /// `values`: `[num_rows, num_cols]`, row-major.
    pub(super) fn of_matrix(values: &[f32], num_cols: usize, step: f32) -> Self {
        let steps: Vec<f32> = std::iter::once(step)
            .chain(OUTLIER_STEPS.iter().map(|times| times * step))
            .collect();
        let rows = values.chunks_exact(num_cols);
        Self {
            row_steps: rows.map(|row| first_that_holds(row, &steps, 0)).collect(),
            steps,
            zero: NEAREST,
        }
    }

    /// `fine` for words that are used and `coarse` for the others, coarser ones where these would cut off.
    pub(super) fn of_words(
        values: &[f32],
        num_cols: usize,
        [fine, coarse]: [f32; 2],
        is_used: &[bool],
    ) -> Self {
        let steps = vec![fine, coarse, 4.0 * coarse, 16.0 * coarse];
        let rows = values.chunks_exact(num_cols).zip(is_used);
        let row_step =
            |(row, is_used): (&[f32], &bool)| first_that_holds(row, &steps, usize::from(!is_used));
        Self {
            row_steps: rows.map(row_step).collect(),
            steps,
            zero: NEAREST,
        }
    }

    /// With more zeros than the nearest codes are.
    pub(super) fn with_zero(self, zero: f32) -> Self {
        Self { zero, ..self }
    }

    fn of_row(&self, row_idx: usize) -> f32 {
        self.steps[usize::from(self.row_steps[row_idx])]
    }
}

/// The first step from `first` on that reaches the largest weight of a row; the last one where none does.
fn first_that_holds(row: &[f32], steps: &[f32], first: usize) -> u8 {
    let largest = row.iter().fold(0.0_f32, |max, value| max.max(value.abs()));
    let holds = |step: &f32| largest <= f32::from(CODE_MAX) * step;
    let found = steps[first..].iter().position(holds);
    found.map_or(steps.len() - 1, |position| first + position) as u8 // a few steps
}

/// The nearest code, or 0 for a weight below `zero` steps: magnitude pruning that the range coder is paid for.
pub(super) fn code_of(value: f32, step: f32, zero: f32) -> i8 {
    if value.abs() < zero * step {
        0
    } else {
        code_at(value, step)
    }
}

/// Every weight to its code.
pub(super) fn nearest(values: &[f32], num_cols: usize, steps: RowSteps) -> CodedMatrix {
    let rows = values.chunks_exact(num_cols).enumerate();
    let codes = rows.flat_map(|(row_idx, row)| {
        let (step, zero) = (steps.of_row(row_idx), steps.zero);
        row.iter().map(move |value| code_of(*value, step, zero))
    });
    CodedMatrix {
        num_cols,
        codes: codes.collect(),
        steps: steps.steps,
        row_steps: steps.row_steps,
    }
}

/// Input after input, each weight moved by what rounding those before it has left.
///
/// # Shapes
/// `values`: `[outputs, inputs]`, row-major.
pub(super) fn with_compensation(
    values: &[f32],
    steps: RowSteps,
    compensation: &Compensation,
) -> CodedMatrix {
    let num_inputs = compensation.num_inputs();
    let mut codes = vec![0; values.len()];
    let mut errors = vec![0.0; num_inputs];
    let outputs = values
        .chunks_exact(num_inputs)
        .zip(codes.chunks_exact_mut(num_inputs));
    for (row_idx, (weights, codes)) in outputs.enumerate() {
        let step = steps.of_row(row_idx);
        for place in (0..num_inputs).rev() {
            let input = compensation.input_at(place);
            let wanted = weights[input] + compensation.at(place, &errors);
            let code = code_of(wanted, step, steps.zero);
            errors[place] = weights[input] - step * f32::from(code);
            codes[input] = code;
        }
    }
    CodedMatrix {
        num_cols: num_inputs,
        steps: steps.steps,
        row_steps: steps.row_steps,
        codes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text_pack::moments::SecondMoments;

    const NUM_INPUTS: usize = 24;
    const NUM_OUTPUTS: usize = 6;
    const STEP: f32 = 0.4;

    /// Inputs that hang together, one of them fifty times as large as the others.
    fn inputs() -> Vec<Vec<f32>> {
        let value = |text: usize, input: usize| {
            let shared = (text as f32 * 0.7).sin();
            let own = ((text * 37 + input * 11) as f32).cos();
            (shared + 0.5 * own) * if input == 20 { 50.0 } else { 1.0 }
        };
        (0..200)
            .map(|text| (0..NUM_INPUTS).map(|input| value(text, input)).collect())
            .collect()
    }

    /// Weights around 1, but for one of 120.
    fn weights() -> Vec<f32> {
        let mut weights: Vec<f32> = (0..NUM_INPUTS * NUM_OUTPUTS)
            .map(|idx| ((idx * 29) as f32).sin() * 1.4)
            .collect();
        weights[2 * NUM_INPUTS + 7] = 120.0;
        weights
    }

    /// Sum of squared errors of the outputs.
    fn error(weights: &[f32], rounded: &[f32], inputs: &[Vec<f32>]) -> f64 {
        let pairs = weights.chunks(NUM_INPUTS).zip(rounded.chunks(NUM_INPUTS));
        let of_output = |(weights, rounded): (&[f32], &[f32])| {
            let of_input = |input: &Vec<f32>| {
                let terms = weights.iter().zip(rounded).zip(input);
                let sum: f64 = terms.map(|((w, r), x)| f64::from((w - r) * x)).sum();
                sum * sum
            };
            inputs.iter().map(of_input).sum::<f64>()
        };
        pairs.map(of_output).sum()
    }

    #[test]
    fn compensation_beats_the_nearest_codes_with_large_inputs_and_weights_far_out() {
        let (inputs, weights) = (inputs(), weights());
        let mut moments = SecondMoments::new(NUM_INPUTS);
        inputs.iter().for_each(|input| moments.add(input));
        let steps = RowSteps::of_matrix(&weights, NUM_INPUTS, STEP);
        let near = nearest(&weights, NUM_INPUTS, steps.clone());
        let compensated = with_compensation(&weights, steps, &moments.compensation());
        let near = error(&weights, &near.values(), &inputs);
        let compensated = error(&weights, &compensated.values(), &inputs);
        assert!(compensated * 4.0 < near, "{compensated} of {near}");
    }

    #[test]
    fn only_rows_that_would_be_cut_off_have_a_coarser_step() {
        let steps = RowSteps::of_matrix(&weights(), NUM_INPUTS, STEP);
        assert_eq!(steps.row_steps, [0, 0, 2, 0, 0, 0], "120 is 300 steps");
        let used = [false, true, true, true, true, true];
        let words = RowSteps::of_words(&weights(), NUM_INPUTS, [STEP, 2.0 * STEP], &used);
        assert_eq!(words.row_steps, [1, 0, 2, 0, 0, 0]);
    }
}
