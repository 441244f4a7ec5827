//! Curves of points with intervals over a logarithmic axis, beside a line at zero: what a quantity costs.

use super::{RIGHT, WIDTH, escape, names_at_ends, open, polyline, push, text, vertical_title};
use crate::evaluate::bootstrap::Interval;

const LEFT: f64 = 64.0;
const TOP: f64 = 14.0;
const HEIGHT: f64 = 340.0;
/// Gridlines across, at most.
const NUM_TICKS_MAX: f64 = 8.0;

/// One measurement.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    /// Above 0.
    pub x: f64,
    /// Of any sign.
    pub y: f64,
    /// Whisker.
    pub interval: Option<Interval>,
    /// Shown when pointed at.
    pub label: String,
}

/// Points in the order of `x`.
#[derive(Debug, Clone, PartialEq)]
pub struct Curve {
    /// Shown at its end.
    pub name: &'static str,
    /// Decides its colour.
    pub place: usize,
    /// May be empty.
    pub points: Vec<Point>,
}

/// Where values lie on the drawing.
struct Frame {
    /// Decimal logarithms of the ends.
    x: [f64; 2],
    y: [f64; 2],
    y_step: f64,
}

impl Frame {
    fn around(curves: &[Curve]) -> Self {
        let points = || curves.iter().flat_map(|curve| &curve.points);
        let xs = points().map(|point| point.x.log10());
        let x = [
            xs.clone().fold(f64::INFINITY, f64::min),
            xs.fold(f64::NEG_INFINITY, f64::max),
        ];
        let lows =
            points().map(|point| point.interval.map_or(point.y, |[low, _]| low.min(point.y)));
        let highs = points().map(|point| {
            point
                .interval
                .map_or(point.y, |[_, high]| high.max(point.y))
        });
        let (low, high) = (lows.fold(0.0, f64::min), highs.fold(0.0, f64::max));
        let y_step = round_up((high - low).max(1e-9) / NUM_TICKS_MAX);
        let y = [
            (low / y_step).floor() * y_step,
            (high / y_step).ceil() * y_step,
        ];
        let is_empty = x[0] > x[1];
        Self {
            x: if is_empty {
                [0.0, 1.0]
            } else {
                [x[0] - 0.05, x[1] + 0.05]
            },
            y: if y[0] < y[1] { y } else { [-y_step, y_step] },
            y_step,
        }
    }

    fn x(&self, value: f64) -> f64 {
        let [low, high] = self.x;
        LEFT + (WIDTH - LEFT - RIGHT) * (value.log10() - low) / (high - low)
    }

    fn y(&self, value: f64) -> f64 {
        let [low, high] = self.y;
        TOP + HEIGHT * (high - value) / (high - low)
    }
}

/// The round number (1, 2 or 5 times a power of ten) at or above.
fn round_up(rough: f64) -> f64 {
    let power = 10_f64.powf(rough.log10().floor());
    let factors = [1.0, 2.0, 5.0].into_iter();
    let mut rounds = factors.map(|factor| factor * power);
    rounds.find(|step| *step >= rough).unwrap_or(10.0 * power)
}

/// Draws the curves.
#[must_use]
pub fn curves(curves: &[Curve], x_title: &str, y_title: &str) -> String {
    let frame = Frame::around(curves);
    let mut svg = open(TOP + HEIGHT + 46.0, &format!("{y_title} by {x_title}"));
    grid(&mut svg, &frame);
    let middle = LEFT + (WIDTH - LEFT - RIGHT) / 2.0;
    let below = TOP + HEIGHT + 38.0;
    text(&mut svg, middle, below, "middle", "title", x_title);
    vertical_title(&mut svg, TOP + HEIGHT / 2.0, y_title);
    let mut ends = Vec::new();
    for curve in curves {
        let at = |point: &Point| (frame.x(point.x), frame.y(point.y));
        let points: Vec<(f64, f64)> = curve.points.iter().map(at).collect();
        for point in &curve.points {
            whisker(&mut svg, &frame, point);
        }
        polyline(&mut svg, curve.name, curve.place, &points);
        for point in &curve.points {
            named_dot(&mut svg, &frame, curve, point);
        }
        ends.extend(points.last().map(|(_, y)| (*y, curve.name, curve.place)));
    }
    names_at_ends(&mut svg, WIDTH - RIGHT + 8.0, ends);
    svg.push_str("</svg>\n");
    svg
}

