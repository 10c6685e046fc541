//! Charts as SVG files that need no script and no font.

/// Size of a chart, and of the parts beside the plot, in pixels.
const WIDTH: f64 = 900.0;
const PLOT_HEIGHT: f64 = 260.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 40.0;
const AXIS: f64 = 50.0;
const LEGEND_ROW: f64 = 20.0;

/// Names in a row of the legend.
const LEGEND_COLUMNS: usize = 3;

/// About as many ticks has each axis.
const TICKS: f64 = 6.0;

/// Colors that color-blind people can tell apart (Okabe and Ito 2008).
const COLORS: [&str; 7] = [
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000",
];

/// A chart.
pub(super) struct Chart<'a> {
    pub(super) title: &'a str,
    pub(super) x: &'a str,
    pub(super) y: &'a str,
    pub(super) style: Style,
    pub(super) series: Vec<Series>,
}

/// How values are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// Each value lasts until the next one; both axes begin at 0.
    Steps,
    /// Single values with the names of their series.
    Points,
}

/// Values with a name, x ascending.
pub(super) struct Series {
    pub(super) name: String,
    pub(super) values: Vec<(f64, f64)>,
}

/// Values of an axis, with ticks at multiples of `step`.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Scale {
    low: f64,
    high: f64,
    step: f64,
}

impl Chart<'_> {
    /// The chart as an SVG document.
    pub(super) fn svg(&self) -> String {
        let rows = self.series.len().div_ceil(LEGEND_COLUMNS) as f64;
        let height = TOP + PLOT_HEIGHT + AXIS + rows * LEGEND_ROW;
        let values = || self.series.iter().flat_map(|series| &series.values);
        let (x, y) = (
            self.scale(values().map(|value| value.0)),
            self.scale(values().map(|value| value.1)),
        );
        let mut parts = vec![
            format!(
                "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
                 font-family=\"sans-serif\" font-size=\"13\">"
            ),
            format!("<rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>"),
            text(WIDTH / 2.0, TOP / 2.0, "middle", self.title),
        ];
        parts.extend(self.axes(x, y));
        for (index, series) in self.series.iter().enumerate() {
            let color = COLORS[index % COLORS.len()];
            parts.extend(match self.style {
                Style::Steps => vec![steps(series, x, y, color)],
                Style::Points => points(series, x, y, color),
            });
            let column = WIDTH / LEGEND_COLUMNS as f64;
            let left = LEFT / 2.0 + column * (index % LEGEND_COLUMNS) as f64;
            let top = TOP + PLOT_HEIGHT + AXIS + LEGEND_ROW * (index / LEGEND_COLUMNS) as f64;
            parts.push(format!(
                "<rect x=\"{left:.1}\" y=\"{:.1}\" width=\"14\" height=\"4\" fill=\"{color}\"/>",
                top - 6.0
            ));
            parts.push(text(left + 20.0, top, "start", &series.name));
        }
        parts.push("</svg>\n".to_owned());
        parts.join("\n")
    }

    fn scale(&self, values: impl Iterator<Item = f64>) -> Scale {
        let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
            (low.min(value), high.max(value))
        });
        match self.style {
            Style::Steps => Scale::new(0.0, high),
            Style::Points => Scale::new(low, high),
        }
    }

    fn axes(&self, x: Scale, y: Scale) -> Vec<String> {
        let (right, bottom) = (WIDTH - RIGHT, TOP + PLOT_HEIGHT);
        let mut parts = Vec::new();
        for tick in y.ticks() {
            let at = vertical(y, tick);
            parts.push(line([LEFT, at, right, at], "#dddddd"));
            parts.push(text(LEFT - 8.0, at + 4.0, "end", &y.label(tick)));
        }
        for tick in x.ticks() {
            let at = horizontal(x, tick);
            parts.push(line([at, bottom, at, bottom + 5.0], "#000000"));
            parts.push(text(at, bottom + 19.0, "middle", &x.label(tick)));
        }
        parts.push(line([LEFT, bottom, right, bottom], "#000000"));
        parts.push(text((LEFT + right) / 2.0, bottom + 37.0, "middle", self.x));
        parts.push(text(LEFT, TOP - 8.0, "middle", self.y));
        parts
    }
}

