//! Metrics over many events that have labels: a click or none, or a rating.
//!
//! Every event has a weight, 1 for a plain figure; a bootstrap gives each event the number of times that its
//! user was drawn. Figures that cannot be had are absent: AUC where all labels are equal, precision where
//! nothing is predicted positive, recall where nothing is positive, everything where there is no weight.
//! Input: probabilities and grades; values that are not finite make every figure that sees them absent.

use super::log_loss;

/// A probability from here on predicts a positive.
pub const THRESHOLD: f64 = 0.5;

/// One event with a binary label.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Labelled {
    /// Predicted probability of a positive.
    pub probability: f64,
    /// Whether it is one.
    pub label: bool,
}

/// One event with a grade.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Graded {
    /// Predicted grade.
    pub predicted: f64,
    /// True grade.
    pub actual: f64,
}

/// Figures of a classification.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Classification {
    /// Share of events that [`THRESHOLD`] puts on their side.
    pub accuracy: Option<f64>,
    /// Share of positives among those predicted so.
    pub precision: Option<f64>,
    /// Share of the positives that is predicted so.
    pub recall: Option<f64>,
    /// Harmonic mean of precision and recall; 0 where nothing positive is found.
    pub f1: Option<f64>,
    /// Probability that a positive stands before a negative, ties counted half.
    pub auc: Option<f64>,
    /// Mean of `−ln` of the label's probability.
    pub log_loss: Option<f64>,
}

/// Figures of a regression.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Regression {
    /// Mean squared error.
    pub mse: Option<f64>,
    /// Its square root.
    pub rmse: Option<f64>,
    /// Mean absolute error.
    pub mae: Option<f64>,
}

/// Order of events by probability, lowest first; to be made once for many sets of weights.
#[must_use]
pub fn ascending(events: &[Labelled]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..events.len()).collect();
    order.sort_by(|&left, &right| {
        events[left]
            .probability
            .total_cmp(&events[right].probability)
    });
    order
}

/// Figures of events with weights; `order` is [`ascending`] of the same events.
#[must_use]
pub fn classification(events: &[Labelled], order: &[usize], weights: &[f64]) -> Classification {
    if !is_usable(weights, events.len()) || events.iter().any(|e| !e.probability.is_finite()) {
        return Classification::default();
    }
    let (mut true_positives, mut predicted, mut positives) = (0.0, 0.0, 0.0);
    let (mut right, mut total, mut loss) = (0.0, 0.0, 0.0);
    for (event, weight) in events.iter().zip(weights) {
        let is_predicted = event.probability >= THRESHOLD;
        let add_if = |sum: &mut f64, holds: bool| *sum += if holds { *weight } else { 0.0 };
        add_if(&mut true_positives, is_predicted && event.label);
        add_if(&mut predicted, is_predicted);
        add_if(&mut positives, event.label);
        add_if(&mut right, is_predicted == event.label);
        total += weight;
        loss += weight * log_loss(event.probability, event.label);
    }
    Classification {
        accuracy: ratio(right, total),
        precision: ratio(true_positives, predicted),
        recall: ratio(true_positives, positives),
        f1: ratio(2.0 * true_positives, predicted + positives),
        auc: auc(events, order, weights),
        log_loss: ratio(loss, total),
    }
}

/// Area under the ROC curve by ranks (Hanley and McNeil 1982), events counted by weight, ties half.
fn auc(events: &[Labelled], order: &[usize], weights: &[f64]) -> Option<f64> {
    let (mut negatives_below, mut pairs_won, mut positives) = (0.0, 0.0, 0.0);
    let same =
        |left: &usize, right: &usize| events[*left].probability == events[*right].probability;
    for tied in order.chunk_by(same) {
        let (mut tied_positives, mut tied_negatives) = (0.0, 0.0);
        for &idx in tied {
            if events[idx].label {
                tied_positives += weights[idx];
            } else {
                tied_negatives += weights[idx];
            }
        }
        pairs_won += tied_positives * (negatives_below + 0.5 * tied_negatives);
        negatives_below += tied_negatives;
        positives += tied_positives;
    }
    ratio(pairs_won, positives * negatives_below)
}

