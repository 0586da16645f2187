//! The server and the browser package beside their peers: `cargo xtask bench server`, `cargo xtask bench client`.

use std::path::PathBuf;

use anyhow::Result;

use crate::process::{announce, cargo, program, run as run_program};
use crate::provision::{self, SystemPackage};
use crate::workspace::{self, NpmProject};
use crate::{npm, wasm};

#[derive(clap::Subcommand, Debug)]
pub enum Benchmark {
    /// The server beside express-session, tower-sessions, pgbench and the legacy path, in one run on this machine.
    Server(ServerOptions),
    /// The browser package beside yjs, XState, Automerge, Loro and the manager that funnels had before, in one Chromium.
    Client(ClientOptions),
}

#[derive(clap::Args, Debug)]
pub struct ClientOptions {
    /// Shorter and fewer rounds, to see that it works; writes nothing to docs/benchmarks.
    #[arg(long)]
    quick: bool,
    /// A file for the figures, as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
}

#[derive(clap::Args, Debug)]
pub struct ServerOptions {
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
    match benchmark {
        Benchmark::Server(options) => server(options),
        Benchmark::Client(options) => client(options),
    }
}

fn client(ClientOptions { quick, json }: &ClientOptions) -> Result<()> {
    provision::system(&[SystemPackage::Chromium])?;
    npm::assemble(&wasm::Options::default())?;
    provision::npm(NpmProject::BrowserBenchmark)?;
    announce("building the server and the benchmark");
    workspace::build_programs(&["throughline", "benchmark-client"])?;
    announce("measuring");
    let mut benchmark = program(workspace::built_program("debug", "benchmark-client")?);
    benchmark.arg("--binary").arg(workspace::built_program("debug", "throughline")?);
    benchmark.arg("--pages").arg(NpmProject::BrowserBenchmark.path());
    benchmark.arg("--bundles").arg(workspace::path("target/browser-benchmark"));
    if *quick {
        benchmark.arg("--quick");
    } else {
        benchmark.arg("--output").arg(workspace::path("docs/benchmarks"));
    }
    if let Some(file) = json {
        benchmark.arg("--json").arg(file);
    }
    run_program(&mut benchmark)
}

fn server(ServerOptions { quick, only, json }: &ServerOptions) -> Result<()> {
    provision::system(&[SystemPackage::Redis, SystemPackage::Postgres])?;
    provision::npm(NpmProject::BenchmarkPeers)?;
    npm::assemble(&wasm::Options::default())?;
    for shop in [NpmProject::LegacyShop, NpmProject::UnifiedShop] {
        provision::npm(shop)?;
        announce(&format!("building {}", shop.folder()));
        run_program(program(shop.program("next")).arg("build").current_dir(shop.path()))?;
    }
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
    benchmark.arg("--shops").arg(workspace::path("examples/nextjs"));
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
