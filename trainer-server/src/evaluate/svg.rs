//! Four kinds of charts as SVG text: lines over a stream, bars with intervals, groups of bars, [`curves`].
//!
//! Colours come from the page's style sheet by class (`s0` to `s7` by place of the system), so that one
//! drawing serves light and dark. Input: plain numbers. Not here: which numbers (`html`).

use std::fmt::Write as _;

use super::bootstrap::Interval;

pub mod curves;

const WIDTH: f64 = 760.0;
const LABEL_WIDTH: f64 = 120.0;
const RIGHT: f64 = 150.0;
/// Steps between gridlines, at most.
const TICKS_MAX: f64 = 6.0;

/// One system's values.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// Name of the system.
    pub name: &'static str,
    /// Place of the system, which decides its colour.
    pub place: usize,
    /// By position on the axis; `None` leaves a gap.
    pub values: Vec<Option<f64>>,
}

/// One bar with its interval.
#[derive(Debug, Clone, PartialEq)]
pub struct Bar {
    /// Name of the system.
    pub name: &'static str,
    /// Place of the system.
    pub place: usize,
    /// Length.
    pub value: f64,
    /// Whisker.
    pub interval: Option<Interval>,
}

/// Values from 0 to the end of an axis, with round gridlines.
struct Axis {
    end: f64,
    step: f64,
}

impl Axis {
    fn up_to(largest: f64) -> Self {
        let largest = if largest > 0.0 { largest } else { 1.0 };
        let rough = largest / TICKS_MAX;
        let power = 10_f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0]
            .into_iter()
            .map(|factor| factor * power)
            .find(|step| *step >= rough)
            .unwrap_or(10.0 * power);
        Self {
            end: (largest / step).ceil() * step,
            step,
        }
    }

    fn ticks(&self) -> impl Iterator<Item = f64> {
        let num = (self.end / self.step).round() as usize; // at most a dozen
        (0..=num).map(|tick| tick as f64 * self.step)
    }

    fn label(&self, value: f64) -> String {
        let num_decimals = (-self.step.log10().floor()).max(0.0) as usize; // small
        format!("{value:.num_decimals$}")
    }
}

/// Lines over the tenths of a stream, each named at its end.
#[must_use]
pub fn lines(series: &[Series], x_title: &str, y_title: &str) -> String {
    let (top, height) = (14.0, 300.0);
    let largest = series.iter().flat_map(|one| &one.values).flatten();
    let axis = Axis::up_to(largest.copied().fold(0.0, f64::max));
    let num_points = series.iter().map(|one| one.values.len()).max().unwrap_or(0);
    let left = 64.0;
    let plot_width = WIDTH - left - RIGHT;
    let x = |idx: usize| left + plot_width * (idx as f64 + 0.5) / num_points.max(1) as f64;
    let y = |value: f64| top + height * (1.0 - value / axis.end);
    let mut svg = open(top + height + 46.0, &format!("{y_title} by {x_title}"));
    horizontal_grid(&mut svg, &axis, left, left + plot_width, y);
    for idx in 0..num_points {
        text(
            &mut svg,
            x(idx),
            top + height + 18.0,
            "middle",
            "tick",
            &(idx + 1).to_string(),
        );
    }
    text(
        &mut svg,
        left + plot_width / 2.0,
        top + height + 38.0,
        "middle",
        "title",
        x_title,
    );
    vertical_title(&mut svg, top + height / 2.0, y_title);
    let mut ends = Vec::new();
    for one in series {
        let values = one.values.iter().enumerate();
        let points: Vec<(f64, f64)> = values
            .filter_map(|(idx, value)| Some((x(idx), y((*value)?))))
            .collect();
        polyline(&mut svg, one.name, one.place, &points);
        ends.extend(points.last().map(|(_, y)| (*y, one.name, one.place)));
    }
    names_at_ends(&mut svg, left + plot_width + 8.0, ends);
    svg.push_str("</svg>\n");
    svg
}

fn polyline(svg: &mut String, name: &str, place: usize, points: &[(f64, f64)]) {
    let path: Vec<String> = points
        .iter()
        .map(|(x, y)| format!("{x:.1},{y:.1}"))
        .collect();
    push(
        svg,
        format_args!(
            "<polyline class=\"line s{place}\" points=\"{}\"/>",
            path.join(" ")
        ),
    );
    for (x, y) in points {
        push(
            svg,
            format_args!(
                "<circle class=\"dot s{place}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.5\"><title>{name}</title></circle>"
            ),
        );
    }
}