/// Figures of graded events with weights.
#[must_use]
pub fn regression(events: &[Graded], weights: &[f64]) -> Regression {
    let is_finite = |event: &Graded| event.predicted.is_finite() && event.actual.is_finite();
    if !is_usable(weights, events.len()) || !events.iter().all(is_finite) {
        return Regression::default();
    }
    let (mut squared, mut absolute, mut total) = (0.0, 0.0, 0.0);
    for (event, weight) in events.iter().zip(weights) {
        let error = event.predicted - event.actual;
        squared += weight * error * error;
        absolute += weight * error.abs();
        total += weight;
    }
    let mse = ratio(squared, total);
    Regression {
        mse,
        rmse: mse.map(f64::sqrt),
        mae: ratio(absolute, total),
    }
}

fn is_usable(weights: &[f64], num_events: usize) -> bool {
    weights.len() == num_events && weights.iter().all(|weight| weight.is_finite())
}

fn ratio(part: f64, whole: f64) -> Option<f64> {
    (whole > 0.0).then(|| part / whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(pairs: &[(f64, bool)]) -> Vec<Labelled> {
        pairs
            .iter()
            .map(|&(probability, label)| Labelled { probability, label })
            .collect()
    }

    fn plain(events: &[Labelled]) -> Classification {
        classification(events, &ascending(events), &vec![1.0; events.len()])
    }

    #[test]
    fn figures_of_a_small_table_are_those_of_the_textbook() {
        let events = events(&[
            (0.9, true),
            (0.8, false),
            (0.7, true),
            (0.4, true),
            (0.2, false),
        ]);
        let figures = plain(&events);
        assert_eq!(figures.accuracy, Some(0.6));
        assert_eq!(figures.precision, Some(2.0 / 3.0));
        assert_eq!(figures.recall, Some(2.0 / 3.0));
        assert_eq!(figures.f1, Some(2.0 / 3.0));
        assert_eq!(figures.auc, Some(4.0 / 6.0), "two of six pairs are wrong");
        let loss = -(0.9_f64.ln() + 0.2_f64.ln() + 0.7_f64.ln() + 0.4_f64.ln() + 0.8_f64.ln());
        assert!((figures.log_loss.expect("finite") - loss / 5.0).abs() < 1e-12);
    }

    #[test]
    fn ties_count_half_and_equal_labels_have_no_auc() {
        assert_eq!(plain(&events(&[(0.3, true), (0.3, false)])).auc, Some(0.5));
        let equal = plain(&events(&[(0.3, true), (0.6, true)]));
        assert_eq!((equal.auc, equal.recall), (None, Some(0.5)));
        let none = plain(&events(&[(0.3, false)]));
        assert_eq!((none.precision, none.recall, none.f1), (None, None, None));
        assert_eq!(plain(&[]), Classification::default());
    }

    #[test]
    fn a_weight_of_two_is_an_event_that_is_there_twice() {
        let table = [(0.9, true), (0.6, false), (0.7, false), (0.2, true)];
        let weighted = events(&table);
        let mut doubled = table.to_vec();
        doubled.push(table[0]);
        doubled.retain(|pair| *pair != table[1]);
        let by_weight = classification(&weighted, &ascending(&weighted), &[2.0, 0.0, 1.0, 1.0]);
        let twice = plain(&events(&doubled));
        let losses = by_weight.log_loss.zip(twice.log_loss).expect("finite");
        assert!(
            (losses.0 - losses.1).abs() < 1e-12,
            "summed in another order"
        );
        let without_loss = |figures: Classification| Classification {
            log_loss: None,
            ..figures
        };
        assert_eq!(without_loss(by_weight), without_loss(twice));
    }

    #[test]
    fn what_is_not_finite_makes_figures_absent() {
        assert_eq!(
            plain(&events(&[(f64::NAN, true), (0.5, false)])),
            Classification::default()
        );
        let graded = [Graded {
            predicted: f64::INFINITY,
            actual: 1.0,
        }];
        assert_eq!(regression(&graded, &[1.0]), Regression::default());
        assert_eq!(regression(&graded, &[]), Regression::default());
    }

    #[test]
    fn errors_of_grades_are_squared_or_absolute() {
        let graded =
            [(3.0, 1.0), (4.0, 5.0)].map(|(predicted, actual)| Graded { predicted, actual });
        let figures = regression(&graded, &[1.0, 1.0]);
        assert_eq!((figures.mse, figures.mae), (Some(2.5), Some(1.5)));
        assert_eq!(figures.rmse, Some(2.5_f64.sqrt()));
        assert_eq!(regression(&graded, &[0.0, 2.0]).mae, Some(1.0));
    }
}
