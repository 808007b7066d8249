//! The chart: two groups of bars in plain SVG, readable on light and on dark ground.

use std::fmt::Write as _;

use crate::figures::{Figures, Metric, decimals};
use crate::subjects::Kind;

const WIDTH: f64 = 720.0;
/// Where the bars begin, and how much room the longest leaves for its number.
const LEFT: f64 = 150.0;
const RIGHT: f64 = 90.0;
const BAR: f64 = 20.0;
const STEP: f64 = 28.0;
const TITLE: f64 = 40.0;

const PANELS: [(&str, &str, Metric); 2] = [
    ("CPU µs per tools/call, 16 connections (less is better)", "call/16", Metric::Cpu),
    ("tools/call per second, 64 connections, one worker (more is better)", "call/64", Metric::Rate),
];

const STYLE: &str = "text { font: 13px system-ui, sans-serif; fill: #24292f } .title { font-weight: 600 } \
    .bar { fill: #8c959f } .own { fill: #0969da } \
    @media (prefers-color-scheme: dark) { text { fill: #e6edf3 } .bar { fill: #6e7681 } .own { fill: #58a6ff } }";

/// What was measured of small calls. A subject without a figure has no bar.
pub(crate) fn svg(figures: &Figures) -> String {
    let mut body = String::new();
    let mut top = 0.0;
    for (title, row, metric) in PANELS {
        let bars = Kind::ALL.into_iter().filter_map(|kind| Some((kind, figures.median(row, kind, metric)?)));
        top = panel(&mut body, top, title, &bars.collect::<Vec<_>>());
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {top}\" role=\"img\" \
         aria-label=\"CPU per call and calls per second of Toolgate and its peers\">\n<style>{STYLE}</style>\n{body}</svg>\n"
    )
}

/// Draws one group of bars and gives where it ends.
fn panel(body: &mut String, top: f64, title: &str, bars: &[(Kind, f64)]) -> f64 {
    let most = bars.iter().map(|(_, value)| *value).fold(f64::MIN_POSITIVE, f64::max);
    let _ = writeln!(body, "<text class=\"title\" x=\"8\" y=\"{}\">{title}</text>", top + 24.0);
    let mut y = top + TITLE;
    for (kind, value) in bars {
        let length = (WIDTH - LEFT - RIGHT) * value / most;
        let class = if *kind == Kind::Toolgate { "own" } else { "bar" };
        let (base, end, name) = (y + 15.0, LEFT + length + 8.0, kind.name());
        let _ = writeln!(body, "<text x=\"{}\" y=\"{base}\" text-anchor=\"end\">{name}</text>", LEFT - 8.0);
        let _ = writeln!(
            body,
            "<rect class=\"{class}\" x=\"{LEFT}\" y=\"{y}\" width=\"{length:.1}\" height=\"{BAR}\" rx=\"2\"/>"
        );
        let _ = writeln!(body, "<text x=\"{end:.1}\" y=\"{base}\">{}</text>", decimals(*value));
        y += STEP;
    }
    y + 8.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_bar_fits_and_what_is_missing_has_none() {
        let mut figures = Figures::default();
        figures.add("call/16", Kind::Nginx, Metric::Cpu, 20.0);
        figures.add("call/16", Kind::Toolgate, Metric::Cpu, 40.0);

        let svg = svg(&figures);

        assert_eq!(svg.matches("<rect").count(), 2);
        assert!(svg.contains("class=\"own\" x=\"150\" y=\"68\" width=\"480.0\""), "{svg}");
        assert!(svg.contains("width=\"240.0\"") && !svg.contains("Envoy"), "{svg}");
    }
}