/// Names beside the ends of their lines, pushed apart where lines end close together.
fn names_at_ends(svg: &mut String, x: f64, mut ends: Vec<(f64, &str, usize)>) {
    ends.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut lowest = f64::NEG_INFINITY;
    for (y, name, place) in ends {
        lowest = y.max(lowest + 14.0);
        let class = format!("name s{place}");
        text(svg, x, lowest + 4.0, "start", &class, name);
    }
}

/// One horizontal bar per system with its interval as a whisker.
#[must_use]
pub fn bars(bars: &[Bar], x_title: &str) -> String {
    let (top, row) = (8.0, 26.0);
    let largest = bars.iter().map(|bar| {
        bar.interval
            .map_or(bar.value, |[_, high]| high.max(bar.value))
    });
    let axis = Axis::up_to(largest.fold(0.0, f64::max));
    let plot_width = WIDTH - LABEL_WIDTH - 70.0;
    let bottom = top + row * bars.len() as f64;
    let x = |value: f64| LABEL_WIDTH + plot_width * value / axis.end;
    let mut svg = open(bottom + 44.0, &format!("{x_title} by system"));
    for tick in axis.ticks() {
        push(
            &mut svg,
            format_args!(
                "<line class=\"grid\" x1=\"{0:.1}\" x2=\"{0:.1}\" y1=\"{top}\" y2=\"{bottom}\"/>",
                x(tick)
            ),
        );
        text(
            &mut svg,
            x(tick),
            bottom + 16.0,
            "middle",
            "tick",
            &axis.label(tick),
        );
    }
    text(
        &mut svg,
        LABEL_WIDTH + plot_width / 2.0,
        bottom + 36.0,
        "middle",
        "title",
        x_title,
    );
    for (idx, bar) in bars.iter().enumerate() {
        bar_row(&mut svg, bar, top + row * (idx as f64 + 0.5), x);
    }
    svg.push_str("</svg>\n");
    svg
}

/// Name, bar, whisker and value, centred on `middle`.
fn bar_row(svg: &mut String, bar: &Bar, middle: f64, x: impl Fn(f64) -> f64) {
    text(
        svg,
        LABEL_WIDTH - 8.0,
        middle + 4.0,
        "end",
        "label",
        bar.name,
    );
    push(
        svg,
        format_args!(
            "<rect class=\"bar s{}\" x=\"{LABEL_WIDTH}\" y=\"{:.1}\" width=\"{:.1}\" height=\"16\"/>",
            bar.place,
            middle - 8.0,
            x(bar.value) - LABEL_WIDTH
        ),
    );
    let mut end = x(bar.value);
    if let Some([low, high]) = bar.interval {
        end = end.max(x(high));
        let (low, high) = (x(low), x(high));
        push(
            svg,
            format_args!(
                "<path class=\"whisker\" d=\"M{low:.1} {0:.1}V{1:.1}M{low:.1} {middle:.1}H{high:.1}M{high:.1} {0:.1}V{1:.1}\"/>",
                middle - 5.0,
                middle + 5.0
            ),
        );
    }
    let value = format!("{:.4}", bar.value);
    text(svg, end + 6.0, middle + 4.0, "start", "value", &value);
}

/// Groups of upright bars, one group per name in `groups`, one bar per system in each.
#[must_use]
pub fn groups(series: &[Series], groups: &[String], y_title: &str) -> String {
    let (top, height, left) = (14.0, 260.0, 64.0);
    let largest = series.iter().flat_map(|one| &one.values).flatten();
    let axis = Axis::up_to(largest.copied().fold(0.0, f64::max));
    let plot_width = WIDTH - left - RIGHT;
    let group_width = plot_width / groups.len().max(1) as f64;
    let bar_width = group_width * 0.8 / series.len().max(1) as f64;
    let y = |value: f64| top + height * (1.0 - value / axis.end);
    let mut svg = open(
        top + height + 30.0,
        &format!("{y_title} by slice and system"),
    );
    horizontal_grid(&mut svg, &axis, left, left + plot_width, y);
    vertical_title(&mut svg, top + height / 2.0, y_title);
    for (group_idx, name) in groups.iter().enumerate() {
        let start = left + group_width * (group_idx as f64 + 0.1);
        text(
            &mut svg,
            start + group_width * 0.4,
            top + height + 18.0,
            "middle",
            "label",
            name,
        );
        for (series_idx, one) in series.iter().enumerate() {
            let Some(Some(value)) = one.values.get(group_idx) else {
                continue;
            };
            push(
                &mut svg,
                format_args!(
                    "<rect class=\"bar s{}\" x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\"><title>{}, {}: {value:.4}</title></rect>",
                    one.place,
                    start + bar_width * series_idx as f64,
                    y(*value),
                    bar_width * 0.9,
                    y(0.0) - y(*value),
                    one.name,
                    escape(name)
                ),
            );
        }
    }
    for (idx, one) in series.iter().enumerate() {
        let row = top + 8.0 + 18.0 * idx as f64;
        let x = left + plot_width + 12.0;
        push(
            &mut svg,
            format_args!(
                "<rect class=\"bar s{}\" x=\"{x:.1}\" y=\"{:.1}\" width=\"10\" height=\"10\"/>",
                one.place,
                row - 5.0
            ),
        );
        text(&mut svg, x + 16.0, row + 4.0, "start", "label", one.name);
    }
    svg.push_str("</svg>\n");
    svg
}

