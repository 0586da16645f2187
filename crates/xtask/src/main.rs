//! The project's own commands, run as `cargo xtask <command>`.

mod api;
mod bench;
mod bundle;
mod chaos;
mod checks;
mod declarations;
mod demo;
mod fuzz;
mod npm;
mod process;
mod provision;
mod reference;
mod release;
mod sbom;
mod simulation;
mod sizes;
mod supply_chain;
mod tally;
mod test;
mod tools;
mod wasm;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The project's own commands.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build the browser core for WebAssembly into target/npm/build.
    Wasm(wasm::Options),
    /// Build the npm package into target/npm and check its size.
    Pack(wasm::Options),
    /// Build everything, start the server, the demo shop and its payment service.
    Demo(demo::Options),
    /// Install what the tests need and run them all.
    Test(test::Options),
    /// Measure the server beside its peers.
    Bench {
        #[command(subcommand)]
        benchmark: bench::Benchmark,
    },
    /// Let servers, Redis, PostgreSQL and the links between them fail at random, and check what became of each change.
    Chaos(chaos::Options),
    /// Let fleets of browsers and servers live through every failure in one thread, and check that no promise was broken.
    Sim(simulation::Options),
    /// Type-check the TypeScript projects.
    Check,
    /// Write the documents that the server prints about itself: its options and its metrics.
    Docs(reference::Options),
    /// Check what others wrote and we build in: licences, sources, known weaknesses, what is unused, the lock files.
    SupplyChain,
    /// Build the server so that the same commit gives the same bytes, and print their digest.
    Release,
    /// Write what the server and the npm package are built from into target/sbom, as CycloneDX.
    Sbom,
    /// Give spoiled input to everything that reads from outside, led by coverage, for as long as wanted.
    Fuzz(fuzz::Options),
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Wasm(options) => wasm::build(&options).map(drop),
        Command::Pack(options) => npm::pack(&options),
        Command::Demo(options) => demo::run(&options),
        Command::Test(options) => test::run(&options),
        Command::Bench { benchmark } => bench::run(&benchmark),
        Command::Chaos(options) => chaos::run(&options),
        Command::Sim(options) => simulation::run(&options),
        Command::Check => checks::typescript(),
        Command::Docs(options) => reference::documents(&options),
        Command::SupplyChain => supply_chain::check(),
        Command::Release => release::build(),
        Command::Sbom => sbom::write(),
        Command::Fuzz(options) => fuzz::run(&options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Its causes, but no backtrace: what fails here is a program that was run, and it has said why.
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
