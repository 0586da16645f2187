//! All tests, in stages; the first stage that fails ends the run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use anyhow::{Context, Result, bail};

use crate::api;
use crate::demo;
use crate::process::{announce, cargo, find, program, run as run_program, status, status_with_lines};
use crate::provision::{self, SystemPackage};
use crate::tally::Tally;
use crate::workspace::{self, NpmProject};
use crate::{npm, wasm};

const REPORTS: &str = "target/test-reports";

#[derive(clap::Args, Debug)]
pub struct Options {
    /// Only these stages; all of them unless given.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Stage>,
}

#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// Rust's unit, integration and documentation tests.
    Rust,
    /// The API of the running server, compared with its description.
    Api,
    /// Build the browser core, pack it, and hold it to its size.
    Wasm,
    /// The TypeScript package's unit tests.
    Npm,
    /// The tests with a real server and a real browser.
    E2e,
}

impl Stage {
    const ALL: [Self; 5] = [Self::Rust, Self::Api, Self::Wasm, Self::Npm, Self::E2e];

    fn system_packages(self) -> &'static [SystemPackage] {
        match self {
            Self::Rust => &[
                SystemPackage::Redis,
                SystemPackage::Postgres,
                SystemPackage::HaProxy,
                SystemPackage::Sqlite,
                SystemPackage::Systemd,
            ],
            Self::Api => &[SystemPackage::Python],
            Self::Wasm | Self::Npm => &[],
            Self::E2e => &[SystemPackage::Chromium, SystemPackage::Postgres],
        }
    }

    fn run(self, tally: &mut Tally) -> Result<ExitStatus> {
        match self {
            Self::Rust => rust(tally),
            Self::Api => described_api(tally),
            Self::Wasm => npm::pack(&wasm::Options::default()).map(|()| ExitStatus::default()),
            Self::Npm => package(tally),
            Self::E2e => end_to_end(tally),
        }
    }
}

/// Provisions, then runs the stages. The last line sums what the runners counted.
pub fn run(options: &Options) -> Result<()> {
    let stages: Vec<Stage> =
        Stage::ALL.into_iter().filter(|stage| options.only.is_empty() || options.only.contains(stage)).collect();
    let packages: Vec<SystemPackage> = stages.iter().flat_map(|stage| stage.system_packages()).copied().collect();
    provision::system(&packages)?;
    fs::create_dir_all(workspace::path(REPORTS))?;

    let mut tally = Tally::default();
    for stage in stages {
        let name = format!("{stage:?}").to_lowercase();
        let outcome = stage.run(&mut tally).with_context(|| format!("the {name} stage failed"));
        if !matches!(&outcome, Ok(status) if status.success()) {
            print(tally);
        }
        if !outcome?.success() {
            bail!("the {name} stage failed");
        }
    }
    print(tally);
    Ok(())
}

fn print(tally: Tally) {
    println!("{} passed, {} failed", tally.passed, tally.failed);
}

fn rust(tally: &mut Tally) -> Result<ExitStatus> {
    announce("Rust tests");
    let mut harness = Tally::default();
    let mut count = |line: &str| {
        if let Some(counted) = Tally::from_harness_line(line) {
            harness += counted;
        }
    };
    let status = if find("cargo-nextest").is_some() {
        let report = fresh_report("nextest.xml")?;
        // nextest writes its report below the folder of its profile.
        let written = workspace::path("target/nextest/default/nextest.xml");
        if written.exists() {
            fs::remove_file(&written)?;
        }
        let status = status(cargo().args(["nextest", "run", "--workspace"]))?;
        if written.exists() {
            fs::copy(&written, &report)?;
            *tally += Tally::from_junit(&report)?;
        } else if status.success() {
            bail!("nextest wrote no report to {}", written.display());
        }
        status
    } else {
        status_with_lines(cargo().args(["test", "--workspace", "--lib", "--bins", "--tests"]), &mut count)?
    };
    let status = if status.success() {
        announce("Rust documentation tests");
        status_with_lines(cargo().args(["test", "--doc", "--workspace"]), &mut count)?
    } else {
        status
    };
    *tally += harness;
    Ok(status)
}

fn described_api(tally: &mut Tally) -> Result<ExitStatus> {
    let report = fresh_report("schemathesis.xml")?;
    let status = api::test(&report)?;
    add(tally, status, &report, Tally::from_junit)?;
    Ok(status)
}

fn package(tally: &mut Tally) -> Result<ExitStatus> {
    wasm::build(&wasm::Options::default())?;
    wasm::build_verdict(&wasm::Options::default())?;
    announce("sequences of commands, with the native build's answers");
    let sequences = workspace::path("target/npm/sequences.jsonl");
    let core = ["test", "--quiet", "--workspace", "--test", "core", "sequences"];
    run_program(cargo().args(core).env("THROUGHLINE_SEQUENCES", &sequences))?;
    announce("building the server");
    workspace::build_programs(&["throughline"])?;
    announce("the package's tests, those of the server SDK with a real server");
    let report = fresh_report("vitest.json")?;
    let mut vitest = program(NpmProject::Package.program("vitest"));
    vitest
        .args(["run", "--reporter=default", "--reporter=json"])
        .arg(format!("--outputFile.json={}", report.display()))
        .env("THROUGHLINE_BIN", workspace::built_program("debug", "throughline")?)
        .current_dir(NpmProject::Package.path());
    let status = status(&mut vitest)?;
    add(tally, status, &report, Tally::from_vitest)?;
    Ok(status)
}

fn end_to_end(tally: &mut Tally) -> Result<ExitStatus> {
    npm::assemble(&wasm::Options::default())?;
    announce("building the server, the receiver of its spans, and the demo shop");
    workspace::build_programs(&["throughline", "otlp-receiver"])?;
    demo::build_page()?;
    provision::npm(NpmProject::EndToEnd)?;
    provision::npm(NpmProject::Bundlers)?;
    provision::npm(NpmProject::LegacyShop)?;
    provision::npm(NpmProject::UnifiedShop)?;
    announce("browser tests");
    let report = fresh_report("playwright.json")?;
    let mut playwright = program(NpmProject::EndToEnd.program("playwright"));
    playwright
        .args(["test", "--reporter=list,json"])
        .env("THROUGHLINE_BIN", workspace::built_program("debug", "throughline")?)
        .env("PLAYWRIGHT_JSON_OUTPUT_FILE", &report)
        .current_dir(NpmProject::EndToEnd.path());
    let status = status(&mut playwright)?;
    add(tally, status, &report, Tally::from_playwright)?;
    Ok(status)
}

/// A runner that failed before it ran any test may leave no report; one that succeeded must.
fn add(tally: &mut Tally, status: ExitStatus, report: &Path, read: impl Fn(&Path) -> Result<Tally>) -> Result<()> {
    if status.success() || report.exists() {
        *tally += read(report)?;
    }
    Ok(())
}

/// Where a report goes, with the last run's out of the way.
fn fresh_report(name: &str) -> Result<PathBuf> {
    let report = workspace::path(REPORTS).join(name);
    if report.exists() {
        fs::remove_file(&report)?;
    }
    Ok(report)
}
