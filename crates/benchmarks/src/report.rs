//! What was measured, as a table, a chart and JSON.

use std::fmt::Write as _;

use serde_json::{Value, json};

/// One line of the report.
#[derive(Debug, Clone)]
pub struct Row {
    /// What was measured.
    pub name: String,
    /// The figure.
    pub value: f64,
    /// In what.
    pub unit: String,
    /// What it should be, where something was promised.
    pub target: Option<Target>,
}

/// A promise.
#[derive(Debug, Clone, Copy)]
pub enum Target {
    /// Not less than this.
    AtLeast(f64),
    /// Not more than this.
    AtMost(f64),
}

impl Target {
    fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtLeast(least) => value >= least,
            Self::AtMost(most) => value <= most,
        }
    }
}

/// What is measured, and how it is told.
#[derive(Debug, Clone, Copy)]
pub struct Subject {
    /// The heading of the page.
    pub title: &'static str,
    /// The command that makes it, and what one has to know to read it.
    pub introduction: &'static str,
    /// The files' name without its ending.
    pub name: &'static str,
    /// The section of which the figures are drawn beside each other, where there is one.
    pub compared: Option<&'static str>,
}

/// Everything that was measured in one run.
#[derive(Debug)]
pub struct Report {
    subject: Subject,
    machine: Vec<(&'static str, String)>,
    sections: Vec<(String, Vec<Row>)>,
}

impl Report {
    /// An empty report of this machine, its properties in the order in which they are told.
    pub fn of(subject: Subject, machine: Vec<(&'static str, String)>) -> Self {
        Self { subject, machine, sections: Vec::new() }
    }

    /// Begins a section.
    pub fn section(&mut self, title: impl Into<String>) {
        let title = title.into();
        println!("\n{title}");
        self.sections.push((title, Vec::new()));
    }

    /// Adds a figure, and shows it at once.
    pub fn add(&mut self, name: impl Into<String>, value: f64, unit: impl Into<String>, target: Option<Target>) {
        let row = Row { name: name.into(), value, unit: unit.into(), target };
        println!("  {}", line(&row));
        if let Some((_, rows)) = self.sections.last_mut() {
            rows.push(row);
        }
    }

    /// Adds a figure that nothing was promised of.
    pub fn note(&mut self, name: impl Into<String>, value: f64, unit: impl Into<String>) {
        self.add(name, value, unit, None);
    }

    /// Names of figures that are not what was promised.
    pub fn missed(&self) -> Vec<&str> {
        let rows = self.sections.iter().flat_map(|(_, rows)| rows);
        let is_missed = |row: &&Row| row.target.is_some_and(|target| !target.is_met(row.value));
        rows.filter(is_missed).map(|row| row.name.as_str()).collect()
    }

    /// The report as JSON.
    pub fn to_json(&self) -> Value {
        let machine: serde_json::Map<String, Value> =
            self.machine.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
        let sections: Vec<Value> = (self.sections.iter())
            .map(|(title, rows)| {
                let rows: Vec<Value> = rows
                    .iter()
                    .map(|row| {
                        let met = row.target.map(|target| target.is_met(row.value));
                        json!({ "name": row.name, "value": row.value, "unit": row.unit, "met": met })
                    })
                    .collect();
                json!({ "title": title, "figures": rows })
            })
            .collect();
        json!({ "machine": machine, "sections": sections })
    }

    /// The report as a page.
    pub fn to_markdown(&self) -> String {
        let Subject { title, introduction, name, compared } = self.subject;
        let mut text =
            format!("# {title}\n\n{introduction}\n\n![How far each figure is beyond its target]({name}.svg)\n");
        if let Some(section) = compared {
            let _ = write!(text, "\n![{section}]({name}-compared.svg)\n");
        }
        for (name, value) in &self.machine {
            let _ = write!(text, "\n- {name}: {value}");
        }
        text.push('\n');
        for (title, rows) in &self.sections {
            let _ = write!(text, "\n## {title}\n\n| | | target |\n| --- | ---: | --- |\n");
            for row in rows {
                let target = match row.target {
                    Some(Target::AtLeast(least)) => format!("at least {}", figure(least)),
                    Some(Target::AtMost(most)) => format!("at most {}", figure(most)),
                    None => String::new(),
                };
                let verdict =
                    row.target.map_or("", |target| if target.is_met(row.value) { ", met" } else { ", **missed**" });
                let _ = writeln!(text, "| {} | {} {} | {target}{verdict} |", row.name, figure(row.value), row.unit);
            }
        }
        text
    }

    /// The figures with targets as a bar chart: how far each is beyond what was promised.
    pub fn to_svg(&self) -> String {
        let rows: Vec<&Row> =
            self.sections.iter().flat_map(|(_, rows)| rows).filter(|row| row.target.is_some()).collect();
        let height = 60 + rows.len() * 34;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 860 {height}\" font-family=\"system-ui, sans-serif\" font-size=\"14\" role=\"img\">\
             <title>How far each figure is beyond its target</title><rect width=\"860\" height=\"{height}\" fill=\"#fff\"/>\
             <text x=\"16\" y=\"26\" font-weight=\"600\">Figure in units of its target; beyond the line it is met</text>\n"
        );
        for (index, row) in rows.iter().enumerate() {
            let beyond = match row.target {
                Some(Target::AtLeast(least)) => row.value / least,
                Some(Target::AtMost(most)) => most / row.value.max(f64::MIN_POSITIVE),
                None => continue,
            };
            // Logarithmic: a tenth of the target to a hundred times of it.
            let x = |ratio: f64| 420.0 + (ratio.clamp(0.1, 100.0).log10()) * 140.0;
            let (from, y) = (x(0.1), 44 + index * 34);
            let colour = if beyond >= 1.0 { "#1f7a4d" } else { "#b3261e" };
            let _ = writeln!(
                svg,
                "<text x=\"16\" y=\"{}\">{}</text><rect x=\"{from}\" y=\"{y}\" width=\"{:.1}\" height=\"20\" rx=\"3\" fill=\"{colour}\"/>\
                 <text x=\"{:.1}\" y=\"{}\">{} {}</text>",
                y + 15,
                escape(&shortened(&row.name)),
                x(beyond) - from,
                x(beyond) + 6.0,
                y + 15,
                figure(row.value),
                escape(&row.unit),
            );
        }
        let line = 420.0;
        let _ = writeln!(
            svg,
            "<line x1=\"{line}\" x2=\"{line}\" y1=\"38\" y2=\"{}\" stroke=\"#222\" stroke-dasharray=\"4 3\"/></svg>",
            height - 14
        );
        svg
    }

