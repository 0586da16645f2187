//! The server beside its peers: `cargo xtask bench server`.

use std::path::PathBuf;

use anyhow::Result;

use crate::process::{announce, cargo, program, run as run_program};
use crate::provision::{self, SystemPackage};
use crate::workspace::{self, NpmProject};

#[derive(clap::Subcommand, Debug)]
pub enum Benchmark {
    /// The server beside express-session, tower-sessions, pgbench and the legacy path, in one run on this machine.
    Server(Options),
}

#[derive(clap::Args, Debug)]
pub struct Options {
    /// Shorter and fewer rounds, to see that it works; writes nothing to docs/benchmarks.
    #[arg(long)]
    quick: bool,
    /// This section alone, such as `cached-reads` or `overload`; may be repeated. Writes nothing to docs/benchmarks.
    #[arg(long, value_name = "SECTION")]
    only: Vec<String>,
    /// A file for the figures, as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// Builds everything for release, measures, and writes a table and a chart to docs/benchmarks.
pub fn run(benchmark: &Benchmark) -> Result<()> {
    let Benchmark::Server(Options { quick, only, json }) = benchmark;
    provision::system(&[SystemPackage::Redis, SystemPackage::Postgres])?;
    provision::npm(NpmProject::BenchmarkPeers)?;
    announce("building the server and the benchmark for release");
    let packages = ["--package", "throughline-server", "--package", "throughline-benchmarks"];
    run_program(cargo().args(["build", "--release"]).args(packages))?;
    announce("building the peers for release");
    let peers = workspace::target_folder()?.join("benchmark-peers");
    let manifest = workspace::path("crates/benchmarks/peers/rust/Cargo.toml");
    run_program(cargo().args(["build", "--release", "--manifest-path"]).arg(manifest).arg("--target-dir").arg(&peers))?;
    announce("measuring");
    let mut benchmark = program(workspace::built_program("release", "benchmark-server")?);
    benchmark.arg("--binary").arg(workspace::built_program("release", "throughline")?);
    benchmark.arg("--peer-binaries").arg(peers.join("release"));
    benchmark.arg("--peer-scripts").arg(NpmProject::BenchmarkPeers.path());
    if *quick {
        benchmark.arg("--quick");
    } else {
        benchmark.arg("--output").arg(workspace::path("docs/benchmarks"));
    }
    for section in only {
        benchmark.arg("--only").arg(section);
    }
    if let Some(file) = json {
        benchmark.arg("--json").arg(file);
    }
    run_program(&mut benchmark)
}
