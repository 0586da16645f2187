//! Funnels as pictures: Mermaid for documents, SVG for everything else.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use throughline_core::Funnel;
use throughline_core::funnel::{Step, StepKind};

/// The funnel as a Mermaid flow chart.
#[must_use]
pub fn mermaid(funnel: &Funnel) -> String {
    let number = |id: &str| funnel.steps.iter().position(|step| step.id.as_str() == id).unwrap_or_default();
    let mut chart = format!("%% {} {} ({})\nflowchart LR\n", funnel.id, funnel.version, one_line(&funnel.name));
    for (index, step) in funnel.steps.iter().enumerate() {
        let label = labels(step).map(|line| line.replace('"', "'")).collect::<Vec<_>>().join("<br/>");
        let (open, close) = match step.kind {
            StepKind::Form => ("[\"", "\"]"),
            StepKind::Payment => ("[[\"", "\"]]"),
            StepKind::Offer => ("{{\"", "\"}}"),
            StepKind::Terminal => ("([\"", "\"])"),
        };
        // Writing into a String can't fail.
        let _ = writeln!(chart, "  s{index}{open}{label}{close}");
    }
    for (index, step) in funnel.steps.iter().enumerate() {
        for next in &step.next {
            let _ = writeln!(chart, "  s{index} --> s{}", number(next.as_str()));
        }
        for back in &step.back {
            let _ = writeln!(chart, "  s{index} -. back .-> s{}", number(back.as_str()));
        }
    }
    chart
}

/// What stands in a step's box.
fn labels(step: &Step) -> impl Iterator<Item = String> + '_ {
    let requires: Vec<String> = step.requires.iter().map(ToString::to_string).collect();
    let offers: Vec<&str> = step.offers.iter().map(|offer| offer.as_str()).collect();
    let needs = (!requires.is_empty()).then(|| format!("needs {}", requires.join(", ")));
    let makes = (!offers.is_empty()).then(|| format!("offers {}", offers.join(", ")));
    let limit = step.time_limit.map(|limit| format!("open for {limit}"));
    std::iter::once(step.id.to_string()).chain([makes, limit, needs].into_iter().flatten())
}

fn one_line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}

const BOX_WIDTH: usize = 190;
const GAP: usize = 70;
const LINE: usize = 18;
const MARGIN: usize = 24;
/// How many characters fit into a box.
const LABEL_CHARS: usize = 25;

/// The funnel as an SVG drawing that needs nothing beside it.
///
/// Steps stand in columns by their distance from the first; solid arrows lead on, dashed ones back.
#[must_use]
pub fn svg(funnel: &Funnel) -> String {
    let columns = columns(funnel);
    let mut places = BTreeMap::new();
    let mut lines: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let (mut width, mut height) = (0, 0);
    for (column, steps) in &columns {
        let mut top = MARGIN + 34;
        for step in steps {
            let text: Vec<String> = labels(step).flat_map(|line| wrapped(&line)).collect();
            let tall = text.len() * LINE + 16;
            let left = MARGIN + column * (BOX_WIDTH + GAP);
            places.insert(step.id.as_str(), (left, top, tall));
            lines.insert(step.id.as_str(), text);
            top += tall + 30;
            width = width.max(left + BOX_WIDTH + MARGIN);
            height = height.max(top + MARGIN);
        }
    }
    let title = escape(&format!("{}, version {}", one_line(&funnel.name), funnel.version));
    let mut drawing = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
         role=\"img\" aria-labelledby=\"t\" font-family=\"system-ui, sans-serif\" font-size=\"13\">\n\
         <title id=\"t\">{title}</title>\n\
         <defs><marker id=\"a\" viewBox=\"0 0 8 8\" refX=\"8\" refY=\"4\" markerWidth=\"7\" markerHeight=\"7\" \
         orient=\"auto\"><path d=\"M0 0 8 4 0 8z\" fill=\"#445\"/></marker></defs>\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"#fff\"/>\n\
         <text x=\"{MARGIN}\" y=\"{}\" font-size=\"16\" font-weight=\"600\" fill=\"#223\">{title}</text>\n",
        MARGIN + 8
    );
    for step in &funnel.steps {
        let Some(from) = places.get(step.id.as_str()) else { continue };
        for (targets, dashed) in [(&step.next, false), (&step.back, true)] {
            for to in targets.iter().filter_map(|target| places.get(target.as_str())) {
                draw_arrow(&mut drawing, *from, *to, dashed);
            }
        }
    }
    for step in &funnel.steps {
        let (Some(place), Some(text)) = (places.get(step.id.as_str()), lines.get(step.id.as_str())) else { continue };
        draw_step(&mut drawing, step.kind, *place, text);
    }
    drawing.push_str("</svg>\n");
    drawing
}