    /// The files to be written: their names, and what is in them.
    pub fn files(&self) -> Vec<(String, String)> {
        let name = self.subject.name;
        let mut files = vec![(format!("{name}.md"), self.to_markdown()), (format!("{name}.svg"), self.to_svg())];
        files.extend(self.compared_svg().map(|svg| (format!("{name}-compared.svg"), svg)));
        files
    }

    /// The figures of one section beside each other, on a logarithmic scale.
    fn compared_svg(&self) -> Option<String> {
        let title = self.subject.compared?;
        let (_, rows) = self.sections.iter().find(|(known, _)| known == title)?;
        let unit = &rows.first()?.unit;
        let rows: Vec<&Row> = rows.iter().filter(|row| row.unit == *unit && row.value > 0.0).collect();
        let (least, most) =
            rows.iter().fold((f64::MAX, f64::MIN), |(least, most), row| (least.min(row.value), most.max(row.value)));
        let height = 50 + rows.len() * 34;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 860 {height}\" font-family=\"system-ui, sans-serif\" font-size=\"14\" role=\"img\">\
             <title>{0}</title><rect width=\"860\" height=\"{height}\" fill=\"#fff\"/>\
             <text x=\"16\" y=\"26\" font-weight=\"600\">{0}, on a logarithmic scale</text>\n",
            escape(title)
        );
        for (index, row) in rows.iter().enumerate() {
            let y = 40 + index * 34;
            let width = 30.0 + 350.0 * (row.value / least).ln() / (most / least).ln().max(f64::MIN_POSITIVE);
            let colour = if row.name == "throughline" { "#1f7a4d" } else { "#5b6b8c" };
            let _ = writeln!(
                svg,
                "<text x=\"16\" y=\"{0}\">{1}</text><rect x=\"330\" y=\"{y}\" width=\"{width:.1}\" height=\"20\" rx=\"3\" fill=\"{colour}\"/>\
                 <text x=\"{2:.1}\" y=\"{0}\">{3} {4}</text>",
                y + 15,
                escape(&shortened(&row.name)),
                336.0 + width,
                figure(row.value),
                escape(unit),
            );
        }
        svg.push_str("</svg>\n");
        Some(svg)
    }
}

fn line(row: &Row) -> String {
    let verdict = match row.target {
        Some(target) if target.is_met(row.value) => "  (met)",
        Some(_) => "  (MISSED)",
        None => "",
    };
    format!("{:<64} {:>12} {}{verdict}", row.name, figure(row.value), row.unit)
}

fn figure(value: f64) -> String {
    match value.abs() {
        large if large >= 1000.0 => {
            let digits = format!("{value:.0}");
            let mut text = String::new();
            for (index, digit) in digits.chars().enumerate() {
                if index > 0 && (digits.len() - index).is_multiple_of(3) && digit.is_ascii_digit() {
                    text.push(',');
                }
                text.push(digit);
            }
            text
        }
        middle if middle >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn shortened(name: &str) -> String {
    if name.chars().count() <= 36 { name.to_owned() } else { name.chars().take(35).chain(['…']).collect() }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