fn grid(svg: &mut String, frame: &Frame) {
    let right = WIDTH - RIGHT;
    let num_ticks = ((frame.y[1] - frame.y[0]) / frame.y_step).round() as usize; // about a dozen
    let num_decimals = (-frame.y_step.log10().floor()).max(0.0) as usize; // small
    for tick in 0..=num_ticks {
        let value = frame.y[0] + tick as f64 * frame.y_step;
        let y = frame.y(value);
        let class = if value.abs() < frame.y_step / 2.0 {
            "zero"
        } else {
            "grid"
        };
        push(
            svg,
            format_args!(
                "<line class=\"{class}\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>"
            ),
        );
        let label = format!("{value:+.num_decimals$}");
        text(svg, LEFT - 6.0, y + 4.0, "end", "tick", &label);
    }
    for power in frame.x[0].floor() as i32..=frame.x[1].ceil() as i32 {
        for factor in [1.0, 2.0, 5.0] {
            let value = factor * 10_f64.powi(power);
            if !(frame.x[0]..=frame.x[1]).contains(&value.log10()) {
                continue;
            }
            let (x, bottom) = (frame.x(value), TOP + HEIGHT);
            push(
                svg,
                format_args!(
                    "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{bottom}\"/>"
                ),
            );
            text(svg, x, bottom + 18.0, "middle", "tick", &format!("{value}"));
        }
    }
}

fn whisker(svg: &mut String, frame: &Frame, point: &Point) {
    let Some([low, high]) = point.interval else {
        return;
    };
    let x = frame.x(point.x);
    push(
        svg,
        format_args!(
            "<line class=\"thin\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{:.1}\" y2=\"{:.1}\"/>",
            frame.y(low),
            frame.y(high)
        ),
    );
}

fn named_dot(svg: &mut String, frame: &Frame, curve: &Curve, point: &Point) {
    let (x, y) = (frame.x(point.x), frame.y(point.y));
    push(
        svg,
        format_args!(
            "<circle class=\"dot s{}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\"><title>{}: {}, {:.0} bytes, {:+.2} %</title></circle>",
            curve.place,
            curve.name,
            escape(&point.label),
            point.x,
            point.y
        ),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(x: f64, y: f64) -> Point {
        Point {
            x,
            y,
            interval: Some([y - 0.5, y + 0.5]),
            label: "<1>".to_owned(),
        }
    }

    #[test]
    fn ten_times_as_much_is_as_far_everywhere_and_zero_has_a_line() {
        let drawn = [Curve {
            name: "budget",
            place: 0,
            points: vec![point(100.0, -1.0), point(1000.0, 0.2), point(10_000.0, 0.0)],
        }];
        let frame = Frame::around(&drawn);
        let step = frame.x(1000.0) - frame.x(100.0);
        assert!((frame.x(10_000.0) - frame.x(1000.0) - step).abs() < 1e-9);
        let svg = curves(&drawn, "bytes", "change");
        assert_eq!(svg.matches("class=\"zero\"").count(), 1, "{svg}");
        assert_eq!(svg.matches("class=\"thin\"").count(), 3);
        assert!(svg.contains("&lt;1&gt;") && !svg.contains("<1>"));
    }

    #[test]
    fn nothing_to_draw_still_has_axes() {
        assert!(curves(&[], "bytes", "change").contains("class=\"zero\""));
    }
}
