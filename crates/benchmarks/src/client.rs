//! `cargo xtask bench client`: the browser package beside its peers, in one browser on this machine.
//!
//! The pages and what they measure are in `browser/`; here they get a server to make a session with, and their figures are told.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use serde_json::Value;
use throughline_benchmarks::machine;
use throughline_benchmarks::report::{Report, Subject, Target};

const SUBJECT: Subject = Subject {
    title: "The browser package beside its peers",
    introduction: "Made by `cargo xtask bench client`: one run in one Chromium, its contenders in turn, medians of the rounds. Absolute figures say \
                   little on another machine; the ratios do. One change is what a buyer does: accept an offer, or go to the next step; each is \
                   shown in a snapshot and encoded for the wire before the next one. What the contenders are: docs/benchmarks/README.md.",
    name: "client",
    compared: Some("Changes a second"),
};

/// Measures the browser package and its peers in turn, and writes a table and charts.
#[derive(Parser)]
struct Options {
    /// The server
    #[arg(long)]
    binary: PathBuf,
    /// Folder with the pages
    #[arg(long)]
    pages: PathBuf,
    /// Folder for the bundled pages
    #[arg(long)]
    bundles: PathBuf,
    /// Shorter and fewer rounds: to see that it works
    #[arg(long)]
    quick: bool,
    /// A file for the figures, as JSON
    #[arg(long)]
    json: Option<PathBuf>,
    /// Folder for the table and the charts
    #[arg(long)]
    output: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(report) => {
            for name in report.missed() {
                eprintln!("not what was promised: {name}");
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<Report> {
    let folder = tempfile::tempdir().context("making a folder for the database")?;
    let server = Server::start(&options.binary, folder.path())?;
    let mut measuring = Command::new("node");
    measuring.arg("measure.mjs").current_dir(&options.pages);
    measuring
        .args(["--server", &server.url, "--service-key", &server.service_key])
        .arg("--output")
        .arg(&options.bundles);
    if options.quick {
        measuring.arg("--quick");
    }
    let output = measuring.stderr(Stdio::inherit()).output().context("starting node")?;
    if !output.status.success() {
        bail!("measuring ended with {}", output.status);
    }
    let measured: Value = serde_json::from_slice(&output.stdout).context("reading what was measured")?;
    let report = told(&measured);
    if let Some(file) = &options.json {
        std::fs::write(file, format!("{:#}\n", report.to_json()))
            .with_context(|| format!("writing {}", file.display()))?;
    }
    if let Some(folder) = &options.output {
        for (name, content) in report.files() {
            std::fs::write(folder.join(name), content)?;
        }
    }
    Ok(report)
}

fn told(measured: &Value) -> Report {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut facts = machine(&[]);
    facts.push(("browser", text(&measured["browser"])));
    let mut report = Report::of(SUBJECT, facts);
    for section in list(&measured["sections"]) {
        report.section(text(&section["title"]));
        for row in list(&section["figures"]) {
            let at_least = row["atLeast"].as_f64().map(Target::AtLeast);
            let target = at_least.or(row["atMost"].as_f64().map(Target::AtMost));
            report.add(text(&row["name"]), row["value"].as_f64().unwrap_or(f64::NAN), text(&row["unit"]), target);
        }
    }
    report
}

/// A server of development mode, for as long as this lives.
struct Server {
    process: Child,
    url: String,
    service_key: String,
}

impl Server {
    fn start(binary: &Path, folder: &Path) -> Result<Self> {
        let database = format!("sqlite:{}", folder.join("throughline.db").display());
        let mut command = Command::new(binary);
        command.args(["serve", "--dev", "--listen", "127.0.0.1:0", "--database-url", &database]);
        let mut process =
            command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().context("starting the server")?;
        let stdout = process.stdout.take().context("the server has no output")?;
        let mut server = Self { process, url: String::new(), service_key: String::new() };
        for line in BufReader::new(stdout).lines() {
            let line = line.context("reading what the server says")?;
            if let Some(key) = line.strip_prefix("dev service key: ") {
                key.clone_into(&mut server.service_key);
            } else if let Some(url) = line.strip_prefix("listening on ") {
                url.clone_into(&mut server.url);
                return Ok(server);
            }
        }
        bail!("the server ended before it listened")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