/// A chart as a file of its own, with the style sheet of the page inside it.
#[must_use]
pub fn standalone(chart: &str, style: &str) -> String {
    let root = "<svg xmlns=\"http://www.w3.org/2000/svg\"";
    let chart = chart.replacen("<svg", root, 1);
    let end = chart.find('\n').map_or(chart.len(), |end| end + 1);
    let (head, rest) = chart.split_at(end);
    format!("{head}<style>{style}</style>\n{rest}")
}

/// Text that is safe inside an element or a quoted attribute.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            other => escaped.push(other),
        }
    }
    escaped
}

fn open(height: f64, title: &str) -> String {
    format!(
        "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{}\">\n",
        escape(title)
    )
}

fn horizontal_grid(svg: &mut String, axis: &Axis, left: f64, right: f64, y: impl Fn(f64) -> f64) {
    for tick in axis.ticks() {
        push(
            svg,
            format_args!(
                "<line class=\"grid\" x1=\"{left}\" x2=\"{right}\" y1=\"{0:.1}\" y2=\"{0:.1}\"/>",
                y(tick)
            ),
        );
        text(
            svg,
            left - 6.0,
            y(tick) + 4.0,
            "end",
            "tick",
            &axis.label(tick),
        );
    }
}

fn vertical_title(svg: &mut String, middle: f64, title: &str) {
    push(
        svg,
        format_args!(
            "<text class=\"title\" text-anchor=\"middle\" transform=\"translate(12 {middle:.1}) rotate(-90)\">{}</text>",
            escape(title)
        ),
    );
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, class: &str, content: &str) {
    push(
        svg,
        format_args!(
            "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>",
            escape(content)
        ),
    );
}

fn push(svg: &mut String, element: std::fmt::Arguments<'_>) {
    writeln!(svg, "{element}").expect("writing to a string never fails");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_ends_on_a_round_gridline_beyond_the_largest_value() {
        let axis = Axis::up_to(0.193);
        assert!((axis.end - 0.2).abs() < 1e-9 && (axis.step - 0.05).abs() < 1e-9);
        assert_eq!(axis.label(0.15), "0.15");
        assert_eq!(axis.ticks().count(), 5);
        assert_eq!(
            Axis::up_to(0.0).end,
            1.0,
            "nothing to show still has an axis"
        );
    }

    #[test]
    fn a_gap_is_no_point_and_a_bar_is_as_long_as_its_value() {
        let series = [Series {
            name: "a",
            place: 3,
            values: vec![Some(0.5), None, Some(1.0)],
        }];
        let chart = lines(&series, "tenth", "HR@10");
        assert_eq!(chart.matches("<circle class=\"dot s3\"").count(), 2);
        let two = [(1.0, 0), (0.5, 1)].map(|(value, place)| Bar {
            name: "b",
            place,
            value,
            interval: Some([value, value]),
        });
        let chart = bars(&two, "HR@10");
        assert!(
            chart.contains("width=\"570.0\"") && chart.contains("width=\"285.0\""),
            "{chart}"
        );
        assert_eq!(chart.matches("whisker").count(), 2);
    }

    #[test]
    fn names_from_outside_cannot_leave_their_element() {
        assert_eq!(escape("<b a=\"&\">"), "&lt;b a=&quot;&amp;&quot;&gt;");
    }
}