impl Scale {
    /// A scale with at least these values.
    fn new(low: f64, high: f64) -> Self {
        let low = if low.is_finite() { low } else { 0.0 };
        let high = if high > low { high } else { low + 1.0 };
        let rough = (high - low) / TICKS;
        let magnitude = 10_f64.powf(rough.log10().floor());
        let factor = [1.0, 2.0, 5.0]
            .into_iter()
            .find(|factor| factor * magnitude >= rough);
        let step = magnitude * factor.unwrap_or(10.0);
        Self {
            low: (low / step).floor() * step,
            high: (high / step).ceil() * step,
            step,
        }
    }

    fn ticks(self) -> impl Iterator<Item = f64> {
        let count = ((self.high - self.low) / self.step).round() as u32;
        (0..=count).map(move |index| self.low + self.step * f64::from(index))
    }

    fn label(self, tick: f64) -> String {
        let decimals = (-self.step.log10().floor()).max(0.0) as usize;
        format!("{tick:.decimals$}")
    }

    /// The place of a value, from 0 to 1.
    fn place(self, value: f64) -> f64 {
        (value - self.low) / (self.high - self.low)
    }
}

fn horizontal(x: Scale, value: f64) -> f64 {
    LEFT + (WIDTH - LEFT - RIGHT) * x.place(value)
}

fn vertical(y: Scale, value: f64) -> f64 {
    TOP + PLOT_HEIGHT * (1.0 - y.place(value))
}

fn steps(series: &Series, x: Scale, y: Scale, color: &str) -> String {
    let mut path = String::new();
    for (at, value) in &series.values {
        let (at, value) = (horizontal(x, *at), vertical(y, *value));
        path.push_str(&if path.is_empty() {
            format!("M{at:.1},{value:.1}")
        } else {
            format!("H{at:.1}V{value:.1}")
        });
    }
    format!("<path d=\"{path}\" fill=\"none\" stroke=\"{color}\" stroke-opacity=\"0.8\"/>")
}

fn points(series: &Series, x: Scale, y: Scale, color: &str) -> Vec<String> {
    let mut parts = Vec::new();
    for (at, value) in &series.values {
        let (left, top) = (horizontal(x, *at), vertical(y, *value));
        parts.push(format!(
            "<circle cx=\"{left:.1}\" cy=\"{top:.1}\" r=\"5\" fill=\"{color}\"/>"
        ));
        // Names stay within the plot.
        let (from, anchor) = if x.place(*at) < 0.6 {
            (left + 9.0, "start")
        } else {
            (left - 9.0, "end")
        };
        parts.push(text(from, top + 4.0, anchor, &series.name));
    }
    parts
}

fn line([x1, y1, x2, y2]: [f64; 4], color: &str) -> String {
    format!("<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"{color}\"/>")
}

fn text(x: f64, y: f64, anchor: &str, text: &str) -> String {
    let text = text
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;");
    format!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_include_all_values() {
        let scale = |low, high| {
            let scale = Scale::new(low, high);
            (scale.low, scale.high, scale.step)
        };
        assert_eq!(scale(0.0, 24.0), (0.0, 25.0, 5.0));
        assert_eq!(scale(0.0, 1_989.0), (0.0, 2_000.0, 500.0));
        assert_eq!(scale(412.0, 705.0), (400.0, 750.0, 50.0));
        assert_eq!(scale(0.0, 0.0), (0.0, 1.0, 0.2));
        assert_eq!(scale(f64::INFINITY, f64::NEG_INFINITY), (0.0, 1.0, 0.2));
        assert_eq!(Scale::new(0.0, 1.0).ticks().count(), 6);
        assert_eq!(Scale::new(0.0, 1.0).label(0.4), "0.4");
        assert_eq!(Scale::new(0.0, 24.0).label(20.0), "20");
    }

    #[test]
    fn values_are_drawn_to_scale_and_names_are_escaped() {
        let chart = |style| Chart {
            title: "title",
            x: "hours",
            y: "pods",
            style,
            series: vec![Series {
                name: "a < b & c".to_owned(),
                values: vec![(0.0, 0.0), (5.0, 10.0), (10.0, 5.0)],
            }],
        };
        let steps = chart(Style::Steps).svg();
        // The plot is 810 wide from 70 on, and 260 high from 40 on.
        assert!(steps.contains("M70.0,300.0H475.0V40.0H880.0V170.0"), "{steps}");
        assert!(steps.contains(">a &lt; b &amp; c</text>"));
        let points = chart(Style::Points).svg();
        assert_eq!(points.matches("<circle").count(), 3);
        assert!(points.contains("cx=\"475.0\" cy=\"40.0\""), "{points}");
    }
}