/// The steps by their distance from the first one.
fn columns(funnel: &Funnel) -> BTreeMap<usize, Vec<&Step>> {
    let mut distances: BTreeMap<&str, usize> = BTreeMap::new();
    let mut open: Vec<(&Step, usize)> = funnel.first_step().map(|step| (step, 0)).into_iter().collect();
    while let Some((step, distance)) = open.pop() {
        if distances.get(step.id.as_str()).is_some_and(|known| *known <= distance) {
            continue;
        }
        distances.insert(step.id.as_str(), distance);
        open.extend(step.next.iter().filter_map(|id| funnel.step(id)).map(|next| (next, distance + 1)));
    }
    let mut columns: BTreeMap<usize, Vec<&Step>> = BTreeMap::new();
    for step in &funnel.steps {
        columns.entry(distances.get(step.id.as_str()).copied().unwrap_or_default()).or_default().push(step);
    }
    columns
}

fn draw_arrow(drawing: &mut String, from: (usize, usize, usize), to: (usize, usize, usize), back: bool) {
    let ((from_left, from_top, from_tall), (to_left, to_top, to_tall)) = (from, to);
    let path = if back {
        let (x1, y1) = (from_left + BOX_WIDTH / 2, from_top + from_tall);
        let (x2, y2) = (to_left + BOX_WIDTH / 2, to_top + to_tall);
        let low = y1.max(y2) + 26;
        format!("M{x1} {y1}C{x1} {low} {x2} {low} {x2} {y2}")
    } else {
        let (x1, y1) = (from_left + BOX_WIDTH, from_top + 20);
        let (x2, y2) = (to_left, to_top + 20);
        format!("M{x1} {y1}C{} {y1} {} {y2} {x2} {y2}", x1 + GAP / 2, x2.saturating_sub(GAP / 2))
    };
    let dash = if back { " stroke-dasharray=\"5 4\"" } else { "" };
    // Writing into a String can't fail.
    let _ = writeln!(
        drawing,
        "<path d=\"{path}\" fill=\"none\" stroke=\"#445\" stroke-width=\"1.5\"{dash} marker-end=\"url(#a)\"/>"
    );
}

fn draw_step(drawing: &mut String, kind: StepKind, place: (usize, usize, usize), text: &[String]) {
    let (left, top, tall) = place;
    let (fill, radius) = match kind {
        StepKind::Form => ("#eef4ff", 6),
        StepKind::Payment => ("#fff3dd", 6),
        StepKind::Offer => ("#eefaf0", 6),
        StepKind::Terminal => ("#f3eefc", 20),
    };
    let _ = writeln!(
        drawing,
        "<rect x=\"{left}\" y=\"{top}\" width=\"{BOX_WIDTH}\" height=\"{tall}\" rx=\"{radius}\" fill=\"{fill}\" stroke=\"#445\"/>"
    );
    for (index, line) in text.iter().enumerate() {
        let weight = if index == 0 { " font-weight=\"600\"" } else { "" };
        let (x, y) = (left + 10, top + 22 + index * LINE);
        let _ = writeln!(drawing, "<text x=\"{x}\" y=\"{y}\" fill=\"#223\"{weight}>{}</text>", escape(line));
    }
}

/// The text in lines that fit into a box.
fn wrapped(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let full =
            lines.last().is_some_and(|line| !line.is_empty() && line.chars().count() + word.len() >= LABEL_CHARS);
        if full {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::funnels::DEFAULT_FUNNEL;

    fn funnel() -> Funnel {
        toml::from_str(DEFAULT_FUNNEL).unwrap()
    }

    #[test]
    fn mermaid_has_every_step_and_every_way() {
        let chart = mermaid(&funnel());
        assert!(chart.starts_with("%% default 1 (Default)\nflowchart LR\n"), "{chart}");
        for line in [
            "s0[\"checkout\"]",
            "s1[[\"processing<br/>needs email, products, customer.firstName, customer.lastName\"]]",
            "s2{{\"upsell-1<br/>offers RC6, RC12<br/>needs payment\"}}",
            "s4([\"success<br/>needs payment\"])",
            "s0 --> s1",
            "s1 -. back .-> s0",
            "s3 --> s4",
        ] {
            assert!(chart.contains(line), "{line} is not in\n{chart}");
        }
    }

    #[test]
    fn the_drawing_shows_every_step_and_escapes_what_people_wrote() {
        let mut funnel = funnel();
        funnel.name = "Cups & <mugs>".to_owned();
        let drawing = svg(&funnel);
        for step in &funnel.steps {
            assert!(drawing.contains(&format!(">{}</text>", step.id)), "{}", step.id);
        }
        assert!(drawing.contains("Cups &amp; &lt;mugs&gt;, version 1"));
        assert_eq!(drawing.matches("marker-end").count(), 6, "four ways on, two back");
    }
}
